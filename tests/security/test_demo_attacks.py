"""The web demo under two hundred bad requests at once: it serves no file of others, and answers a good one after."""

from __future__ import annotations

import json
import random
import re
import socket
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import httpx
import pytest

from demo_runs import Server, png, serving
from maskformer.demo.server import MOST_UPLOAD_BYTES

pytestmark = pytest.mark.slow
REQUESTS, SLOW = 200, 40
SECRET = "the secret of this machine"


def outside(secret: Path, folder: Path) -> list[str]:
    """Targets that lead to a file outside of the folder that is served, written in every way."""
    up = "../" * 12
    paths = [str(secret), f"{folder}/../../{secret.name}", f"{folder}/..%2f..%2f{secret.name}", f"{up}{secret}"]
    paths += [
        str(secret).replace("/", "%2f"),
        str(secret).replace("/", "%252f"),
        f"{folder}/%2e%2e/%2e%2e/{secret.name}",
    ]
    paths += [f"file://{secret}", f"//{secret}", f"{folder}//../..//{secret.name}", f"{folder}\\..\\..\\{secret.name}"]
    paths += [f"{folder}/link", f"{folder}/./link", f"{secret}%00.png", "~/.ssh/id_rsa", "/proc/self/environ", "C:\\x"]
    routes = ["/gradio_api/file=", "/file=", "/gradio_api/file/", "/gradio_api/stream/", "/static/", "/assets/"]
    routes += ["/gradio_api/proxy=", "/custom_component/x/client/component/", "/gradio_api/deep_link?session_hash="]
    return [route + path for route in routes for path in paths] + [up + str(secret), f"/%2e%2e/%2e%2e{secret}"]


def raw(server: Server, content: bytes, wait: float = 10) -> bytes:
    """What the server answers to bytes that need not be HTTP, until it ends the connection or says nothing more."""
    with socket.create_connection(("127.0.0.1", server.port), timeout=wait) as connection:
        connection.sendall(content)
        parts = []
        try:
            while part := connection.recv(65536):
                parts.append(part)
        except TimeoutError:
            pass
        return b"".join(parts)


def target(path: str, method: str = "GET", headers: str = "", body: bytes = b"") -> bytes:
    """A request whose path is sent as it is; clients would resolve its dots."""
    return f"{method} {path} HTTP/1.1\r\nHost: a\r\nConnection: close\r\n{headers}\r\n".encode() + body


def drip(server: Server) -> bytes:
    """A body that comes slowly and never ends: the connection is dropped by us in the end."""
    head = b"POST /gradio_api/upload HTTP/1.1\r\nHost: a\r\nContent-Type: multipart/form-data; boundary=x\r\n"
    with socket.create_connection(("127.0.0.1", server.port), timeout=10) as connection:
        connection.sendall(head + b"Content-Length: 1000000\r\n\r\n--x\r\n")
        for _ in range(4):
            connection.sendall(b"a")
            time.sleep(0.5)
    return b""


def bad_requests(server: Server, secret: Path) -> list:
    """Functions that each make a request that no page makes."""
    http, join = server.http, "/gradio_api/queue/join"
    bomb = png(9, 9).replace(b"\0\0\0\x09\0\0\0\x09", b"\0\0\xea\x60\0\0\xea\x60")

    def post(path: str, **words) -> bytes:
        return http.post(path, **words).content

    def look(content: bytes, name: str = "a.png") -> bytes:
        session = f"bad {random.random()}"
        return json.dumps(server.ask("look", [server.upload(content, name)], session)).encode()

    def event(number: object, data: object) -> bytes:
        return post(join, content=json.dumps({"fn_index": number, "data": data, "session_hash": "bad"}))

    upload = "/gradio_api/upload"
    return [
        lambda: post(upload, files={"files": ("a.png", b"0" * (MOST_UPLOAD_BYTES + 100_000))}),
        lambda: raw(server, target(upload, "POST", f"Content-Length: {10**12}\r\n", b"x")),
        lambda: raw(server, target(upload, "POST", "Transfer-Encoding: chunked\r\n", b"fffffff\r\n" + b"x" * 9999)),
        lambda: raw(server, target(upload, "POST", "Content-Length: -5\r\n", b"x")),
        lambda: raw(server, target(upload, "POST", "Content-Length: 10\r\nContent-Length: 99\r\n", b"x" * 10)),
        lambda: post(upload, content=b"no form"),
        lambda: post(upload, files=[("files", (f"{i}.png", b"x")) for i in range(300)]),
        lambda: post(upload, files={"files": ("../" * 9 + "evil.png", png())}),
        lambda: look(bomb),
        lambda: look(png()[:70]),
        lambda: look(b"%PDF-1.4"),
        lambda: look(b"<svg xmlns='http://www.w3.org/2000/svg'><script>alert(1)</script></svg>", "a.svg"),
        lambda: event(server.events["look"], [{"path": str(secret), "meta": {"_type": "gradio.FileData"}}]),
        lambda: event(server.events["show"], [["x"] * 9999, None, 7, "a", {}, []]),
        lambda: event(10**9, []),
        lambda: event("look", None),
        lambda: post(join, content=b"[" * 900_000),
        lambda: post(join, content=b'{"data": ' + b"9" * 900_000 + b"}"),
        lambda: post(join, content=b"\xff\xfe\0"),
        lambda: http.request("DELETE", "/").content,
        lambda: http.request("PUT", upload, content=b"x").content,
        lambda: http.request("PATCH", join).content,
        lambda: http.request("TRACE", "/").content,
        lambda: raw(server, b"\x16\x03\x01\x02\0" + bytes(99)),
        lambda: raw(server, b"GET /" + b"a" * 200_000 + b" HTTP/1.1\r\n\r\n"),
        lambda: raw(server, target("/", headers="X: " + "y" * 200_000 + "\r\n")),
        lambda: raw(server, target("/", headers="Upgrade: websocket\r\nSec-WebSocket-Key: x\r\n"), wait=2),
        lambda: http.get("/gradio_api/queue/data", params={"session_hash": "x" * 5000}, timeout=2).content,
        *(lambda path=path: raw(server, target(path)) for path in outside(secret, server.folder)[::12]),
    ]


@pytest.fixture
def server(tiny_model, tmp_path):
    """A demo, and outside of its folder a secret, to which a link in it leads."""
    with serving(tiny_model(), tmp_path, seconds=20) as server:
        (tmp_path / "secret").write_text(SECRET)
        (server.folder / "link").symlink_to(tmp_path / "secret")
        yield server


def outcome(request) -> bytes:
    """What a request gives; those that are refused while they are still being sent give nothing."""
    try:
        return request()
    except (httpx.HTTPError, OSError):
        return b""


def check_good(server: Server, expected: tuple[str, str], session: str) -> None:
    """A visitor gets the picture and the legend that another got before; only its seconds may differ."""
    picture, legend = server.segment(png(), session)
    assert legend == expected[1] and picture.partition("<figcaption")[0] == expected[0].partition("<figcaption")[0]
    assert 'data-width="80"' in picture and legend.count("<button") >= 1


def test_no_file_outside_of_its_folder_is_served(server, tmp_path):
    secret = tmp_path / "secret"
    paths = outside(secret, server.folder)
    assert raw(server, target(f"/gradio_api/file={server.folder}/scene_0.png")).startswith(b"HTTP/1.1 200")
    assert len(paths) > 100
    with ThreadPoolExecutor(8) as threads:
        answers = list(threads.map(lambda path: raw(server, target(path)), paths))
    for path, answer in zip(paths, answers, strict=True):
        assert re.match(rb"HTTP/1.1 (400|403|404)", answer) and SECRET.encode() not in answer, (path, answer[:200])


def test_two_hundred_bad_requests_at_once(server, tmp_path):
    expected = server.segment(png(), "before")
    handles = server.handles()
    kinds = bad_requests(server, tmp_path / "secret")
    requests = [kinds[number % len(kinds)] for number in range(REQUESTS - SLOW)]
    requests += [lambda: drip(server) for _ in range(SLOW)]
    random.Random(0).shuffle(requests)
    began = time.monotonic()
    with ThreadPoolExecutor(REQUESTS) as threads:
        answers = list(threads.map(outcome, requests))
    assert server.process.poll() is None and time.monotonic() - began < 120
    assert len(answers) == 200 and not any(SECRET.encode() in answer for answer in answers)
    answered = [answer for answer in answers if answer]
    assert len(answered) > 100 and any(b"413" in answer or b"MB taken here" in answer for answer in answered)
    log = (tmp_path / "log").read_text()
    assert SECRET not in log
    assert all(path.is_relative_to(server.folder) for path in tmp_path.parent.rglob("evil*"))
    for number in range(3):
        check_good(server, expected, f"after {number}")
    wait_until(lambda: server.handles() <= handles + 5)


def test_a_good_visitor_is_answered_while_slow_bodies_come(server):
    expected = server.segment(png(), "before")
    with ThreadPoolExecutor(SLOW) as threads:
        slow = [threads.submit(outcome, lambda: drip(server)) for _ in range(SLOW)]
        began = time.monotonic()
        check_good(server, expected, "meanwhile")
        assert time.monotonic() - began < 20
        assert [each.result() for each in slow] == [b""] * SLOW


def wait_until(reached) -> None:
    """Waits for what a server does after its last answer; it has ten seconds."""
    deadline = time.monotonic() + 10
    while not reached() and time.monotonic() < deadline:
        time.sleep(0.2)
    assert reached()


def test_answers_that_nobody_takes_do_not_fill_the_memory(server):
    """Each holds a picture, of up to megabytes, and costs whoever asks for it a hundred bytes."""
    server.segment(png(800, 600), "greedy")
    before, statuses = server.memory(), []
    show = {"fn_index": server.events["show"], "data": [None, None, "panoptic", 0.1, 0.5, 0.1]}
    for _ in range(200):
        statuses.append(server.http.post("/gradio_api/queue/join", json=show | {"session_hash": "greedy"}).status_code)
        time.sleep(0.02)
    assert statuses.count(200) == 32 and set(statuses) <= {200, 429, 503}
    assert server.memory() - before < 150e6
    picture, _ = server.segment(png(), "another")
    assert 'data-width="80"' in picture
