"""Several contexts over one small model's weights, each with a thread and a share of the calls.

In a model of a few million weights a pass is so short that llama.cpp's threads wait for each other longer than they work.
With a context each they never meet. Which context answers a call does not depend on time, so answers are the same in every run,
and a call that goes on stays where its turns so far have been read.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from queue import SimpleQueue
from threading import Event, Thread

from llmft.engine import Answer
from llmft.engine.llama_context import open_context, usual_threads
from llmft.engine.llama_scoring import LlamaScorer
from llmft.engine.parallel_llama import SLOTS, ParallelLlama, open_parallel
from llmft.prompt import Message

SMALL_BYTES = 64 << 20  # a file that about fits a processor's cache; of larger ones the weights are better read once for all
Said = tuple[int, Answer] | Exception | None  # an answer with its index, what went wrong, or the end of a share


class SideBySide:
    """See :class:`llmft.engine.Engine`; for one caller alone."""

    def __init__(self, workers: Sequence[ParallelLlama]) -> None:
        """``workers`` share one model."""
        self.workers = tuple(workers)
        self._places: dict[str, int] = {}  # opening of a call ─▶ who answers it

    def teach(self, answers: Iterable[str]) -> None:
        """See :meth:`ParallelLlama.teach`."""
        first, *others = self.workers
        first.teach(answers)
        for worker in others:
            worker.drafts = first.drafts.copy()

    def answers(self, conversations: Sequence[Sequence[Message]], max_new_tokens: int) -> Iterator[tuple[int, Answer]]:
        """See the protocol."""
        said: SimpleQueue[Said] = SimpleQueue()
        stopped = Event()
        shares = self._shares(conversations)

        def work(worker: ParallelLlama, share: list[int]) -> None:
            try:
                for place, answer in worker.answers([conversations[index] for index in share], max_new_tokens):
                    said.put((share[place], replace(answer, seconds=answer.seconds / len(self.workers))))
                    if stopped.is_set():
                        break
            except Exception as error:
                said.put(error)
            said.put(None)

        threads = [Thread(target=work, args=pair, daemon=True) for pair in zip(self.workers, shares, strict=True)]
        for thread in threads:
            thread.start()
        try:
            yield from self._heard(said)
        finally:  # who asked may have stopped listening
            stopped.set()
            for thread in threads:
                thread.join()

    def _shares(self, conversations: Sequence[Sequence[Message]]) -> list[list[int]]:
        """The indices that each worker answers: calls in turn, and each again where it was before."""
        shares: list[list[int]] = [[] for _ in self.workers]
        for index, messages in enumerate(conversations):
            opening = next((message["content"] for message in messages if message["role"] == "user"), "")
            shares[self._places.setdefault(opening, len(self._places) % len(self.workers))].append(index)
        return shares

    def _heard(self, said: SimpleQueue[Said]) -> Iterator[tuple[int, Answer]]:
        working = len(self.workers)
        while working:
            one = said.get()
            if isinstance(one, Exception):
                raise one
            if one is None:
                working -= 1
            else:
                yield one

    def scorer(self) -> LlamaScorer:
        """See :class:`llmft.engine.scoring.HasScorer`; not while answers are being written. It has one thread."""
        return self.workers[0].scorer()

    def close(self) -> None:
        """Give the memory back."""
        for worker in self.workers[1:]:
            worker.context.close()
        self.workers[0].close()


def open_side_by_side(
    path: Path, *, context_tokens: int, slots: int = SLOTS, threads: int | None = None, grammar: str | None = None
) -> ParallelLlama | SideBySide:
    """As :func:`open_parallel`; of a small file a context for each thread, which share the slots."""
    count = threads or usual_threads()
    if count < 2 or slots < count or path.stat().st_size > SMALL_BYTES:
        return open_parallel(path, context_tokens=context_tokens, slots=slots, threads=count, grammar=grammar)
    share = slots // count
    first = open_parallel(path, context_tokens=context_tokens, slots=share, threads=1, grammar=grammar)
    contexts = [first.context, *(open_context(first.model.llama, first.context_tokens, share, 1) for _ in range(count - 1))]
    workers = [ParallelLlama(first.model, context, grammar) for context in contexts]
    for worker in workers:
        worker.at_once = 1
    return SideBySide(workers)
