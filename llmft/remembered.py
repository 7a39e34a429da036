"""What was found out about a word, kept: speech says the same few thousand words again and again."""

from __future__ import annotations

from collections.abc import Callable
from typing import TypeVar

Value = TypeVar("Value")
MAX_WORDS = 1 << 16  # speech keeps making new words; the memory for them does not grow


class Remembered(dict[str, Value]):
    """Word ─▶ what a function says of it, asked once a word; ``map`` over ``__getitem__`` is its fast use."""

    def __init__(self, look_up: Callable[[str], Value]) -> None:
        """``look_up`` must give the same for the same word."""
        super().__init__()
        self._look_up = look_up

    def __missing__(self, word: str) -> Value:
        if len(self) >= MAX_WORDS:
            self.clear()
        self[word] = value = self._look_up(word)
        return value
