"""The web demo in a process of its own, asked over HTTP as its page asks, and as strangers do."""

from __future__ import annotations

import contextlib
import io
import json
import os
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import httpx
import numpy as np
from PIL import Image

from helpers import ROOT, with_segments
from maskformer import MaskFormerUniversalImageProcessorPil


class Server:
    """A demo that runs; `folder` is the one that it serves, `http` asks it."""

    def __init__(self, process: subprocess.Popen, port: int, folder: Path):
        self.process, self.port, self.folder = process, port, folder
        self.http = httpx.Client(base_url=f"http://127.0.0.1:{port}", timeout=60)
        config = self.http.get("/config").raise_for_status().json()
        self.events = {each["api_name"]: each["id"] for each in config["dependencies"]}

    def upload(self, content: bytes, name: str = "a.png") -> dict:
        """A file's data, as events take them."""
        (path,) = self.http.post("/gradio_api/upload", files={"files": (name, content)}).raise_for_status().json()
        return {"path": path, "orig_name": name, "meta": {"_type": "gradio.FileData"}}

    def ask(self, event: str, data: list, session: str) -> dict:
        """What an event answers: `success` and `output`."""
        body = {"fn_index": self.events[event], "data": data, "session_hash": session}
        self.http.post("/gradio_api/queue/join", json=body).raise_for_status()
        with self.http.stream("GET", "/gradio_api/queue/data", params={"session_hash": session}) as lines:
            for line in lines.iter_lines():
                message = json.loads(line.removeprefix("data: ") or "{}")
                if message.get("msg") == "process_completed":
                    return message
        raise AssertionError(f"the server gave no answer to {event}")

    def segment(self, content: bytes, session: str) -> tuple[str, str]:
        """The picture and the legend that a visitor gets for an image, whose segments must have been found."""
        looked = self.ask("look", [self.upload(content)], session)
        assert looked["success"], looked
        shown = self.ask("show", [None, None, "panoptic", 0.1, 0.5, 0.1], session)
        assert shown["success"], shown
        return tuple(shown["output"]["data"][:2])

    def memory(self) -> int:
        """The bytes of memory that the process holds."""
        status = Path(f"/proc/{self.process.pid}/status").read_text()
        return 1024 * int(status.partition("VmRSS:")[2].split()[0])

    def handles(self) -> int:
        """The files and connections that the process holds open."""
        return len(os.listdir(f"/proc/{self.process.pid}/fd"))


def png(width: int = 80, height: int = 48, seed: int = 0) -> bytes:
    """A noisy image."""
    content = io.BytesIO()
    pixels = np.random.default_rng(seed).integers(0, 255, (height, width, 3)).astype(np.uint8)
    Image.fromarray(pixels).save(content, "PNG")
    return content.getvalue()


@contextlib.contextmanager
def serving(model, folder: Path, seconds: float = 60) -> Iterator[Server]:
    """`scripts/demo.py` with a tiny model, which serves until the block ends; its files lie below `folder`."""
    with_segments(model).save_pretrained(folder / "model")
    MaskFormerUniversalImageProcessorPil(size={"shortest_edge": 64, "longest_edge": 256}).save_pretrained(
        folder / "model"
    )
    (folder / "temporary").mkdir()
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    words = [sys.executable, str(ROOT / "scripts" / "demo.py"), "--model", str(folder / "model"), "--port", str(port)]
    environment = os.environ | {"TMPDIR": str(folder / "temporary"), "OMP_NUM_THREADS": "1", "MALLOC_ARENA_MAX": "2"}
    with (
        (folder / "log").open("wb") as log,
        subprocess.Popen([*words, "--seconds", str(seconds)], stdout=log, stderr=log, env=environment) as process,
    ):
        try:
            deadline = time.monotonic() + 120
            while b"; stop with" not in (folder / "log").read_bytes():
                assert process.poll() is None and time.monotonic() < deadline, (folder / "log").read_text()
                time.sleep(0.2)
            (served,) = (folder / "temporary").glob("maskformer_demo_*")
            server = Server(process, port, served)
            yield server
            server.http.close()
        finally:
            process.terminate()
            process.wait(30)
