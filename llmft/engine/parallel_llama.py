"""Many answers at once from one GGUF file: continuous batching over llama.cpp's low-level interface.

Each answer has a slot, and each step writes a token or more of every running answer in one pass through
the weights: tokens that earlier answers make likely are checked together (see ``drafts``). Prompts are read
in pieces between, so that a long one stalls nobody. What a prompt has in common with any slot's tokens, such
as the system message or the turns before, is copied, not computed.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from threading import Lock
from time import perf_counter

import numpy as np

from llmft.engine import Answer
from llmft.engine.drafts import SEEN_TOKENS, Drafts, worthwhile
from llmft.engine.llama_context import BATCH_TOKENS, Cells, Grammar, Logits, SequenceContext, open_context, usual_threads
from llmft.engine.llama_model import CONTEXT_TOKENS, LlamaModel, load_gguf
from llmft.engine.llama_scoring import LlamaScorer
from llmft.engine.slots import Request, Slot, Texts, Written, close_request, common_tokens
from llmft.errors import PromptError
from llmft.prompt import Message

SLOTS = 16  # answers at once unless asked otherwise
PROMPT_PIECE = 256  # tokens of waiting prompts that one step reads
DRAFT_TOKENS = 11  # guessed for one answer in one step
MIN_SHARED = 16  # tokens that are worth a copy, or a step's wait for another prompt that computes them
TEXT_CONTEXT = 32  # of the context that only tokenises; its smallest useful size


class ParallelLlama:
    """A GGUF file that writes several answers at once.

    ``submit`` and ``cancel`` may be called from any thread; ``step`` and ``close`` from one thread at a time.
    """

    def __init__(self, model: LlamaModel, context: SequenceContext, grammar: str | None = None) -> None:
        """Use :func:`open_parallel`."""
        self.model, self.context, self.grammar = model, context, grammar
        self.at_once = context.sequences  # answers; what slots beyond it hold is there to be copied
        self._slots = [Slot(sequence) for sequence in range(context.sequences)]
        self._waiting: deque[Request] = deque()
        self._cancelled: set[int] = set()
        self._lock = Lock()
        self.drafts = Drafts()
        self._texts = Texts(model)
        self._tickets = self._steps = 0

    @property
    def path(self) -> Path:
        """The file."""
        return self.model.path

    @property
    def context_tokens(self) -> int:
        """Tokens of one prompt and its answer together."""
        return self.context.context_tokens

    @property
    def busy(self) -> bool:
        """Whether an answer waits or is being written: whether ``step`` has something to do."""
        with self._lock:
            return bool(self._waiting) or any(slot.request for slot in self._slots)

    def prompt_ids(self, messages: Sequence[Message]) -> list[int]:
        """Token ids from which the model writes the operator's next turn."""
        return self.model.prompt_ids(messages)

    def teach(self, answers: Iterable[str]) -> None:
        """Guess from ``answers`` as well, such as those of the training; what is written does not change."""
        before = self.prompt_ids([{"role": "user", "content": "."}])[-SEEN_TOKENS:]  # the markup that an answer follows
        for text in answers:
            self.drafts.learn_row([*before, *self.model.text_ids(text)], len(before))

    def submit(self, prompt: Sequence[int], max_new_tokens: int, grammar: str | None = None) -> int:
        """Queue an answer to ``prompt``, held to the GBNF ``grammar`` if there is one; returns its ticket.

        Raises :class:`PromptError` when prompt and one token do not fit the context, and
        :class:`llmft.engine.llama_context.GrammarError` for a grammar that cannot be read.
        """
        if not prompt or len(prompt) >= self.context_tokens or max_new_tokens < 1:
            raise PromptError(
                f"the call has {len(prompt)} tokens and the context holds {self.context_tokens}; "
                "start a new call or open a longer context"
            )
        limit = min(max_new_tokens, self.context_tokens - len(prompt))
        held_to = None if grammar is None else Grammar(self.model.llama, grammar)
        with self._lock:
            self._tickets += 1
            self._waiting.append(Request(self._tickets, list(prompt), limit, held_to))
            return self._tickets

    def cancel(self, ticket: int) -> None:
        """Stop an answer: its ticket appears in no later step; a ticket that is done already is passed over."""
        with self._lock:
            self._cancelled.add(ticket)

    def step(self) -> list[Written]:
        """Write a token or more of every running answer and read a piece of the prompts that wait; empty when none was written.

        Raises :class:`llmft.errors.LlmftError` when llama.cpp fails: all running answers are then lost.
        """
        self._steps += 1
        with self._lock:
            self._drop_cancelled()
            self._admit()
        slots, rows = self._plan()
        if not rows:
            return []
        try:
            logits = iter(self.context.decode(rows))
        except Exception:
            self._forget_all()
            raise
        written: list[Written] = []
        for slot in slots:
            if not slot.ahead:
                written += self._write(slot, [next(logits) for _ in range(1 + len(slot.guessed))])
        return written

    def _drop_cancelled(self) -> None:
        if not self._cancelled:
            return
        gone = [request for request in self._waiting if request.ticket in self._cancelled]
        self._waiting = deque(request for request in self._waiting if request.ticket not in self._cancelled)
        for slot in self._slots:
            if slot.request and slot.request.ticket in self._cancelled:
                gone.append(slot.request)
                slot.request, slot.ahead = None, []
        for request in gone:
            close_request(request)
        self._cancelled.clear()

    def _admit(self) -> None:
        """Give free slots to the requests that wait, in their order."""
        while self._waiting:
            free = [slot for slot in self._slots if slot.request is None]
            if len(self._slots) - len(free) >= self.at_once:
                return
            prompt = self._waiting[0].prompt
            shared = {slot.sequence: common_tokens(slot.held, prompt) for slot in self._slots}
            source = max(self._slots, key=lambda slot: shared[slot.sequence])
            soon = max((common_tokens(s.held + s.ahead, prompt) for s in self._slots if s.request), default=0)
            if min(soon, len(prompt) - 1) >= shared[source.sequence] + MIN_SHARED:
                return  # a running prompt is computing this one's beginning
            own = max(free, key=lambda slot: (shared[slot.sequence], -slot.used))
            oldest = min(free, key=lambda slot: (bool(slot.held), slot.used))
            if shared[own.sequence] < len(own.held) and not oldest.held:
                own = oldest  # an empty slot before the end of a call that may go on
            if shared[own.sequence] + MIN_SHARED > shared[source.sequence]:
                self._begin(own, shared[own.sequence])
            else:
                self.context.copy(source.sequence, oldest.sequence)
                self._begin(oldest, shared[source.sequence])

    def _begin(self, slot: Slot, shared: int) -> None:
        """Start the first request in ``slot``, whose cache holds ``shared`` tokens of its prompt; the last token is read anew."""
        slot.request = self._waiting.popleft()
        prompt = slot.request.prompt
        kept = min(shared, len(prompt) - 1)
        kept = kept if self.context.cut(slot.sequence, kept) else 0
        slot.held, slot.ahead, slot.used = prompt[:kept], prompt[kept:], self._steps

    def _plan(self) -> tuple[list[Slot], list[Cells]]:
        """What to decode: running answers with their guesses, and prompts in their order as far as a piece goes.

        llama.cpp computes sequences that follow each other in one go, so cells lie in the order of their sequences;
        the last tokens of prompts lie behind, as they are computed last and logits then need no sorting.
        """
        running = [slot for slot in self._slots if slot.request and slot.request.written]
        reading = [slot for slot in self._slots if slot.request and not slot.request.written]
        reading.sort(key=lambda slot: slot.request.ticket if slot.request else 0)
        pieces, room = [], min(PROMPT_PIECE, BATCH_TOKENS - len(running))
        for slot in reading:
            to_edge = PROMPT_PIECE - len(slot.held) % PROMPT_PIECE
            if count := min(len(slot.ahead), to_edge, room):
                room -= count
                pieces.append((slot, count))
        read = sum(count for _, count in pieces)
        self._guess(running, (BATCH_TOKENS - read) // max(len(running), 1) - 1)
        ends = [slot for slot, count in pieces if count == len(slot.ahead)]
        rows = [self._take(slot, len(slot.ahead), wanted=1 + len(slot.guessed)) for slot in running]
        rows += [self._take(slot, min(count, len(slot.ahead) - 1)) for slot, count in pieces if len(slot.ahead) > 1]
        rows.sort(key=lambda row: row.sequence)
        return [*running, *(slot for slot, _ in pieces)], [*rows, *(self._take(slot, 1, wanted=1) for slot in ends)]

    def _guess(self, running: Sequence[Slot], most: int) -> None:
        """Guesses for each running answer, filled up to as many for each: llama.cpp computes rows of equal length together."""
        rooms = [s.request.max_new_tokens - s.request.written - 1 for s in running if s.request]
        most = min([DRAFT_TOKENS, most, *rooms]) if self.context.rolls_back else 0
        guesses = [self.drafts.guess(slot.held[-SEEN_TOKENS:] + slot.ahead, most) for slot in running]
        count = worthwhile(guesses)
        for slot, guess in zip(running, guesses, strict=True):
            slot.guessed, last = [token for token, _ in guess[:count]], slot.ahead
            slot.ahead = [*last, *slot.guessed, *last * (count - len(slot.guessed))]

    def _take(self, slot: Slot, count: int, wanted: int = 0) -> Cells:
        """Move the next ``count`` tokens into the cache; logits are wanted after the first ``wanted``."""
        start, tokens = len(slot.held), slot.ahead[:count]
        slot.held, slot.ahead, slot.used = slot.held + tokens, slot.ahead[count:], self._steps
        return Cells(tokens, start, slot.sequence, wanted)

    def _write(self, slot: Slot, logits: Sequence[Logits]) -> list[Written]:
        """The answer's next tokens: one, and one more for each guess that was right; an answer that is done leaves the slot."""
        request, guesses, written = slot.request, slot.guessed, list[Written]()
        assert request is not None
        sure = len(request.prompt) + request.written  # tokens that stay in the cache
        for row, guess in zip(logits, [*guesses, None], strict=True):
            token = int(row.argmax()) if request.grammar is None else request.grammar.pick(row)
            self.drafts.learn(slot.held[max(sure - SEEN_TOKENS, 0) : sure], token)
            written.append(self._written(request, token, row))
            if written[-1].done or token != guess:
                break
            sure += 1
        if sure < len(slot.held):
            self.context.cut(slot.sequence, sure)
            slot.held = slot.held[:sure]
        slot.guessed, slot.ahead = [], [token]
        if written[-1].done:
            slot.request, slot.ahead = None, []
            close_request(request)
        return written

    def _written(self, request: Request, token: int, logits: Logits) -> Written:
        request.written += 1
        text = self._texts[token]
        done = text is None or request.written == request.max_new_tokens
        piece = request.decoder.decode(text or b"", final=done)
        probability = None if request.grammar is None else float(1 / np.exp(logits - logits[token]).sum())
        return Written(request.ticket, token, piece, done, text is None, probability)

    def _forget_all(self) -> None:
        """After a failure nobody knows what the cache holds."""
        for slot in self._slots:
            self.context.cut(slot.sequence, 0)
            if slot.request:
                close_request(slot.request)
            slot.request, slot.ahead, slot.guessed, slot.held = None, [], [], []

    def answers(self, conversations: Sequence[Sequence[Message]], max_new_tokens: int) -> Iterator[tuple[int, Answer]]:
        """See :class:`llmft.engine.Engine`; held to the engine's grammar, if it has one. For one caller alone."""
        index_of: dict[int, int] = {}
        texts: dict[int, list[str]] = {}
        prompts = [self.prompt_ids(messages) for messages in conversations]
        for index, prompt in sorted(enumerate(prompts), key=lambda pair: pair[1]):  # those that begin alike follow each other
            if len(prompt) >= self.context_tokens:
                yield index, Answer("", False, 0.0)
                continue
            ticket = self.submit(prompt, max_new_tokens, self.grammar)
            index_of[ticket], texts[ticket] = index, []
        before = perf_counter()
        try:
            while self.busy:
                for written in self.step():
                    texts[written.ticket].append(written.piece)
                    if written.done:
                        text, now = "".join(texts.pop(written.ticket)).strip(), perf_counter()
                        yield index_of[written.ticket], Answer(text, written.ended, now - before)
                        before = now
        finally:  # who asked may have stopped listening
            for ticket in texts:
                self.cancel(ticket)

    def scorer(self) -> LlamaScorer:
        """See :class:`llmft.engine.scoring.HasScorer`; not while answers are being written, and good until the next one."""
        self._forget_all()
        return LlamaScorer(self.model, self.context)

    def close(self) -> None:
        """Give the memory back; answers that wait or run are lost."""
        self._forget_all()
        self.context.close()
        self.model.close()


def open_parallel(
    path: Path,
    *,
    context_tokens: int = CONTEXT_TOKENS,
    slots: int = SLOTS,
    threads: int | None = None,
    grammar: str | None = None,
) -> ParallelLlama:
    """Open a GGUF for ``slots`` answers at once with ``context_tokens`` each; ``threads`` None: the usual number.
    ``grammar`` is a GBNF text that holds what ``answers`` writes.

    Raises :class:`llmft.errors.CheckpointError` for a file that cannot be used, and :class:`llmft.errors.LlmftError`
    when there is no memory for so many answers.
    """
    model = load_gguf(path, context_tokens=TEXT_CONTEXT, threads=threads)
    trained_tokens = model.llama._model.n_ctx_train()
    count = threads or usual_threads(path)
    context = open_context(model.llama, min(context_tokens, trained_tokens), slots, count)
    return ParallelLlama(model, context, grammar)
