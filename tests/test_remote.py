"""Servers that answer, that are slow, that talk nonsense and that die."""

from __future__ import annotations

import json
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

import pytest

from llmft.engine import answer
from llmft.engine.remote import DEAD_AFTER, KEY_VARIABLE, open_remote
from llmft.errors import BackendError

MODELS = {"data": [{"id": "small"}, {"id": "large"}]}


@contextmanager
def server(reply: Callable[[dict[str, Any]], Any], models: Any = MODELS) -> Iterator[tuple[str, list[dict[str, Any]]]]:
    """A server whose answer to a request is ``reply(body)``: JSON, bytes, or a status; and what it was asked."""
    seen: list[dict[str, Any]] = []

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            self._send(models)

        def do_POST(self) -> None:
            body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
            seen.append({**body, "authorization": self.headers.get("Authorization")})
            self._send(reply(body))

        def _send(self, value: Any) -> None:
            status = value if isinstance(value, int) else 200
            content = value if isinstance(value, bytes) else json.dumps(value).encode()
            try:
                self.send_response(status)
                self.send_header("Content-Length", str(len(content)))
                self.end_headers()
                self.wfile.write(content)
            except OSError:
                pass  # the client has gone

        def log_message(self, *_: object) -> None:
            """Nothing on stderr."""

    running = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    threading.Thread(target=running.serve_forever, kwargs={"poll_interval": 0.02}, daemon=True).start()
    try:
        yield f"http://127.0.0.1:{running.server_port}/v1", seen
    finally:
        running.shutdown()
        running.server_close()


def said(text: Any, reason: str = "stop") -> dict[str, Any]:
    return {"choices": [{"message": {"role": "assistant", "content": text}, "finish_reason": reason}]}


def chats(*texts: str) -> list[list[dict[str, str]]]:
    return [[{"role": "user", "content": text}] for text in texts]


def test_answers_come_back_in_their_places(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(KEY_VARIABLE, "k-1")
    with server(lambda body: said(f" to {body['messages'][0]['content']} ")) as (url, seen):
        model = open_remote(url)
        found = answer(model, chats(*map(str, range(20))), 7)
        model.close()
    assert [f.text for f in found] == [f"to {number}" for number in range(20)]
    assert all(f.ended and f.failure is None for f in found)
    assert {(body["model"], body["max_tokens"], body["temperature"], body["authorization"]) for body in seen} == {
        ("small", 7, 0, "Bearer k-1")
    }


def test_markup_that_a_caller_types_is_no_markup_there() -> None:
    with server(lambda body: said("ok")) as (url, seen):
        answer(open_remote(url), chats("a<|im_end|>b</s>"), 7)
    assert seen[0]["messages"][0]["content"] == "a< |im_end|>b< /s>"


def test_answer_that_was_cut_did_not_end() -> None:
    with server(lambda body: said("J'appelle", "length")) as (url, _):
        (found,) = answer(open_remote(url), chats("a"), 2)
    assert (found.text, found.ended, found.failure) == ("J'appelle", False, None)


@pytest.mark.parametrize("nonsense", [b"<html>", 500, {"choices": []}, {"choices": [{}]}, [], said(None), said(3), b"\xff\xfe"])
def test_nonsense_is_a_failure_of_the_model_on_that_call(nonsense: Any) -> None:
    with server(lambda body: nonsense if body["messages"][0]["content"] == "bad" else said("ok")) as (url, _):
        bad, good = answer(open_remote(url), chats("bad", "good"), 7)
    assert (bad.text, bad.ended, bad.failure) == ("", False, "engine")
    assert (good.text, good.failure) == ("ok", None)


def test_time_out_is_a_failure_of_the_model_on_that_call() -> None:
    def slow(body: dict[str, Any]) -> Any:
        if body["messages"][0]["content"] == "slow":
            time.sleep(1.5)
        return said("ok")

    with server(slow) as (url, _):
        late, good = answer(open_remote(url, timeout_s=1.0), chats("slow", "quick"), 7)
    assert (late.failure, late.ended, good.text) == ("time_out", False, "ok")


def test_server_that_answers_nobody_is_an_error() -> None:
    with server(lambda body: 503) as (url, _), pytest.raises(BackendError, match=f"failed on {DEAD_AFTER} calls in a row"):
        answer(open_remote(url), chats(*"abcdefghij"), 7)


@pytest.mark.parametrize(
    ("models", "name", "reason"),
    [
        ({"data": []}, "", "no model at all"),
        (MODELS, "#huge", "no model huge; it lists: small, large"),
        ({"models": 1}, "", "no form of OpenAI"),
        (b"<html>", "", "no form of OpenAI"),
        (404, "", "does not answer"),
    ],
)
def test_server_without_the_model_is_refused(models: Any, name: str, reason: str) -> None:
    with server(lambda body: said("ok"), models) as (url, _), pytest.raises(BackendError, match=reason):
        open_remote(url + name)


def test_model_is_named_behind_a_hash() -> None:
    with server(lambda body: said(body["model"])) as (url, _):
        assert answer(open_remote(f"{url}#large"), chats("a"), 7)[0].text == "large"


@pytest.mark.parametrize("url", ["http://127.0.0.1:9/v1", "http://[", "http://127.0.0.1:99999/v1"])
def test_nobody_at_the_address_is_one_sentence(url: str) -> None:
    with pytest.raises(BackendError, match="does not answer"):
        open_remote(url)
