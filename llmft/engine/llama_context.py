"""One llama.cpp context that holds several sequences: decode tokens of any of them, copy a beginning, cut an end.

Each sequence has a stream of cells of its own (``kv_unified`` off): what one sequence attends to never
grows with the others. A beginning is shared by copying a stream, which costs no computation.
"""

from __future__ import annotations

import ctypes
import os
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

from llmft.errors import LlmftError

Logits = npt.NDArray[np.float32]
BATCH_TOKENS = 512  # of one call to llama_decode
TINY_BYTES = 16 << 20  # of a model of some ten million weights


class Cells(NamedTuple):
    """Tokens to decode that follow each other in one sequence."""

    tokens: Sequence[int]
    position: int  # of the first in its sequence, from 0
    sequence: int
    wanted: int  # after how many of them, from the first, the logits are asked for


class Batch:
    """A ``llama_batch`` for BATCH_TOKENS tokens, in memory that numpy fills."""

    def __init__(self) -> None:
        """Nothing is in it yet."""
        import llama_cpp

        self._tokens, self._positions, self._sequences, self._counts = np.ones((4, BATCH_TOKENS), np.int32)
        self._wanted = np.zeros(BATCH_TOKENS, np.int8)
        self._addresses = self._sequences.ctypes.data + self._sequences.itemsize * np.arange(BATCH_TOKENS, dtype=np.uintp)
        self.struct = llama_cpp.llama_batch()
        fields: dict[str, npt.NDArray[Any]] = {"token": self._tokens, "pos": self._positions, "n_seq_id": self._counts}
        fields |= {"seq_id": self._addresses, "logits": self._wanted}
        for name, kind in llama_cpp.llama_batch._fields_:
            if name in fields:
                setattr(self.struct, name, ctypes.cast(fields[name].ctypes.data, kind))

    def fill(self, rows: Sequence[Cells]) -> int:
        """Hold the rows one behind the other; after how many tokens logits are wanted."""
        place = 0
        for tokens, position, sequence, wanted in rows:
            end = place + len(tokens)
            self._tokens[place:end] = tokens
            self._positions[place:end] = range(position, position + len(tokens))
            self._sequences[place:end] = sequence
            self._wanted[place : place + wanted] = 1
            self._wanted[place + wanted : end] = 0
            place = end
        self.struct.n_tokens = place
        return sum([row.wanted for row in rows])


@dataclass(frozen=True)
class SequenceContext:
    """A context with ``sequences`` streams of ``context_tokens`` cells each."""

    pointer: Any  # llama_context *
    memory: Any  # its cache
    batch: Batch
    context_tokens: int
    sequences: int
    vocabulary_size: int
    rolls_back: bool = True  # an end can be cut; a recurrent model keeps no past to go back to

    def decode(self, rows: Sequence[Cells]) -> Logits:
        """Logits after each wanted token, in order: (wanted, vocabulary), good until the next call. At most BATCH_TOKENS tokens.

        Raises :class:`LlmftError` when llama.cpp fails; the rows' sequences are then to be cut.
        """
        import llama_cpp

        wanted = self.batch.fill(rows)
        code = llama_cpp.llama_decode(self.pointer, self.batch.struct)
        if code != 0:
            raise LlmftError(f"llama.cpp stopped in the middle of an answer (code {code}); try fewer slots or a shorter context")
        if wanted == 0:
            return np.empty((0, self.vocabulary_size), np.float32)
        # llama.cpp keeps the wanted logits one behind the other, in the batch's order
        logits = llama_cpp.llama_get_logits(self.pointer)
        values: Any = ctypes.cast(logits, ctypes.POINTER(ctypes.c_float * (wanted * self.vocabulary_size))).contents
        return np.frombuffer(values, np.float32).reshape(wanted, self.vocabulary_size)

    def copy(self, source: int, target: int) -> None:
        """Make ``target`` hold what ``source`` holds; what it held before is gone."""
        import llama_cpp

        llama_cpp.llama_memory_seq_rm(self.memory, target, -1, -1)
        llama_cpp.llama_memory_seq_cp(self.memory, source, target, -1, -1)

    def cut(self, sequence: int, length: int) -> bool:
        """Keep the first ``length`` tokens of a sequence; False when the model cannot, and it then holds none."""
        import llama_cpp

        if llama_cpp.llama_memory_seq_rm(self.memory, sequence, length, -1):
            return True
        llama_cpp.llama_memory_seq_rm(self.memory, sequence, -1, -1)
        return False

    def close(self) -> None:
        """Give the memory back; to be called once, before the model is closed."""
        import llama_cpp

        llama_cpp.llama_free(self.pointer)


def open_context(llama: Any, context_tokens: int, sequences: int, threads: int) -> SequenceContext:
    """A context over the weights of ``llama`` (``llama_cpp.Llama``), which are shared and stay open.

    Raises :class:`LlmftError` when there is no memory for it.
    """
    import llama_cpp

    params = llama_cpp.llama_context_default_params()
    params.n_ctx = context_tokens * sequences
    params.n_seq_max = sequences
    params.n_batch = params.n_ubatch = BATCH_TOKENS
    params.n_threads = params.n_threads_batch = threads
    params.kv_unified = False
    params.flash_attn_type = llama_cpp.LLAMA_FLASH_ATTN_TYPE_DISABLED  # as one by one, so that greedy answers are the same
    pointer = llama_cpp.llama_init_from_model(llama.model, params)
    if not pointer:
        raise LlmftError(
            f"llama.cpp has no memory for {sequences} answers at once with {context_tokens} tokens each; "
            "ask for fewer slots or a shorter context"
        )
    size = llama_cpp.llama_vocab_n_tokens(llama_cpp.llama_model_get_vocab(llama.model))
    memory = llama_cpp.llama_get_memory(pointer)
    keeps_past = not (llama_cpp.llama_model_is_recurrent(llama.model) or llama_cpp.llama_model_is_hybrid(llama.model))
    return SequenceContext(pointer, memory, Batch(), context_tokens, sequences, int(size), keeps_past)


def usual_threads(path: Path | None = None) -> int:
    """Half of the logical cores, but two where there are two; one for a tiny file, whose threads would but wait."""
    if path is not None and path.stat().st_size <= TINY_BYTES:
        return 1
    cores = os.cpu_count() or 1
    return max(min(cores, 2), cores // 2)


class GrammarError(LlmftError):
    """A GBNF grammar that llama.cpp does not read."""


class Grammar:
    """A GBNF grammar on its way through one answer: it says which tokens may come next."""

    def __init__(self, llama: Any, text: str) -> None:
        """Raises :class:`GrammarError` for a text that llama.cpp does not read."""
        import llama_cpp

        vocabulary = llama_cpp.llama_model_get_vocab(llama.model)
        self._sampler = llama_cpp.llama_sampler_init_grammar(vocabulary, text.encode(), b"root")
        if not self._sampler:
            raise GrammarError("the grammar is not GBNF with a rule 'root'; see llama.cpp's grammars/README.md")

    def pick(self, logits: Logits) -> int:
        """The likeliest token that the grammar allows, which it then takes as written; (vocabulary,) logits.

        The likeliest of all is tried first, alone: mostly it fits, and the grammar need not be tried on the rest.
        """
        import llama_cpp

        best = int(logits.argmax())
        if not np.isfinite(self._allowed(np.array([best]), logits)).all():
            best = int(self._allowed(np.arange(len(logits)), logits).argmax())
        llama_cpp.llama_sampler_accept(self._sampler, best)
        return best

    def _allowed(self, tokens: npt.NDArray[np.int64], logits: Logits) -> Logits:
        """The logits of ``tokens``, minus infinity where the grammar forbids one."""
        import llama_cpp

        data = np.zeros(len(tokens), dtype=[("id", np.int32), ("logit", np.float32), ("p", np.float32)])
        data["id"], data["logit"] = tokens, logits[tokens]
        pointer = data.ctypes.data_as(ctypes.POINTER(llama_cpp.llama_token_data))
        candidates = llama_cpp.llama_token_data_array(pointer, len(tokens), -1, False)
        llama_cpp.llama_sampler_apply(self._sampler, ctypes.byref(candidates))
        return np.asarray(data["logit"])

    def close(self) -> None:
        """Give the memory back; to be called once."""
        import llama_cpp

        llama_cpp.llama_sampler_free(self._sampler)
