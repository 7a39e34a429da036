"""One chat completion: no word of the model goes out before the rules have read."""

from __future__ import annotations

import json
from asyncio import Task, create_task, sleep, to_thread, wait
from collections.abc import AsyncIterator, Sequence
from contextlib import aclosing
from secrets import token_hex
from time import perf_counter, time
from typing import Any, NamedTuple

from llmft.errors import LlmftError
from llmft.knowledge import Lang
from llmft.prompt import Message
from llmft.protocol.heard_language import heard_language
from llmft.serve.api.faults import refusal_of
from llmft.serve.backend import Event, Finished, Piece, Request
from llmft.serve.desk import Desk
from llmft.serve.store.answers import NewAnswer, Versions, record_answer
from llmft.serve.store.keys import Identity
from llmft.serve.triage.chat import ruled, rules_line
from llmft.serve.triage.screen import Screening, screen

SPEAKERS = {"user": "patient", "assistant": "operator"}
SEND_EVERY_S = 0.02  # of a stream: nobody reads faster, and to send a part costs as much as a small model's token
HEAD_START_S = 0.001  # of the model before the rules; see _rules
ROLE = {"role": "assistant", "content": ""}  # of a stream's first part


class _Read(NamedTuple):
    """What the rules read in the messages."""

    found: Screening
    lang: Lang  # that the patient seems to speak


def _read(messages: Sequence[Message]) -> _Read:
    turns = [(SPEAKERS[message["role"]], message["content"]) for message in messages if message["role"] in SPEAKERS]
    lang = heard_language(text for speaker, text in turns if speaker == "patient")
    return _Read(screen(turns, lang), lang)


class Completion:
    """Journaled once it is whole; nothing of its words is kept."""

    def __init__(self, desk: Desk, who: Identity, request: Request, *, tells_usage: bool) -> None:
        """Ask the model; ``tells_usage``: a stream ends with the count of tokens."""
        self._desk, self._who, self._request, self._tells_usage = desk, who, request, tells_usage
        self._stream = desk.backend.stream(request)
        self._beginning: Task[Event] = create_task(anext(self._stream))  # type: ignore[arg-type]
        self._head = {"id": f"chatcmpl-{token_hex(12)}", "created": int(time()), "model": desk.backend.facts.name}

    async def whole(self) -> dict[str, Any]:
        """The answer in one object."""
        read = await self._rules()
        text, finished = await self._model_said(read)
        words, by = ruled(text, read.found, read.lang)
        await self._record(finished, read, by)
        line = rules_line(read.found, read.lang)
        message = {"role": "assistant", "content": f"{line}\n\n{words}" if line else words}
        choice = {"index": 0, "message": message, "finish_reason": finished.reason, "logprobs": None}
        ended = {"choices": [choice], "usage": _usage(finished), **self._said_by_rules(read, by)}
        return {**self._head, "object": "chat.completion", "system_fingerprint": self._fingerprint(), **ended}

    async def parts(self) -> AsyncIterator[str]:
        """The answer as server-sent events; an error before the first word is raised, one after it ends the stream."""
        read, begun = await self._rules(), False
        try:
            async with aclosing(self._held(read) if read.found.least else self._flowing(read)) as parts:  # type: ignore[type-var]
                async for part in parts:
                    begun = True
                    yield part
        except LlmftError as error:
            if not begun:
                raise
            yield _event(refusal_of(error).body())

    async def _rules(self) -> _Read:
        """What the rules read, while the model reads, too: it works in C and leaves Python to them.

        It takes a request up in Python, though, and would wait for them there if they began first.
        """
        await wait([self._beginning])
        await sleep(HEAD_START_S)
        return await to_thread(_read, self._request.messages)

    async def _flowing(self, read: _Read) -> AsyncIterator[str]:
        """The model's words as they come."""
        # What can be refused was refused by now, unless a server is yet to be reached; headers need not wait for the first word.
        begun, text = self._desk.backend.facts.kind == "llama.cpp" and self._beginning.exception() is None, ""
        if begun:
            yield self._part(ROLE)
        sent = 0.0
        async with aclosing(self._events()) as events:  # type: ignore[type-var]
            async for event in events:
                if isinstance(event, Piece | Finished) and not begun:
                    begun = True
                    yield self._part(ROLE)
                if isinstance(event, Piece):
                    text += event.text
                    if text and not event.more and perf_counter() - sent > SEND_EVERY_S:
                        yield self._part({"content": text})
                        text, sent = "", perf_counter()
                if isinstance(event, Finished):
                    if text:
                        yield self._part({"content": text})
                    yield await self._ended(event, read, "model")

    async def _held(self, read: _Read) -> AsyncIterator[str]:
        """The rules' line at once; the model's words when they are whole, for its block may have to give way."""
        yield self._part(ROLE)
        if line := rules_line(read.found, read.lang):
            yield self._part({"content": f"{line}\n\n"})
        text, finished = await self._model_said(read)
        words, by = ruled(text, read.found, read.lang)
        yield self._part({"content": words})
        yield await self._ended(finished, read, by)

    async def _events(self) -> AsyncIterator[Event]:
        async with aclosing(self._stream) as events:  # type: ignore[type-var]
            yield await self._beginning
            async for event in events:
                yield event

    async def _model_said(self, read: _Read) -> tuple[str | None, Finished]:
        """The model's whole text; None when it fails on a call in which the rules have found something."""
        text: list[str] = []
        try:
            async with aclosing(self._events()) as events:  # type: ignore[type-var]
                async for event in events:
                    if isinstance(event, Piece):
                        text.append(event.text)
                    elif isinstance(event, Finished):
                        return "".join(text), event
        except LlmftError:
            if read.found.least is None:
                raise
            return None, Finished("stop", 0, 0, 0.0, 0.0)
        raise AssertionError("a stream ends with Finished or an error")

    async def _ended(self, finished: Finished, read: _Read, by: str) -> str:
        """Journal the answer, then the last events."""
        await self._record(finished, read, by)
        last = self._part({}, finished.reason, self._said_by_rules(read, by))
        if self._tells_usage:
            last += _event({**self._chunk(), "choices": [], "usage": _usage(finished)})
        return f"{last}data: [DONE]\n\n"

    def _part(self, delta: dict[str, str], reason: str | None = None, more: dict[str, Any] | None = None) -> str:
        choice = {"index": 0, "delta": delta, "finish_reason": reason, "logprobs": None}
        return _event({**self._chunk(), "choices": [choice], **(more or {})})

    def _chunk(self) -> dict[str, Any]:
        return {**self._head, "object": "chat.completion.chunk", "system_fingerprint": self._fingerprint()}

    def _said_by_rules(self, read: _Read, by: str) -> dict[str, Any]:
        flags = [flag.id for flag in read.found.flags]
        sha256 = self._desk.backend.facts.sha256
        return {"llmft": {"red_flags": flags, "floor": read.found.least, "decided_by": by, "model": sha256}}

    def _fingerprint(self) -> str:
        return self._desk.backend.facts.sha256[:16]

    async def _record(self, finished: Finished, read: _Read, by: str) -> None:
        """Journal the answer; of its words nothing is kept."""
        versions = self._desk.versions(None)
        stored = NewAnswer(
            kind="chat",
            decided_by=by,
            rules=tuple(flag.id for flag in read.found.flags),
            latency_ms=round((finished.waited_s + finished.generated_s) * 1000, 1),
            generation_ms=round(finished.generated_s * 1000, 1),
            versions=Versions(versions.model, versions.adapter, versions.rules, None, versions.prompt),
        )
        prompt = json.dumps(list(self._request.messages), ensure_ascii=False)
        await to_thread(record_answer, self._desk.store, stored, prompt, self._who.name)


def _usage(finished: Finished) -> dict[str, int]:
    total = finished.prompt_tokens + finished.new_tokens
    return {"prompt_tokens": finished.prompt_tokens, "completion_tokens": finished.new_tokens, "total_tokens": total}


def _event(value: dict[str, Any]) -> str:
    return f"data: {json.dumps(value, ensure_ascii=False)}\n\n"
