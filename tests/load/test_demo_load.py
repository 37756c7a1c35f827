"""The web demo asked by one visitor after another: what it holds in memory and open stays as it is."""

from __future__ import annotations

import contextlib

import httpx
import numpy as np
import pytest

from demo_runs import Server, png, serving
from maskformer.demo.server import MOST_SESSIONS

pytestmark = pytest.mark.slow
WARM_UP, REQUESTS, EVERY = MOST_SESSIONS + 60, 150, 10


def good(server: Server, number: int) -> None:
    """A visitor who has not been there before."""
    picture, _ = server.segment(png(seed=number), f"visitor {number}")
    assert 'data-width="80"' in picture


def bad(server: Server, number: int) -> None:
    """A request that no page makes."""
    http, session = server.http, f"visitor {number}"
    with contextlib.suppress(httpx.HTTPError):
        if number % 5 == 0:
            assert not server.ask("look", [server.upload(png()[:90])], session)["success"]
        elif number % 5 == 1:
            assert not server.ask("look", [server.upload(b"no image")], session)["success"]
        elif number % 5 == 2:
            assert http.post("/gradio_api/upload", content=b"0" * 21_000_000).status_code == 413
        elif number % 5 == 3:
            assert http.post("/gradio_api/queue/join", content=b"[" * 500_000).status_code == 400
        else:
            assert http.get("/gradio_api/file=/etc/passwd").status_code == 404


def test_memory_and_handles_are_flat(tiny_model, tmp_path):
    with serving(tiny_model(), tmp_path) as server:
        for number in range(WARM_UP):
            (bad if number % 3 == 2 else good)(server, number)
        memory, handles = [server.memory()], [server.handles()]
        for number in range(WARM_UP, WARM_UP + REQUESTS):
            (bad if number % 3 == 2 else good)(server, number)
            if number % EVERY == 0:
                memory.append(server.memory())
                handles.append(server.handles())
        good(server, 10**6)
    print(f"memory in MB: {[round(each / 1e6) for each in memory]}, handles: {handles}")
    assert max(memory) - memory[0] < 40e6
    middle = len(memory) // 2
    first, second = (np.polyfit(range(len(part)), part, 1)[0] for part in (memory[:middle], memory[middle:]))
    assert second < max(first, 1e6)  # bytes in ten requests: what grows at first must not go on
    assert max(handles) <= handles[0] + 5
