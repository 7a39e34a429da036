"""The state of answers that are written together: what was asked for, and the sequence that it is written in."""

from __future__ import annotations

import codecs
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import NamedTuple

from llmft.engine.llama_context import Grammar
from llmft.engine.llama_model import LlamaModel


class Written(NamedTuple):
    """A token that a step wrote."""

    ticket: int
    token: int
    piece: str  # its text, never half a character
    done: bool  # the answer's last token
    ended: bool  # the model closed its turn itself; otherwise it was cut
    probability: float | None  # of the token among all, whatever the grammar; None for an answer that is held to none


class Texts(dict[int, bytes | None]):
    """Token ─▶ its bytes, None for one that ends an answer; asked of llama.cpp once a token."""

    def __init__(self, model: LlamaModel) -> None:
        """Nothing is asked yet."""
        super().__init__()
        self._model = model

    def __missing__(self, token: int) -> bytes | None:
        text: bytes | None = None if self._model.is_end(token) else self._model.llama.detokenize([token])
        self[token] = text
        return text


@dataclass
class Request:
    """An answer that waits for a slot or is being written."""

    ticket: int
    prompt: list[int]
    max_new_tokens: int
    grammar: Grammar | None
    written: int = 0
    decoder: codecs.IncrementalDecoder = field(default_factory=lambda: codecs.getincrementaldecoder("utf-8")("replace"))


@dataclass
class Slot:
    """A sequence of the context, and whose answer is being written in it."""

    sequence: int
    held: list[int] = field(default_factory=list)  # tokens in the cache
    ahead: list[int] = field(default_factory=list)  # tokens still to be decoded: of the prompt, then the last one written
    guessed: list[int] = field(default_factory=list)  # tokens decoded in this step that may turn out not to be written
    request: Request | None = None
    used: int = 0  # number of the step that used it last


def common_tokens(first: Sequence[int], second: Sequence[int]) -> int:
    """How many tokens two sequences begin with alike."""
    return next((place for place, (a, b) in enumerate(zip(first, second, strict=False)) if a != b), min(len(first), len(second)))


def close_request(request: Request) -> None:
    """Give the grammar's memory back."""
    if request.grammar is not None:
        request.grammar.close()
        request.grammar = None
