"""What strangers may ask of the server."""

from __future__ import annotations

import asyncio

import pytest

from maskformer.demo import gate
from maskformer.demo.gate import Gate


@pytest.fixture
def folder(tmp_path):
    """A folder that is served, with a file, and a link to one outside of it."""
    served = tmp_path / "served"
    served.mkdir()
    (served / "a.png").write_bytes(b"12345678")
    (tmp_path / "secret").write_text("secret")
    (served / "link").symlink_to(tmp_path / "secret")
    return served


@pytest.mark.parametrize(
    ("path", "is_open"),
    [
        ("/", True),
        ("/config", True),
        ("/assets/index.js", True),
        ("/gradio_api/queue/data", True),
        ("/gradio_api/heartbeat/abc", True),
        ("/gradio_api/file={folder}/a.png", True),
        ("/gradio_api/file={folder}", False),
        ("/gradio_api/file={folder}/link", False),
        ("/gradio_api/file={folder}/../secret", False),
        ("/gradio_api/file=/etc/passwd", False),
        ("/gradio_api/file=https://example.com/a.png", False),
        ("/gradio_api/file=a\0b", False),
        ("/gradio_api/file=" + "a" * 5000, False),
        ("/gradio_api/proxy=https://example.com", False),
        ("/gradio_api/info", False),
        ("/gradio_api/runs", False),
        ("/monitoring", False),
        ("/docs", False),
    ],
)
def test_pages_and_files(folder, path, is_open):
    refusal = Gate(None, folder, 1000).refusal("GET", path.format(folder=folder), None)
    assert refusal == (None if is_open else (404, "there is nothing here"))


@pytest.mark.parametrize(
    ("method", "path", "length", "status"),
    [
        ("POST", "/gradio_api/queue/join", b"100", None),
        ("POST", "/gradio_api/queue/join", b"2000000", 413),
        ("POST", "/gradio_api/queue/join", None, 411),
        ("POST", "/gradio_api/queue/join", b"-1", 411),
        ("POST", "/gradio_api/upload", b"1000", None),
        ("POST", "/gradio_api/upload", b"20000", 413),
        ("POST", "/gradio_api/run/show", b"1", 404),
        ("POST", "/gradio_api/component_server", b"1", 404),
        ("DELETE", "/", b"1", 404),
    ],
)
def test_actions_are_bounded(folder, method, path, length, status):
    refusal = Gate(None, folder, 1000).refusal(method, path, length)
    assert (refusal and refusal[0]) == status


@pytest.mark.parametrize(
    ("body", "status"),
    [
        ('{{"data": [null, 0.5, {{"path": "{folder}/a.png"}}]}}', None),
        ('{{"data": [[{{"value": {{"path": "/etc/passwd"}}}}]]}}', 403),
        ('{{"data": [{{"path": "\\u0068ttp://127.0.0.1/"}}]}}', 403),
        ('{{"data": [{{"path": ["{folder}/a.png"]}}]}}', 403),
        ('{{"data": ', 400),
        ("[" * 100_000, 400),
    ],
)
def test_requests_name_files_of_the_folder_only(folder, body, status):
    text = body.format(folder=folder) if len(body) < 1000 else body
    refusal = Gate(None, folder, 1000).content_refusal(text.encode())
    assert (refusal and refusal[0]) == status


def test_uploads_end_when_the_folder_is_full(folder, monkeypatch):
    monkeypatch.setattr(gate, "MOST_FOLDER_BYTES", 7)
    assert Gate(None, folder, 1000).refusal("POST", "/gradio_api/upload", b"10")[0] == 503


@pytest.mark.parametrize("path", ["/gradio_api/queue/join", "/gradio_api/upload"])
def test_a_body_that_does_not_come_in_time_is_given_up(folder, monkeypatch, path):
    monkeypatch.setattr(gate, "MOST_BODY_SECONDS", 0.2)
    parts, sent = [{"type": "http.request", "body": b"{", "more_body": True}], []

    async def receive():
        return parts.pop() if parts else await asyncio.sleep(60)

    async def app(scope, receive, send):
        while (message := await receive())["type"] != "http.disconnect":
            sent.append(message["body"])
        sent.append("gone")

    async def send(message):
        sent.append(message.get("status"))

    scope = {"type": "http", "method": "POST", "path": path, "headers": [(b"content-length", b"99")]}
    asyncio.run(asyncio.wait_for(Gate(app, folder, 1000)(scope, receive, send), 5))
    assert sent == ([b"{", "gone"] if path.endswith("upload") else [408, None])
