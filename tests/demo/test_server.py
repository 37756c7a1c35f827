"""A served demo, asked as its page asks, and as strangers do."""

from __future__ import annotations

import io
import json
from pathlib import Path

import httpx
import numpy as np
import pytest
from PIL import Image

from maskformer.demo.server import serve


class Client:
    """What a browser does: uploads, and events with the number that the page has for them."""

    def __init__(self, page):
        self.http = httpx.Client(base_url=page.local_url, timeout=30)
        self.events = {fn.name: number for number, fn in page.fns.items()}

    def upload(self, content: bytes, name: str = "a.png") -> dict:
        """A file's data, as events take them."""
        (path,) = self.http.post("/gradio_api/upload", files={"files": (name, content)}).raise_for_status().json()
        return {"path": path, "orig_name": name, "meta": {"_type": "gradio.FileData"}}

    def join(self, event: str, data, session: str = "one", **extra) -> httpx.Response:
        """Puts an event into the queue."""
        body = {"fn_index": self.events[event], "data": data, "session_hash": session} | extra
        headers = {"content-type": "application/json"}
        return self.http.post("/gradio_api/queue/join", content=json.dumps(body), headers=headers)

    def answers(self, count: int, session: str) -> list[dict]:
        """The answers of a session's next `count` events: `success` and `output`."""
        found = []
        with self.http.stream("GET", "/gradio_api/queue/data", params={"session_hash": session}) as lines:
            for line in lines.iter_lines():
                message = json.loads(line.removeprefix("data: ") or "{}")
                if message.get("msg") == "process_completed":
                    found.append(message)
                if len(found) == count:
                    return found
        raise AssertionError(f"the server gave {len(found)} answers to {count} events")

    def ask(self, event: str, data, session: str = "one", **extra) -> dict:
        """What an event answers."""
        self.join(event, data, session, **extra).raise_for_status()
        return self.answers(1, session)[0]

    def look(self, content: bytes, session: str = "one") -> dict:
        """The answer for an upload."""
        return self.ask("look", [self.upload(content)], session)

    def show(self, task: str = "panoptic", *thresholds, session: str = "one") -> dict:
        """What the page shows for a task and three thresholds."""
        return self.ask("show", [None, None, task, *(thresholds or (0.1, 0.5, 0.1))], session)


def png(width: int = 80, height: int = 48) -> bytes:
    """A noisy image."""
    content = io.BytesIO()
    pixels = np.random.default_rng(0).integers(0, 255, (height, width, 3)).astype(np.uint8)
    Image.fromarray(pixels).save(content, "PNG")
    return content.getvalue()


def test_an_image_is_answered_for_its_session_only(served):
    page, folder = served
    client = Client(page)
    assert client.look(png())["success"]
    viewer, legend, _ = client.show()["output"]["data"]
    assert 'data-width="80"' in viewer and 'aria-pressed="true"' in legend
    assert "data-width" not in client.show(session="two")["output"]["data"][0]
    assert client.ask("switch", [None], event_data={"label": 3})["success"]
    assert client.show()["success"]
    download = client.ask("archive", [None, None, "semantic", 0.5, 0.5, 0.8])["output"]["data"][0]
    assert Path(download["path"]).is_relative_to(folder)
    assert client.http.get(f"/gradio_api/file={download['path']}").content.startswith(b"PK")


def test_errors_say_what_is_wrong(served):
    client = Client(served[0])
    answer = client.look(b"no image")
    assert not answer["success"] and "The file is no image that can be read here" in answer["output"]["error"]
    assert str(served[1]) not in json.dumps(answer)


def test_a_port_that_is_taken_is_an_error_for_people(served, network):
    page, folder = served
    with pytest.raises(ValueError, match=f"127.0.0.1:{page.server_port} cannot be served at"):
        serve(network(), [], folder, "127.0.0.1", page.server_port)


def strange_requests(client: Client, folder: Path) -> list:
    """More than fifty requests that no page makes, each as a function that makes it."""
    http, image = client.http, png()
    outside = [
        "/etc/passwd",
        f"{folder}/../../etc/passwd",
        "../../../etc/passwd",
        "file:///etc/passwd",
        "~/.ssh/id_rsa",
    ]
    paths = [
        f"/gradio_api/file={path}" for path in (*outside, f"{folder}", "%2Fetc%2Fpasswd", "..%2f..%2fetc%2fpasswd")
    ]
    paths += [f"/file={path}" for path in outside] + ["/static/../../../../etc/passwd", "/assets/..%2f..%2fblocks.py"]
    paths += ["/gradio_api/file=http://169.254.169.254/", "/gradio_api/proxy=http://127.0.0.1:22/", "/gradio_api/info"]
    reads = [lambda path=path: http.get(path) for path in paths]
    data = [None, [], {}, "text", [1] * 3, [[[]]], [{"path": "/etc/passwd", "meta": {"_type": "gradio.FileData"}}]]
    data += [[{"path": "http://127.0.0.1:1/a.png", "meta": {"_type": "gradio.FileData"}}]]
    data += [[{"url": "data:image/png;base64,AAAA", "path": "a", "meta": {"_type": "gradio.FileData"}}]]
    events = [lambda value=value: client.join("look", value, "bad") for value in data]
    shows = ["x", None, -1, 2, float("nan"), 1e308, [], {"a": 1}]
    events += [lambda v=v: client.join("show", [None, None, "panoptic", v, v, v], "bad") for v in shows]
    events += [lambda v=v: client.join("show", [7, [1], v, 0.5, 0.5, 0.5], "bad") for v in ("painting", None, 3)]
    events += [lambda v=v: client.join("switch", [None], "bad", event_data=v) for v in (None, {}, {"label": -1}, [9])]
    contents = [b"", b"\x89PNG\r\n\x1a\n", image[:60], image[:-40], b"GIF89a" + b"\xff" * 99, b"II*\0" + b"\xff" * 99]
    uploads = [lambda content=content: client.join("look", [client.upload(content)], "bad") for content in contents]
    names = ["../../evil.png", "/etc/evil.png", "a" * 300 + ".png", "<script>.svg"]
    uploads += [lambda name=name: client.join("look", [client.upload(image, name)], "bad") for name in names]
    uploads += [lambda: http.post("/gradio_api/upload", files={"files": ("a.png", b"0" * 21_000_000)})]
    uploads += [lambda: http.post("/gradio_api/queue/join", content=b"[" * 900_000)]
    uploads += [lambda: http.post("/gradio_api/queue/join", content=b"0" * 2_000_000)]
    return reads + events + uploads


def test_strange_requests_neither_stop_the_server_nor_read_its_files(served):
    page, folder = served
    client = Client(page)
    secret = Path("/etc/passwd").read_text()[:20]
    requests = strange_requests(client, folder)
    assert len(requests) > 50
    statuses, joined = [], 0
    for request in requests:
        try:
            response = request()
        except httpx.HTTPError:  # refused while it was still being sent
            continue
        statuses.append(response.status_code)
        joined += "event_id" in response.text
        assert secret not in response.text
    assert 404 in statuses and 413 in statuses and joined > 20
    answers = json.dumps(client.answers(joined, "bad"))
    assert secret not in answers and str(folder) not in answers
    assert client.look(png(), "after")["success"] and "data-width" in client.show(session="after")["output"]["data"][0]
    assert not list(folder.parent.glob("evil*")) and not Path("/etc/evil.png").exists()


def test_the_queue_cannot_be_passed(served):
    client = Client(served[0])
    for number in client.events.values():
        body = {"fn_index": number, "data": [client.upload(png())], "session_hash": "one"}
        response = client.http.post("/gradio_api/run/predict", json=body)
        assert response.status_code >= 400 or number == client.events["load_example"]


@pytest.mark.parametrize("value", ["x", None, float("nan")])
def test_a_strange_threshold_is_an_error_or_no_segments(served, value):
    client = Client(served[0])
    client.look(png())
    answer = client.show("panoptic", value, value, value)
    assert not answer["success"] or "0 segments" in answer["output"]["data"][0]
