"""What is found out about a word is asked once, and the memory for it ends."""

from __future__ import annotations

import llmft.remembered
from llmft.remembered import Remembered


def test_a_word_is_asked_once_and_anew_when_too_many_are_known(monkeypatch):
    asked: list[str] = []
    monkeypatch.setattr(llmft.remembered, "MAX_WORDS", 3)
    lengths = Remembered[int](lambda word: (asked.append(word), len(word))[1])
    assert list(map(lengths.__getitem__, ["a", "bb", "a", "ccc", "bb"])) == [1, 2, 1, 3, 2]
    assert asked == ["a", "bb", "ccc"] and len(lengths) == 3
    assert (lengths["dddd"], dict(lengths), lengths["a"]) == (4, {"dddd": 4}, 1)
    assert asked == ["a", "bb", "ccc", "dddd", "a"] and len(lengths) == 2
