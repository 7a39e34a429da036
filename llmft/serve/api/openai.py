"""OpenAI's paths, for any front end that speaks them.

Decoding is greedy and in the file's own template. The rules read the user's messages before any word of the model goes out.
Where they find nothing, the answer is the bare model's. Where they find a red flag, the answer begins with their line, and a
block less urgent than they demand is replaced; ``llmft`` says what they found, and who decided.
"""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import aclosing
from typing import Annotated, Any, Literal

from fastapi import APIRouter
from fastapi.responses import StreamingResponse
from pydantic import BaseModel, BeforeValidator, ConfigDict, Field

from llmft.prompt import Message
from llmft.serve.api.bodies import MAX_CALL, MAX_TURNS
from llmft.serve.api.completion import Completion
from llmft.serve.backend import Request
from llmft.serve.desk import Desk
from llmft.serve.security.access import TheDesk, Who
from llmft.serve.security.refusal import Refusal

router = APIRouter(prefix="/v1", tags=["openai"])
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
    stops = (body.stop,) if isinstance(body.stop, str) else tuple(body.stop or ())
    room = (desk.backend.facts.context_tokens or 4096) - 1
    limit = min(body.max_completion_tokens or body.max_tokens or room, room)
    tells_usage = body.stream_options is not None and body.stream_options.include_usage
    completion = Completion(desk, who, Request(messages, limit, stop=stops), tells_usage=tells_usage)
    if body.stream:
        # The first event decides between an error with its status and a stream.
        parts = completion.parts()
        first = await anext(parts)
        return StreamingResponse(_joined(first, parts), media_type="text/event-stream")
    return await completion.whole()


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


async def _joined(first: str, rest: AsyncIterator[str]) -> AsyncIterator[str]:
    async with aclosing(rest):  # type: ignore[type-var]
        yield first
        async for part in rest:
            yield part
