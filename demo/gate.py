"""What strangers may ask of the server: only what the page needs, in bounded sizes."""

from __future__ import annotations

import asyncio
import json
import re
import time
from pathlib import Path
from urllib.parse import parse_qs

from starlette.responses import PlainTextResponse

from maskformer.demo.unread import ANSWERS, Unread

# gradio has more: it fetches addresses for others (file=https://...), runs functions past the queue, tells its routes.
PAGES = re.compile(
    r"/(|config|theme\.css|manifest\.json|favicon\.ico|robots\.txt|(assets|static)/.+"
    r"|gradio_api/(startup-events|queue/data|upload_progress|heartbeat/\w+))/?"
)
FILES = "/gradio_api/file="
UPLOAD = "/gradio_api/upload"
EXAMPLE = "/gradio_api/run/predict"  # picks an example; gradio refuses it for events that belong into the queue
JOIN = "/gradio_api/queue/join"
ACTIONS = (JOIN, "/gradio_api/cancel", "/gradio_api/reset", EXAMPLE, UPLOAD)
MOST_JSON_BYTES = 1 << 20  # of a request that is no upload
MULTIPART_BYTES = 1 << 14  # around the file in an upload
MOST_BODY_SECONDS = 120  # that a request's body may take to come: 20 MB at 1.3 Mbit/s
MOST_FOLDER_BYTES = 1 << 30  # of all uploads and downloads, until old ones are deleted
MOST_FOLDER_FILES = 4000


class Gate:
    """An ASGI application in front of `app`, whose uploads lie in `folder` and have at most `most_bytes` each."""

    def __init__(self, app, folder: Path, most_bytes: int):
        self.app, self.folder, self.most_bytes = app, folder.resolve(), most_bytes
        self.unread = Unread(app)

    async def __call__(self, scope, receive, send) -> None:
        if scope["type"] == "lifespan":
            return await self.app(scope, receive, send)
        if scope["type"] != "http":
            return await send({"type": "websocket.close", "code": 1008})
        method, path = scope["method"], scope["path"]
        refusal = self.refusal(method, path, dict(scope["headers"]).get(b"content-length"))
        receive = _in_time(receive, MOST_BODY_SECONDS) if method == "POST" else receive
        if refusal is None and method == "POST" and path.rstrip("/") != UPLOAD:
            body = await _whole(receive)
            if body is None:
                refusal = 408, "the request did not come in time"
            else:
                refusal, receive = self.content_refusal(body), _again(body, receive)
            if refusal is None and path.rstrip("/") == JOIN:
                refusal = self._ask(json.loads(body), scope)
        if refusal is not None:
            status, reason = refusal
            return await PlainTextResponse(reason, status)(scope, receive, send)
        if method == "GET" and path.rstrip("/") == ANSWERS:
            session = parse_qs(scope["query_string"].decode("latin1")).get("session_hash", [""])[0]
            return await self.unread.listen(session, scope, receive, send)
        await self.app(scope, receive, send)

    def _ask(self, content: object, scope: dict) -> tuple[int, str] | None:
        """Status and reason if the session of a request may not ask for another answer; else that is noted."""
        session = content.get("session_hash") if isinstance(content, dict) else None
        refusal = self.unread.refusal(session)
        if refusal is None:
            self.unread.asks(session, scope)
        return refusal

    def refusal(self, method: str, path: str, length: bytes | None) -> tuple[int, str] | None:
        """Status and reason if a request is refused; `length` is its header content-length."""
        if method in ("GET", "HEAD"):
            if PAGES.fullmatch(path) or (path.startswith(FILES) and self._is_ours(path.removeprefix(FILES))):
                return None
            return 404, "there is nothing here"
        if method != "POST" or path.rstrip("/") not in ACTIONS:
            return 404, "there is nothing here"
        if length is None or not length.isdigit() or len(length) > 18:
            return 411, "say how long the request is (content-length)"
        uploads = path.rstrip("/") == UPLOAD
        most = self.most_bytes + MULTIPART_BYTES if uploads else MOST_JSON_BYTES
        if int(length) > most:
            return 413, f"the request has {int(length) / 1e6:.1f} MB, more than the {most / 1e6:.1f} MB taken here"
        if uploads and self._is_full():
            return 503, "too many images are uploaded at the moment; please try again in some minutes"
        return None

    def content_refusal(self, body: bytes) -> tuple[int, str] | None:
        """Status and reason if a request's JSON is none, or names a file that is not in the folder.

        gradio would fetch addresses that are given as the path of a file, whatever the component.
        """
        try:
            values = [json.loads(body)]
        except (ValueError, RecursionError):
            return 400, "the request is not valid JSON"
        while values:
            value = values.pop()
            if isinstance(value, dict):
                path = value.get("path")
                if path is not None and not (isinstance(path, str) and self._is_ours(path)):
                    return 403, "only files that were uploaded here can be named"
                value = list(value.values())
            if isinstance(value, list):
                values.extend(value)
        return None

    def _is_ours(self, path: str) -> bool:
        """Whether a path leads to a file in the folder, whatever links and dots are on the way."""
        try:
            resolved = Path(path).resolve()
        except (OSError, ValueError, RuntimeError):  # too long, a null byte, a circle of links
            return False
        return resolved != self.folder and resolved.is_relative_to(self.folder)

    def _is_full(self) -> bool:
        """Whether the folder has no room for another upload."""
        sizes = []
        for path in self.folder.rglob("*"):
            try:
                sizes.append(path.stat().st_size)
            except FileNotFoundError:  # deleted meanwhile
                continue
        return sum(sizes) > MOST_FOLDER_BYTES or len(sizes) > MOST_FOLDER_FILES


def _in_time(receive, seconds: float):
    """`receive` of a request whose body must come within `seconds`; after that the client counts as gone."""
    end, whole = time.monotonic() + seconds, False

    async def receive_in_time():
        nonlocal whole
        if whole:
            return await receive()
        try:
            message = await asyncio.wait_for(receive(), max(0, end - time.monotonic()))
        except (TimeoutError, asyncio.TimeoutError):  # two classes before Python 3.11
            return {"type": "http.disconnect"}
        whole = not message.get("more_body", False)
        return message

    return receive_in_time


async def _whole(receive) -> bytes | None:
    """The body of a request, whose length was checked; None where it does not come."""
    parts, more = [], True
    while more:
        message = await receive()
        if message["type"] == "http.disconnect":
            return None
        parts.append(message.get("body", b""))
        more = message.get("more_body", False)
    return b"".join(parts)


def _again(body: bytes, receive):
    """`receive` of a request whose body was read: it gives the body once more, then what comes after it."""
    messages = [{"type": "http.request", "body": body, "more_body": False}]

    async def receive_again():
        return messages.pop() if messages else await receive()

    return receive_again
