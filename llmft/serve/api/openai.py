"""OpenAI's paths, for any front end that speaks them.

Decoding is greedy and in the file's own template. The rules read the user's messages here, too, and say in ``llmft`` what
they found: who reads only OpenAI's fields has the bare model.
"""

from __future__ import annotations

import json
from asyncio import Task, create_task, to_thread
from collections.abc import AsyncIterator, Sequence
from contextlib import aclosing
from secrets import token_hex
from time import time
from typing import Annotated, Any, Literal

from fastapi import APIRouter
from fastapi.responses import StreamingResponse
from pydantic import BaseModel, BeforeValidator, ConfigDict, Field

from llmft.errors import LlmftError
from llmft.prompt import Message
from llmft.protocol.heard_language import heard_language
from llmft.serve.api.bodies import MAX_CALL, MAX_TURNS
from llmft.serve.api.faults import refusal_of
from llmft.serve.backend import Finished, Piece, Request
from llmft.serve.desk import Desk
from llmft.serve.security.access import TheDesk, Who
from llmft.serve.security.refusal import Refusal
from llmft.serve.store.answers import NewAnswer, Versions, record_answer
from llmft.serve.store.keys import Identity
from llmft.serve.triage.screen import Screening, screen

router = APIRouter(prefix="/v1", tags=["openai"])
SPEAKERS = {"user": "patient", "assistant": "operator"}
# What would change the meaning of an answer, with the values that ask for nothing.
NOTHING_ASKED: dict[str, tuple[Any, ...]] = {
    "tools": (None, []),
    "functions": (None, []),
    "n": (None, 1),
    "logprobs": (None, False),
    "logit_bias": (None, {}),
    "response_format": (None, {"type": "text"}),
    "audio": (None,),
}


def _text_of(content: Any) -> Any:
    """A message's text, also when it comes in parts."""
    if not isinstance(content, list):
        return content
    if not all(isinstance(part, dict) and part.get("type") == "text" and isinstance(part.get("text"), str) for part in content):
        raise ValueError("only text can be read; send parts of type text")
    return "".join(part["text"] for part in content)


def _storable(content: Any) -> Any:
    return content.encode("utf-8", "replace").decode() if isinstance(content, str) else content


Stop = Annotated[str, BeforeValidator(_storable), Field(max_length=200)]


class ChatMessage(BaseModel):
    """A message; what else it holds is left aside."""

    model_config = ConfigDict(extra="ignore")
    role: Literal["system", "developer", "user", "assistant"]
    content: Annotated[str, BeforeValidator(_storable), BeforeValidator(_text_of), Field(max_length=MAX_CALL)] = ""


class StreamOptions(BaseModel):
    """What a stream tells beside the text."""

    include_usage: bool = False


class ChatRequest(BaseModel):
    """OpenAI's body; ``temperature``, ``top_p`` and ``seed`` change nothing."""

    model_config = ConfigDict(extra="allow")
    model: Annotated[str, Field(max_length=200)]
    messages: Annotated[list[ChatMessage], Field(min_length=1, max_length=MAX_TURNS)]
    max_tokens: Annotated[int, Field(ge=1, le=1 << 20)] | None = None
    max_completion_tokens: Annotated[int, Field(ge=1, le=1 << 20)] | None = None
    stop: (
        Annotated[str, Field(max_length=200)] | Annotated[list[Annotated[str, Field(max_length=200)]], Field(max_length=4)] | None
    ) = None
    stream: bool = False
    stream_options: StreamOptions | None = None


class ModelCard(BaseModel):
    """A model in OpenAI's list."""

    id: str
    object: str = "model"
    created: int = 0
    owned_by: str = "llmft"
    sha256: str


class ModelList(BaseModel):
    """OpenAI's list."""

    object: str = "list"
    data: list[ModelCard]


@router.get("/models")
async def models(desk: TheDesk, who: Who) -> ModelList:
    """The model in service."""
    return ModelList(data=[_card(desk)])


@router.get("/models/{name}")
async def model(name: str, desk: TheDesk, who: Who) -> ModelCard:
    """One model."""
    _require_model(desk, name)
    return _card(desk)


@router.post("/chat/completions", response_model=None)
async def complete(body: ChatRequest, desk: TheDesk, who: Who) -> dict[str, Any] | StreamingResponse:
    """An answer of the model, whole or as a stream."""
    _require_supported(desk, body)
    messages = [_message(message) for message in body.messages]
    screening = create_task(to_thread(_screening, messages))  # beside the model, whose answer here they do not change
    stops = (body.stop,) if isinstance(body.stop, str) else tuple(body.stop or ())
    room = (desk.backend.facts.context_tokens or 4096) - 1
    limit = min(body.max_completion_tokens or body.max_tokens or room, room)
    chat = _Chat(desk, who, body, screening, Request(messages, limit, stop=stops))
    if body.stream:
        # The first event decides between an error with its status and a stream.
        parts = chat.parts()
        first = await anext(parts)
        return StreamingResponse(_joined(first, parts), media_type="text/event-stream")
    return await chat.whole()


def _card(desk: Desk) -> ModelCard:
    facts = desk.backend.facts
    return ModelCard(id=facts.name, sha256=facts.sha256)


def _require_model(desk: Desk, name: str) -> None:
    if name not in (desk.backend.facts.name, "default"):
        raise Refusal(404, "model_not_found", "no model of this name is in service; see GET /v1/models", "model")


def _require_supported(desk: Desk, body: ChatRequest) -> None:
    _require_model(desk, body.model)
    for name, value in (body.model_extra or {}).items():
        if name in NOTHING_ASKED and value not in NOTHING_ASKED[name]:
            raise Refusal(400, "unsupported", f"{name}: this service does not offer it; leave it out", name)
    if sum(len(message.content) for message in body.messages) > MAX_CALL:
        raise Refusal(400, "context_length_exceeded", f"messages: at most {MAX_CALL} characters together", "messages")


def _message(message: ChatMessage) -> Message:
    role = "system" if message.role == "developer" else message.role
    return {"role": role, "content": message.content}


def _screening(messages: Sequence[Message]) -> Screening:
    turns = [(SPEAKERS[message["role"]], message["content"]) for message in messages if message["role"] in SPEAKERS]
    return screen(turns, heard_language(text for speaker, text in turns if speaker == "patient"))


async def _joined(first: str, rest: AsyncIterator[str]) -> AsyncIterator[str]:
    async with aclosing(rest):  # type: ignore[type-var]
        yield first
        async for part in rest:
            yield part


class _Chat:
    """One completion on its way."""

    def __init__(self, desk: Desk, who: Identity, body: ChatRequest, screening: Task[Screening], request: Request) -> None:
        self._desk, self._who, self._body = desk, who, body
        self._screening, self._request = screening, request
        self._head = {"id": f"chatcmpl-{token_hex(12)}", "created": int(time()), "model": desk.backend.facts.name}

    async def whole(self) -> dict[str, Any]:
        """The answer in one object."""
        text: list[str] = []
        async with aclosing(self._desk.backend.stream(self._request)) as events:  # type: ignore[type-var]
            async for event in events:
                if isinstance(event, Piece):
                    text.append(event.text)
                elif isinstance(event, Finished):
                    await self._record(event)
                    message = {"role": "assistant", "content": "".join(text)}
                    choice = {"index": 0, "message": message, "finish_reason": event.reason, "logprobs": None}
                    ended = {"choices": [choice], "usage": _usage(event), **await self._said_by_rules()}
                    return {**self._head, "object": "chat.completion", "system_fingerprint": self._fingerprint(), **ended}
        raise AssertionError("a stream ends with Finished or an error")

    async def parts(self) -> AsyncIterator[str]:
        """The answer as server-sent events; an error before the first word is raised, one after it ends the stream."""
        begun = False
        try:
            async with aclosing(self._desk.backend.stream(self._request)) as events:  # type: ignore[type-var]
                async for event in events:
                    if isinstance(event, Piece | Finished) and not begun:
                        begun = True
                        yield self._part({"role": "assistant", "content": ""})
                    if isinstance(event, Piece) and event.text:
                        yield self._part({"content": event.text})
                    if isinstance(event, Finished):
                        await self._record(event)
                        yield self._part({}, event.reason, await self._said_by_rules())
                        if self._body.stream_options and self._body.stream_options.include_usage:
                            yield _event({**self._chunk(), "choices": [], "usage": _usage(event)})
                        yield "data: [DONE]\n\n"
        except LlmftError as error:
            if not begun:
                raise
            yield _event(refusal_of(error).body())

    def _part(self, delta: dict[str, str], reason: str | None = None, more: dict[str, Any] | None = None) -> str:
        choice = {"index": 0, "delta": delta, "finish_reason": reason, "logprobs": None}
        return _event({**self._chunk(), "choices": [choice], **(more or {})})

    def _chunk(self) -> dict[str, Any]:
        return {**self._head, "object": "chat.completion.chunk", "system_fingerprint": self._fingerprint()}

    async def _said_by_rules(self) -> dict[str, Any]:
        screening = await self._screening
        flags = [flag.id for flag in screening.flags]
        return {"llmft": {"red_flags": flags, "floor": screening.floor, "model": self._desk.backend.facts.sha256}}

    def _fingerprint(self) -> str:
        return self._desk.backend.facts.sha256[:16]

    async def _record(self, finished: Finished) -> None:
        """Journal the answer; of its words nothing is kept."""
        versions = self._desk.versions(None)
        stored = NewAnswer(
            kind="chat",
            rules=tuple(flag.id for flag in (await self._screening).flags),
            latency_ms=round((finished.waited_s + finished.generated_s) * 1000, 1),
            generation_ms=round(finished.generated_s * 1000, 1),
            versions=Versions(versions.model, None, versions.rules, None, versions.prompt),
        )
        prompt = json.dumps(list(self._request.messages), ensure_ascii=False)
        await to_thread(record_answer, self._desk.store, stored, prompt, self._who.name)


def _usage(finished: Finished) -> dict[str, int]:
    total = finished.prompt_tokens + finished.new_tokens
    return {"prompt_tokens": finished.prompt_tokens, "completion_tokens": finished.new_tokens, "total_tokens": total}


def _event(value: dict[str, Any]) -> str:
    return f"data: {json.dumps(value, ensure_ascii=False)}\n\n"
