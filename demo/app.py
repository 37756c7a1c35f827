"""The page: components, and what happens when they are used."""

from __future__ import annotations

import secrets
import time
from html import escape
from pathlib import Path

import gradio as gr

from maskformer.demo.answers import Answer, Thresholds, answer
from maskformer.demo.downloads import answer_archive
from maskformer.demo.memory import Memory
from maskformer.demo.network import Network, Prediction
from maskformer.demo.uploads import read_image
from maskformer.demo.viewer import LEGEND_JS, VIEWER_JS, draw, legend_html, percent, viewer_html

SESSION_SECONDS = 1800  # without a new image, after which a session's prediction is forgotten
EMPTY = '<div class="empty">Give an image, or pick an example: its segments appear here.</div>'
CLICK_ARCHIVE = "() => setTimeout(() => document.querySelector('#archive').click(), 50)"


class Demo:
    """What the page's events do. `folder` is where downloads are written."""

    def __init__(self, network: Network, folder: Path, memory: Memory | None = None):
        self.network, self.folder = network, folder
        self.memory = Memory() if memory is None else memory
        self.names, self.colors = network.label_names, network.label_colors

    def forget(self, ticket: int | None) -> tuple[None, frozenset]:
        """Ends the answer of an image that is being replaced: no ticket, no class switched off."""
        self.memory.drop(ticket)
        return None, frozenset()

    def look(self, upload: dict | None) -> int | None:
        """Runs the network on an upload and returns the ticket of what it said; None without an upload.

        `upload` is what gradio says of the file (`path`), which it has only looked for in the folder of uploads.
        """
        if upload is None:
            return None
        try:
            if upload.get("path") is None:
                raise ValueError("there is no file; upload the image itself")
            return self.memory.put(self.network.predict(read_image(upload["path"])))
        except ValueError as error:
            raise _for_people(error) from error
        except TimeoutError as error:
            message = f"The server is busy: {error}. Please try again later, or use a smaller image."
            raise gr.Error(message, print_exception=False) from error

    def show(self, ticket: int | None, hidden: frozenset[int], task: str, *thresholds: float) -> tuple:
        """Viewer, legend and whether there is something to download, for a ticket and what the controls say."""
        if ticket is None:
            return EMPTY, "", gr.Button(interactive=False)
        start = time.perf_counter()
        prediction, whole = self._answer(ticket, task, thresholds)
        shown = whole.without(hidden)
        picture = draw(prediction.image, shown, self.names, self.colors)
        caption = _caption(prediction, whole, time.perf_counter() - start)
        legend = legend_html(whole, hidden, self.colors)
        return viewer_html(picture, shown, caption), legend, gr.Button(interactive=True)

    def archive(self, ticket: int | None, hidden: frozenset[int], task: str, *thresholds: float) -> str:
        """The path of a ZIP of what is shown."""
        if ticket is None:
            raise gr.Error("There is no answer to download yet; give an image first.", print_exception=False)
        prediction, whole = self._answer(ticket, task, thresholds)
        shown = whole.without(hidden)
        picture = draw(prediction.image, shown, self.names, self.colors)
        path = self.folder / secrets.token_hex(16) / f"maskformer_{task}.zip"
        path.parent.mkdir(parents=True)
        path.write_bytes(answer_archive(shown, task, picture))
        return str(path)

    def switch(self, hidden: frozenset[int], event: gr.EventData) -> frozenset[int]:
        """Switches the class that was clicked in the legend off, or on again."""
        label = event._data.get("label") if isinstance(event._data, dict) else None
        if type(label) is not int or not 0 <= label < len(self.names):
            raise gr.Error("There is no such class.", print_exception=False)
        return hidden ^ {label}

    def _answer(self, ticket: int, task: str, thresholds: tuple[float, ...]) -> tuple[Prediction, Answer]:
        try:
            prediction = self.memory.get(ticket)
            return prediction, answer(self.network, prediction, task, Thresholds(*thresholds))
        except ValueError as error:
            raise _for_people(error) from error


def build_page(demo: Demo, examples: list[Path]) -> gr.Blocks:
    """The page of a demo, with the images `examples`."""
    tasks, start = demo.network.tasks, Thresholds.of(demo.network.image_processor)
    with gr.Blocks(title="MaskFormer", analytics_enabled=False, delete_cache=(60, 900)) as page:
        ticket = gr.State(None, time_to_live=SESSION_SECONDS, delete_callback=demo.memory.drop)
        hidden = gr.State(frozenset())
        gr.Markdown(f"# MaskFormer\n{_introduction(tasks)}")
        with gr.Row(elem_id="columns"):
            with gr.Column(scale=2, min_width=280):
                image = gr.Image(label="Image", height=240, sources=["upload", "clipboard"], elem_id="image")
                with gr.Column(elem_id="examples"):
                    gr.Examples([[str(path)] for path in examples], image, api_visibility="private")
                task = gr.Radio(tasks, value=tasks[0], label="Task", elem_id="task", visible=len(tasks) > 1)
                with gr.Column(elem_id="thresholds", visible=tasks[0] != "semantic") as group:
                    sliders = [
                        _slider("Score", "A segment needs more than this", start.threshold),
                        _slider("Mask", "A pixel of a mask needs at least this", start.mask_threshold),
                        _slider(
                            "Overlap",
                            "The part of a mask that must stay visible",
                            start.overlap_mask_area_threshold,
                        ),
                    ]
            with gr.Column(scale=3, min_width=280):
                viewer = gr.HTML(EMPTY, js_on_load=VIEWER_JS, apply_default_css=False, elem_id="answer")
                legend = gr.HTML("", js_on_load=LEGEND_JS, apply_default_css=False, elem_id="legend")
                button = gr.Button("Download what is shown (ZIP)", interactive=False, elem_id="download")
                archive = gr.DownloadButton(elem_id="archive")  # hidden: `button` fills it, then clicks it
        controls = [ticket, hidden, task, *sliders]
        private = {"api_visibility": "private"}
        # Without preprocessing, in which gradio would decode the file before any check.
        image.change(demo.forget, ticket, [ticket, hidden], show_progress="hidden", **private).then(
            demo.look, image, ticket, preprocess=False, concurrency_limit=1, show_progress_on=viewer, **private
        )
        task.change(lambda task: gr.Column(visible=task != "semantic"), task, group, show_progress="hidden", **private)
        gr.on(
            [control.change for control in controls],
            demo.show,
            controls,
            [viewer, legend, button],
            trigger_mode="always_last",
            show_progress="hidden",
            concurrency_limit=2,
            **private,
        )
        legend.click(demo.switch, hidden, hidden, trigger_mode="multiple", show_progress="hidden", **private)
        button.click(demo.archive, controls, archive, show_progress="minimal", **private).success(
            None, js=CLICK_ARCHIVE, **private
        )
    return page


def _introduction(tasks: list[str]) -> str:
    """What the page is for, in a sentence."""
    if tasks == ["semantic"]:
        return "Gives every pixel of an image a class (a per-pixel baseline)."
    return "Segments an image; the tasks and sliders ask the same network output in different ways."


def _slider(label: str, info: str, value: float) -> gr.Slider:
    return gr.Slider(0, 1, value, step=0.01, label=label, info=info)


def _caption(prediction: Prediction, whole: Answer, seconds: float) -> str:
    """What the answer consists of, and how long it took."""
    height, width = prediction.size
    void = percent(int((whole.segmentation == 0).sum()), height * width)
    count = len(whole.segments)
    return (
        f"{width} × {height} pixels · {count} segment{'s' if count != 1 else ''} · {void} void · "
        f"network {prediction.seconds:.2f} s, this answer {seconds:.2f} s"
    )


def _for_people(error: ValueError) -> gr.Error:
    """An error as the page shows it, where it is taken as HTML."""
    text = escape(str(error))
    return gr.Error(text[:1].upper() + text[1:] + ".", print_exception=False)
