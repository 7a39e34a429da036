"""A server that speaks OpenAI's API: llama-server, vLLM, Ollama, GPT4All desktop on port 4891, or another llmft.

What a server can do is found out by asking: first for a stream held to the grammar, then for a stream, then for one
plain answer, and what it accepted is asked for from then on. Its errors are not passed on, as they may quote the call.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import AsyncIterator, Sequence
from time import perf_counter
from typing import TYPE_CHECKING, Any

from llmft.errors import BackendError, BusyError, PromptError
from llmft.prompt import Message, control_pattern, spoken_only
from llmft.serve.backend import Event, Finished, ModelFacts, Piece, Queued, Request
from llmft.serve.backend.stops import StopText

if TYPE_CHECKING:
    import httpx

TIMEOUT_S = 120.0  # for the first word; a loaded server may let us wait
CONNECT_S = 5.0
MANNERS = ("grammar", "stream", "plain")
MARKUP = control_pattern(("<|im_start|>", "<|im_end|>", "<|endoftext|>", "<s>", "</s>", "<start_of_turn>", "<end_of_turn>"))


class RemoteBackend:
    """See :class:`llmft.serve.backend.Backend`."""

    def __init__(self, client: httpx.AsyncClient, facts: ModelFacts) -> None:
        """Use :func:`open_remote`."""
        self._client, self._facts = client, facts
        self._manner = 0
        self._running = 0

    @property
    def facts(self) -> ModelFacts:
        """What it is."""
        return self._facts

    @property
    def waiting(self) -> int:
        """Requests in the line: the server has its own."""
        return 0

    @property
    def running(self) -> int:
        """Answers being written."""
        return self._running

    def prompt_tokens(self, messages: Sequence[Message]) -> None:
        """Only the server knows."""

    async def check(self) -> None:
        """Raise :class:`BackendError` unless the server lists its models."""
        import httpx

        try:
            answer = await self._client.get("models")
            answer.raise_for_status()
        except httpx.HTTPError:
            raise BackendError(f"{self._client.base_url} does not answer; start the server behind --backend") from None

    async def stream(self, request: Request) -> AsyncIterator[Event]:
        """See :class:`llmft.serve.backend.Backend`."""
        import httpx

        self._running += 1
        try:
            yield Queued(0)
            async for event in self._answered(request):
                yield event
        except httpx.HTTPError:
            raise BackendError(f"{self._client.base_url} broke off or took too long; look at that server") from None
        except (ValueError, KeyError, IndexError, TypeError, AttributeError):
            raise BackendError(f"{self._client.base_url} answers in no form of OpenAI's; name another --backend") from None
        finally:
            self._running -= 1

    async def close(self) -> None:
        """Close the connections."""
        await self._client.aclose()

    async def _answered(self, request: Request) -> AsyncIterator[Event]:
        for manner in range(self._manner, len(MANNERS)):
            asked = perf_counter()
            body = self._body(request, MANNERS[manner])
            async with self._client.stream("POST", "chat/completions", json=body) as answer:
                if answer.status_code in (400, 404, 422, 501) and manner + 1 < len(MANNERS):
                    continue
                _refuse(answer.status_code, str(self._client.base_url))
                self._manner = manner
                parts = _plain(await answer.aread()) if MANNERS[manner] == "plain" else _streamed(answer)
                async for event in _events(parts, StopText(request.stop), asked):
                    yield event
                return

    def _body(self, request: Request, manner: str) -> dict[str, Any]:
        """GPT4All's server refuses what it does not know, so the plain manner asks for the least."""
        messages = spoken_only(request.messages, MARKUP)
        body: dict[str, Any] = {"model": self._facts.name, "messages": messages, "max_tokens": request.max_new_tokens}
        body["temperature"] = 0
        if manner != "plain":
            body |= {"stream": True, "stream_options": {"include_usage": True}}
        if manner == "grammar" and request.grammar is not None:
            body |= {"grammar": request.grammar, "structured_outputs": {"grammar": request.grammar}}  # llama-server's, vLLM's
        return body


def _refuse(status: int, url: str) -> None:
    if status == 429:
        raise BusyError(f"{url} has too many requests; ask again in a minute")
    if status == 413:
        raise PromptError("the call is too long for the model's context; start a new call")
    if status != 200:
        raise BackendError(f"{url} answered with status {status}; look at the server behind --backend")


async def _streamed(answer: httpx.Response) -> AsyncIterator[dict[str, Any]]:
    async for line in answer.aiter_lines():
        if line.startswith("data:") and (data := line[5:].strip()) != "[DONE]":
            yield json.loads(data)


async def _plain(content: bytes) -> AsyncIterator[dict[str, Any]]:
    """A whole answer in the form of a stream's only part."""
    whole = json.loads(content)
    choice = whole["choices"][0]
    delta = {"delta": {"content": choice["message"]["content"]}, "finish_reason": choice.get("finish_reason")}
    yield {"choices": [delta], "usage": whole.get("usage")}


async def _events(parts: AsyncIterator[dict[str, Any]], stops: StopText, asked: float) -> AsyncIterator[Event]:
    """A stream's parts as events; tokens are counted by the server, else by the parts."""
    begun, reason, pieces = perf_counter(), "stop", 0
    usage: dict[str, Any] = {}
    async for part in parts:
        usage = part.get("usage") or usage
        for choice in part.get("choices") or ():
            reason = choice.get("finish_reason") or reason
            if text := (choice.get("delta") or {}).get("content"):
                begun = perf_counter() if pieces == 0 else begun
                pieces += 1
                yield Piece(stops.feed(str(text)), None)
        if stops.found:
            break
    if not stops.found and (rest := stops.rest()):
        yield Piece(rest, None)
    done = perf_counter()
    prompt, new = int(usage.get("prompt_tokens") or 0), int(usage.get("completion_tokens") or pieces)
    yield Finished("length" if reason == "length" and not stops.found else "stop", prompt, new, begun - asked, done - begun)


def open_remote(url: str, model: str, key: str | None = None) -> RemoteBackend:
    """A server at ``url``, which ends in ``/v1``; ``model`` is its name for the model. Nothing is asked of it yet."""
    import httpx

    headers = {"Authorization": f"Bearer {key}"} if key else {}
    limits = httpx.Limits(max_connections=256, max_keepalive_connections=64)
    timeout = httpx.Timeout(TIMEOUT_S, connect=CONNECT_S)
    client = httpx.AsyncClient(base_url=url.rstrip("/") + "/", headers=headers, timeout=timeout, limits=limits, trust_env=False)
    digest = hashlib.sha256(f"{url} {model}".encode()).hexdigest()
    prompt = hashlib.sha256(b"the server's own").hexdigest()
    return RemoteBackend(client, ModelFacts(model, digest, "remote", prompt, None))
