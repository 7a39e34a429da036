"""A GGUF file in this process: one thread owns the model and writes all running answers together.

Requests wait in one line. The event loop hears of what a step wrote in one call, so that fifty streams cost it
little; a request that nobody listens to any more is cancelled.
"""

from __future__ import annotations

import asyncio
import hashlib
import threading
from collections import deque
from collections.abc import AsyncIterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from time import perf_counter

from llmft.engine.gguf_header import read_gguf_header
from llmft.engine.parallel_llama import ParallelLlama, open_parallel
from llmft.engine.slots import Written
from llmft.errors import BackendError, BusyError, LlmftError, PromptError
from llmft.prompt import Message
from llmft.run import sha256
from llmft.serve.backend import Event, Finished, ModelFacts, Piece, Queued, Request
from llmft.serve.backend.made_from import adapter_of
from llmft.serve.backend.stops import StopText

SHORT_PROMPT = 4000  # characters
MAX_WAITING = 256  # requests; beyond, it is kinder to say so at once


@dataclass(eq=False)
class _Job:
    """A request on its way."""

    request: Request
    prompt: list[int]
    loop: asyncio.AbstractEventLoop
    events: asyncio.Queue[Event | Exception]
    stops: StopText
    asked: float = field(default_factory=perf_counter)
    place: int = 0  # in the line, as it was told last
    begun: float = 0.0
    new_tokens: int = 0
    cancelled: bool = False
    done: bool = False


class LocalBackend:
    """See :class:`llmft.serve.backend.Backend`."""

    def __init__(self, model: ParallelLlama, facts: ModelFacts, slots: int) -> None:
        """Use :func:`open_local`."""
        self._model, self._facts, self._slots = model, facts, slots
        self._waiting: deque[_Job] = deque()
        self._running: dict[int, _Job] = {}
        self._wake = threading.Condition()
        self._closing = False
        self._failure: Exception | None = None
        self._thread = threading.Thread(target=self._work, name="llmft-model", daemon=True)
        self._thread.start()

    @property
    def facts(self) -> ModelFacts:
        """What it is."""
        return self._facts

    @property
    def waiting(self) -> int:
        """Requests in the line."""
        return len(self._waiting)

    @property
    def running(self) -> int:
        """Answers being written."""
        return len(self._running)

    def prompt_tokens(self, messages: Sequence[Message]) -> int:
        """Tokens of a prompt."""
        return len(self._model.prompt_ids(messages))

    async def check(self) -> None:
        """Raise :class:`BackendError` when the model's thread has died."""
        if self._failure is not None or not self._thread.is_alive():
            raise BackendError("the model has stopped; start the service again")

    async def stream(self, request: Request) -> AsyncIterator[Event]:
        """See :class:`llmft.serve.backend.Backend`."""
        await self.check()
        prompt = await self._prompt_ids(request.messages)
        if len(prompt) >= self._model.context_tokens:
            raise PromptError(
                f"the call has {len(prompt)} tokens and the context holds {self._model.context_tokens}; "
                "start a new call, or serve with a longer --context"
            )
        job = _Job(request, prompt, asyncio.get_running_loop(), asyncio.Queue(), StopText(request.stop))
        self._enqueue(job)
        try:
            while True:
                burst = [await job.events.get()]
                while not job.events.empty():
                    burst.append(job.events.get_nowait())
                for event, following in zip(burst, [*burst[1:], None], strict=True):
                    if isinstance(event, Exception):
                        raise event
                    if isinstance(event, Piece) and isinstance(following, Piece):
                        event = event._replace(more=True)
                    yield event
                    if isinstance(event, Finished):
                        return
        finally:
            self._cancel(job)

    async def _prompt_ids(self, messages: Sequence[Message]) -> list[int]:
        if sum(len(message["content"]) for message in messages) < SHORT_PROMPT:  # done before a thread would wake
            return self._model.prompt_ids(messages)
        return await asyncio.to_thread(self._model.prompt_ids, messages)

    async def close(self) -> None:
        """Stop the thread and give the memory back."""
        with self._wake:
            self._closing = True
            self._wake.notify()
        await asyncio.to_thread(self._thread.join)

    def _enqueue(self, job: _Job) -> None:
        with self._wake:
            if self._closing:
                raise BackendError("the service is stopping; ask again in a moment")
            if len(self._waiting) >= MAX_WAITING:
                raise BusyError(f"{MAX_WAITING} requests wait for the model already; ask again in a minute")
            self._waiting.append(job)
            job.place = len(self._waiting) if len(self._running) + len(self._waiting) > self._slots else 0
            job.events.put_nowait(Queued(job.place))
            self._wake.notify()

    def _cancel(self, job: _Job) -> None:
        with self._wake:
            job.cancelled = True
            if job in self._waiting:
                self._waiting.remove(job)
                self._tell_places()
            self._wake.notify()

    def _work(self) -> None:
        """The model's thread."""
        try:
            while True:
                with self._wake:
                    while not (self._closing or self._waiting or self._running):
                        self._wake.wait()
                    if self._closing:
                        break
                    self._drop_cancelled()
                    self._admit()
                self._step()
        except Exception as error:  # whatever it is, those who wait must hear of it
            self._failure = error
        with self._wake:
            self._closing = True
            left = [*self._running.values(), *self._waiting]
            self._running.clear()
            self._waiting.clear()
        _tell([(job, BackendError("the model has stopped; ask again in a moment")) for job in left])
        self._model.close()

    def _drop_cancelled(self) -> None:
        for ticket in [ticket for ticket, job in self._running.items() if job.cancelled]:
            self._model.cancel(ticket)
            del self._running[ticket]

    def _admit(self) -> None:
        """Give the model as many requests as it can answer at once."""
        told: list[tuple[_Job, Event | Exception]] = []
        while self._waiting and len(self._running) < self._slots:
            job = self._waiting.popleft()
            try:
                ticket = self._model.submit(job.prompt, job.request.max_new_tokens, job.request.grammar)
            except LlmftError as error:
                told.append((job, error))
                continue
            job.begun = perf_counter()
            self._running[ticket] = job
            if job.place:
                told.append((job, Queued(0)))
        _tell(told)
        self._tell_places()

    def _tell_places(self) -> None:
        """Tell those whose place in the line has changed."""
        moved = [(job, place) for place, job in enumerate(self._waiting, start=1) if job.place != place]
        for job, place in moved:
            job.place = place
        _tell([(job, Queued(place)) for job, place in moved])

    def _step(self) -> None:
        if not self._running:
            return
        try:
            written = self._model.step()
        except LlmftError as error:  # the answers of this step are lost, the next ones need not be
            lost, self._running = list(self._running.values()), {}
            _tell([(job, BackendError(str(error))) for job in lost])
            return
        _tell([pair for token in written for pair in self._events(token)])

    def _events(self, written: Written) -> list[tuple[_Job, Event | Exception]]:
        """What one token means for whoever waits for it."""
        job = self._running.get(written.ticket)
        if job is None or job.done:
            return []
        job.new_tokens += 1
        text = job.stops.feed(written.piece)
        if written.done and not job.stops.found:
            text += job.stops.rest()
        events: list[tuple[_Job, Event | Exception]] = [(job, Piece(text, written.probability))]
        if written.done or job.stops.found:
            job.done = True
            del self._running[written.ticket]
            if not written.done:
                self._model.cancel(written.ticket)
            events.append((job, self._finished(job, written)))
        return events

    def _finished(self, job: _Job, written: Written) -> Finished:
        reason = "stop" if written.ended or job.stops.found else "length"
        waited, generated = job.begun - job.asked, perf_counter() - job.begun
        return Finished(reason, len(job.prompt), job.new_tokens, waited, generated)  # type: ignore[arg-type]


def _tell(events: Sequence[tuple[_Job, Event | Exception]]) -> None:
    """Hand events to the loops of those who wait, in one call each."""
    by_loop: dict[asyncio.AbstractEventLoop, list[tuple[_Job, Event | Exception]]] = {}
    for job, event in events:
        by_loop.setdefault(job.loop, []).append((job, event))
    for loop, pairs in by_loop.items():
        if not loop.is_closed():
            loop.call_soon_threadsafe(_put, pairs)


def _put(pairs: Sequence[tuple[_Job, Event | Exception]]) -> None:
    for job, event in pairs:
        job.events.put_nowait(event)


def open_local(path: Path, *, context_tokens: int, slots: int, threads: int | None) -> LocalBackend:
    """Open a GGUF file for ``slots`` answers at once; raises :class:`llmft.errors.CheckpointError`."""
    model = open_parallel(path, context_tokens=context_tokens, slots=slots, threads=threads)
    template = read_gguf_header(path).chat_template or ""
    digest = hashlib.sha256(template.encode()).hexdigest()
    file = sha256(path)
    facts = ModelFacts(path.stem, file, "llama.cpp", digest, model.context_tokens, adapter_of(path, file))
    return LocalBackend(model, facts, slots)
