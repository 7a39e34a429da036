"""A loaded model that answers: one seam, whatever runs behind it.

An engine is any object with the method of :class:`Engine`: ``torch_model`` holds a checkpoint with
or without adapter, ``llama_model`` a GGUF file, ``parallel_llama`` one that writes many answers at once, ``remote`` a server.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Literal, Protocol

from llmft.prompt import Message


@dataclass(frozen=True)
class Answer:
    """The operator's turn that a model wrote."""

    text: str  # without the end-of-turn token and the white space around the turn
    ended: bool  # the model closed its turn itself; otherwise it was cut or had no room
    seconds: float  # wall time; of a batch, each answer has an equal share
    failure: Literal["time_out", "engine"] | None = None  # why there is no answer


class Engine(Protocol):
    """What evaluation asks of a model."""

    def answers(self, conversations: Sequence[Sequence[Message]], max_new_tokens: int) -> Iterator[tuple[int, Answer]]:
        """The greedy next turn of each conversation with its index, in the order in which they are done.

        A conversation that leaves no room in the model's context gets an empty answer that did not end.
        """
        ...


def answer(engine: Engine, conversations: Sequence[Sequence[Message]], max_new_tokens: int) -> list[Answer]:
    """The greedy next turn of each conversation, in their order."""
    found = dict(engine.answers(conversations, max_new_tokens))
    return [found[index] for index in range(len(conversations))]
