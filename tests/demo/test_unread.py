"""Answers that nobody takes are few, and are thrown away."""

from __future__ import annotations

import asyncio
import time

import pytest

from maskformer.demo import unread
from maskformer.demo.unread import COMPLETED, MOST_OF_A_SESSION, MOST_OF_ALL, Unread

DONE = {"type": "http.response.body", "body": b"data: " + COMPLETED}


class App:
    """Takes note of the sessions that listen, and sends each of them some answers."""

    def __init__(self, answers: int = 0):
        self.answers, self.heard = answers, []

    async def __call__(self, scope, receive, send):
        self.heard.append((scope["method"], scope["query_string"]))
        for _ in range(self.answers):
            await send(DONE)


async def nothing(message=None):
    """Takes a message."""


def test_a_session_takes_its_answers_before_it_asks_for_others():
    async def talk():
        waiting = Unread(App(answers=MOST_OF_A_SESSION))
        for _ in range(MOST_OF_A_SESSION):
            assert waiting.refusal("one") is None
            waiting.asks("one", {})
        assert waiting.refusal("one")[0] == 429 and waiting.refusal("two") is None
        await waiting.listen("one", {"method": "GET", "query_string": b"session_hash=one"}, nothing, nothing)
        assert waiting.refusal("one") is None and not waiting.counts["one"] and not waiting.listening

    asyncio.run(talk())


def test_all_sessions_together_have_a_bound_and_none_is_nameless():
    async def talk():
        waiting = Unread(App())
        for number in range(MOST_OF_ALL):
            waiting.asks(str(number), {})
        assert waiting.refusal("another")[0] == 503
        assert waiting.refusal(None)[0] == waiting.refusal({"a": 1})[0] == 400

    asyncio.run(talk())


def test_old_answers_are_thrown_away(monkeypatch):
    monkeypatch.setattr(unread, "SECONDS", 0.05)

    async def talk():
        app = App()
        waiting = Unread(app)
        waiting.asks("a b", {"method": "POST", "headers": []})
        await asyncio.sleep(0.3)
        assert app.heard == [("GET", b"session_hash=a+b")] and not waiting.counts and not waiting.tasks

    asyncio.run(talk())


def test_a_listener_that_does_not_take_its_answers_is_given_up(monkeypatch):
    monkeypatch.setattr(unread, "SECONDS", 0.05)

    async def stuck(message):
        await asyncio.sleep(60)

    async def talk():
        waiting = Unread(App(answers=1))
        waiting.asks("one", {"method": "POST"})
        scope = {"method": "GET", "query_string": b"session_hash=one"}
        began = time.monotonic()
        with pytest.raises(asyncio.TimeoutError):
            await waiting.listen("one", scope, nothing, stuck)
        assert time.monotonic() - began < 30
        assert not waiting.listening and waiting.counts["one"] == 1

    asyncio.run(talk())
