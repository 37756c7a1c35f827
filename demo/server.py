"""Serving the page, to strangers too."""

from __future__ import annotations

import os
from pathlib import Path

import gradio as gr
from starlette.middleware import Middleware

from maskformer.demo.app import Demo, build_page
from maskformer.demo.gate import Gate
from maskformer.demo.network import Network
from maskformer.demo.viewer import CSS

MOST_UPLOAD_BYTES = 20_000_000
MOST_WAITING = 32  # requests; further ones are told that the queue is full
MOST_SESSIONS = 64  # that gradio remembers, each with the answer it shows; as many as `Memory` has predictions of


def serve(network: Network, examples: list[Path], folder: Path, host: str, port: int) -> gr.Blocks:
    """Starts to serve a demo at `host` and `port`, in threads, and returns the page, which knows its `local_url`.

    Uploads and downloads lie in `folder`, which is the only one that is served; the caller deletes it.
    Raises `ValueError` where the port is taken.
    """
    # gradio reads these when components are made, and has no arguments for them.
    os.environ["GRADIO_TEMP_DIR"] = str(folder)
    os.environ["GRADIO_ANALYTICS_ENABLED"] = "False"
    page = build_page(Demo(network, folder), examples)
    page.queue(max_size=MOST_WAITING, default_concurrency_limit=2, api_open=False)
    try:
        page.launch(
            server_name=host,
            server_port=port,
            share=False,
            prevent_thread_lock=True,
            quiet=True,
            show_error=False,
            max_file_size=MOST_UPLOAD_BYTES,
            max_threads=8,
            state_session_capacity=MOST_SESSIONS,
            allowed_paths=[],
            app_kwargs={"middleware": [Middleware(Gate, folder=folder, most_bytes=MOST_UPLOAD_BYTES)]},
            enable_monitoring=False,
            run_history=False,
            mcp_server=False,
            ssr_mode=False,
            footer_links=[],
            theme=_theme(),
            css=CSS,
        )
    except OSError as error:
        raise ValueError(
            f"{host}:{port} cannot be served at: another program does, or the address is not this machine's; "
            "choose another --port or --host"
        ) from error
    return page


def _theme() -> gr.themes.Base:
    """gradio's own, with legible small print and the system's fonts, as others would be fetched from Google."""
    theme = gr.themes.Default(font=["system-ui", "sans-serif"], font_mono=["monospace"])
    light, dark = "*neutral_500", "*neutral_400"
    return theme.set(
        body_text_color_subdued=light,
        body_text_color_subdued_dark=dark,
        block_info_text_color=light,
        block_info_text_color_dark=dark,
    )
