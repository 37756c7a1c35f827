"""Answers that nobody takes: gradio keeps them, with their pictures, until their session asks for them."""

from __future__ import annotations

import asyncio
import contextlib
from collections import Counter
from urllib.parse import urlencode

ANSWERS = "/gradio_api/queue/data"
COMPLETED = b"process_completed"  # in what gradio sends of an event that has ended
MOST_OF_A_SESSION = 32  # answers that a session may ask for before it takes them
MOST_OF_ALL = 256  # of all sessions; 0.5 GB for photographs
SECONDS = 30  # after which answers are taken from gradio and thrown away


class Unread:
    """Counts the answers that sessions asked for and did not take yet, and has `app`, gradio's, give up old ones."""

    def __init__(self, app):
        self.app = app
        self.counts: Counter[str] = Counter()
        self.listening: Counter[str] = Counter()
        self.tasks: dict[str, asyncio.Task] = {}

    def refusal(self, session: object) -> tuple[int, str] | None:
        """Status and reason if a session may not ask for another answer."""
        if not isinstance(session, str):
            return 400, "say whose request this is (session_hash)"
        if self.counts[session] >= MOST_OF_A_SESSION:
            return 429, "take the answers that are there before asking for others"
        if self.counts.total() >= MOST_OF_ALL:
            return 503, "too many answers wait for their visitors; please try again in a minute"
        return None

    def asks(self, session: str, scope: dict) -> None:
        """Notes that a session asked for an answer, by a request with this `scope`."""
        self.counts[session] += 1
        self._throw_away_later(session, scope)

    async def listen(self, session: str, scope: dict, receive, send) -> None:
        """Lets a session take its answers; one that stops taking them is given up."""

        async def send_in_time(message):
            await asyncio.wait_for(send(message), SECONDS)
            if COMPLETED in message.get("body", b"") and self.counts[session] > 0:
                self.counts[session] -= 1

        self.listening[session] += 1
        try:
            await self.app(scope, receive, send_in_time)
        finally:
            self.listening -= Counter([session])
            self._throw_away_later(session, scope)

    def _throw_away_later(self, session: str, scope: dict) -> None:
        if self.counts[session] <= 0:
            del self.counts[session]
        elif session not in self.tasks:
            self.tasks[session] = asyncio.create_task(self._throw_away(session, scope))

    async def _throw_away(self, session: str, scope: dict) -> None:
        """Waits, then takes what a session has not taken, unless it listens; the next answer starts this anew."""
        query = urlencode({"session_hash": session}).encode()
        scope = scope | {"method": "GET", "path": ANSWERS, "raw_path": ANSWERS.encode(), "query_string": query}

        async def receive():
            await asyncio.sleep(SECONDS)
            return {"type": "http.disconnect"}

        async def send(message):
            pass

        try:
            await asyncio.sleep(SECONDS)
            if self.counts[session] > 0 and session not in self.listening:
                with contextlib.suppress(Exception):  # whatever gradio makes of it, nobody is there to be told
                    await asyncio.wait_for(self.app(scope, receive, send), SECONDS)
                del self.counts[session]
        finally:
            del self.tasks[session]
