"""What answers: a GGUF file in this process (``local``), or a server that speaks OpenAI's API (``remote``).

Both are a :class:`Backend`: they stream what happens to one request, so that whoever waits can see why.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Sequence
from dataclasses import dataclass
from typing import Literal, NamedTuple, Protocol

from llmft.prompt import Message


@dataclass(frozen=True)
class Request:
    """One answer that is asked for."""

    messages: Sequence[Message]
    max_new_tokens: int
    grammar: str | None = None  # GBNF; a remote server may not know it
    stop: tuple[str, ...] = ()


class Queued(NamedTuple):
    """Others come first; 0: it is being answered."""

    position: int


class Piece(NamedTuple):
    """A piece of the answer."""

    text: str
    probability: float | None  # of this token among all; None: the server does not say
    more: bool = False  # the next piece is here already, so that both can be sent at once


class Finished(NamedTuple):
    """The answer is whole."""

    reason: Literal["stop", "length"]
    prompt_tokens: int
    new_tokens: int
    waited_s: float
    generated_s: float


Event = Queued | Piece | Finished


@dataclass(frozen=True)
class ModelFacts:
    """What stands behind a back end."""

    name: str
    sha256: str  # of the file; of a remote server: of its address and the model's name there
    kind: Literal["llama.cpp", "remote"]
    prompt: str  # hash of the chat template
    context_tokens: int | None
    adapter: str | None = None  # hash of the adapter in the file, where its manifest says so


class Backend(Protocol):
    """A model that answers."""

    @property
    def facts(self) -> ModelFacts:
        """What it is."""
        ...

    @property
    def waiting(self) -> int:
        """Requests in the line."""
        ...

    @property
    def running(self) -> int:
        """Answers being written."""
        ...

    def stream(self, request: Request) -> AsyncIterator[Event]:
        """``Queued`` while it waits, ``Piece`` by piece, ``Finished`` at last; closing the iterator cancels the request.

        Raises :class:`llmft.errors.PromptError` for a prompt without room for an answer, :class:`BusyError` when too
        many wait, :class:`llmft.errors.BackendError` when the model or the server fails.
        """
        ...

    def prompt_tokens(self, messages: Sequence[Message]) -> int | None:
        """Tokens of a prompt; None: only the server knows."""
        ...

    async def check(self) -> None:
        """Raise :class:`llmft.errors.BackendError` unless an answer could be given now."""
        ...

    async def close(self) -> None:
        """Give back what it holds; requests that wait or run fail."""
        ...


async def whole(backend: Backend, request: Request) -> tuple[str, Finished]:
    """The whole text of an answer."""
    text: list[str] = []
    async for event in backend.stream(request):
        if isinstance(event, Piece):
            text.append(event.text)
        elif isinstance(event, Finished):
            return "".join(text), event
    raise AssertionError("a stream ends with Finished or an error")
