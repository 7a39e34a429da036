"""The texts of one call read once into words, so that every layer looks words up instead of running patterns.

All texts are joined with a mark between them: a layer sees a question and its answer, and a place in
the joined text is a place in one of the texts.
"""

from __future__ import annotations

import re
import unicodedata
from bisect import bisect_right
from collections.abc import Sequence
from dataclasses import dataclass, field
from itertools import accumulate
from string import ascii_lowercase

from llmft.deidentify.span import Span
from llmft.deidentify.tokens import lowered, tokens
from llmft.remembered import Remembered

BREAK = "\n¶\n"  # between two texts; the new lines end what patterns of other layers read
_BREAK_MARK = "¶"
_MASK = "¤"  # each character of a placeholder that stood there already

# Plain letters for accented ones, one for one, so that places stay. Replacing the usual ones in turn is
# fifty times faster than str.translate.
_ACCENTS = tuple(zip("éèêëàâäîïôöùûüçñœæ", "eeeeaaaiioouuucnoa", strict=True))
_OTHER_ACCENTS = re.compile("[\u00aa-\u00b3\u00b5\u00b7-\u024f\u1e00-\u1eff]")
_WORD = re.compile("[a-z\u00df-\u1fff\u2c00-\ud7ff]+")  # explicit ranges: ten times faster than [^\\W\\d_]
_WRITTEN = re.compile(r"[^\W\d_]+")
_PLACEHOLDER = re.compile(r"\[[A-Z][A-Z_0-9+]+\]")
_LETTERS = frozenset(ascii_lowercase)
_SOFT = frozenset((" ", "-", "'", " - ", "  "))
_STOP = re.compile(r"[.!?:;…«\"“(\n\r¶—–]")


def fold(text: str) -> str:
    """Lower case without accents, letter for letter: the result is as long as ``text``."""
    return _without_accents(lowered(text))


def _without_accents(lower: str) -> str:
    if lower.isascii():
        return lower
    for accented, plain in _ACCENTS:
        lower = lower.replace(accented, plain)
    return _OTHER_ACCENTS.sub(_plain_letter, lower)


def _plain_letter(match: re.Match[str]) -> str:
    first = unicodedata.normalize("NFKD", match[0])[0]
    return first if first.isalpha() else match[0]


_FOLDED = Remembered(_without_accents)  # lower-case word ─▶ without accents


def words_of(text: str) -> list[str]:
    """The folded words of ``text``."""
    return _WORD.findall(fold(text))


@dataclass(frozen=True, eq=False)  # two are one only when they are the same object: what was found in one is kept for it
class Words:
    """A call's texts as folded words, with what stands between them."""

    text: str  # the texts joined, placeholders that stood there already masked
    offsets: tuple[int, ...]  # where each text begins in ``text``
    words: list[str]
    gaps: list[str]  # gaps[i] stands before words[i]; one more stands at the end
    starts: list[int]  # of each word in ``text``
    unique: frozenset[str]  # the words, each once
    letters: list[int]  # which words have one letter
    _cased: dict[int, bool] = field(default_factory=dict)

    def end(self, i: int) -> int:
        """Where word ``i`` ends in the joined text."""
        return self.starts[i] + len(self.words[i])

    def span(self, first: int, last: int, label: str, layer: str) -> Span:
        """The stretch from word ``first`` to word ``last``, both within."""
        return Span(self.starts[first], self.end(last), label, layer)

    def original(self, i: int) -> str:
        """Word ``i`` as it was written."""
        return self.text[self.starts[i] : self.end(i)]

    def soft(self, i: int) -> bool:
        """Whether word ``i`` follows its neighbour with only a space, hyphen or apostrophe between."""
        return 0 < i < len(self.words) and self.gaps[i] in _SOFT

    def near(self, i: int) -> bool:
        """Like ``soft``, and a comma may stand between."""
        return 0 < i < len(self.words) and self.gaps[i].replace(",", " ").strip(" -'") == ""

    def opens(self, i: int) -> bool:
        """Whether a sentence begins with word ``i``, so that its capital proves nothing."""
        return i == 0 or _STOP.search(self.gaps[i]) is not None

    def new_text(self, i: int) -> bool:
        """Whether word ``i`` is the first of its text."""
        return i == 0 or _BREAK_MARK in self.gaps[i]

    def after_placeholder(self, i: int) -> bool:
        """Whether a placeholder opens the text of word ``i``, or was all that a text before it says."""
        return _MASK in self.gaps[i].partition(_BREAK_MARK)[2]

    def text_number(self, place: int) -> int:
        """The number of the text that holds character ``place``."""
        return bisect_right(self.offsets, place) - 1

    def capital(self, i: int) -> bool:
        """Whether word ``i`` begins with a capital letter that says something: its text is neither lower nor upper case."""
        return self.text[self.starts[i]].isupper() and self.cased(i)

    def cased(self, i: int) -> bool:
        """Whether the text around word ``i`` is written with small and capital letters."""
        number = self.text_number(self.starts[i])
        known = self._cased.get(number)
        if known is None:
            end = self.offsets[number + 1] if number + 1 < len(self.offsets) else len(self.text)
            known = self._cased[number] = _is_cased(self.text[self.offsets[number] : end])
        return known


def _is_cased(text: str) -> bool:
    """Not all small, not all capitals, and not Every Word With A Capital."""
    written = [word for word in _WRITTEN.findall(text) if word != "I"]
    capitals = len([word for word in written if word[0].isupper()])
    if capitals == 0 or text.isupper():
        return False
    return len(written) < 5 or capitals < 0.7 * len(written)


def read(texts: Sequence[str]) -> Words:
    """The ``texts`` of a call as :class:`Words`."""
    joined = BREAK.join(texts)
    if "[" in joined:
        joined = _PLACEHOLDER.sub(lambda match: _MASK * len(match[0]), joined)
    offsets = tuple(accumulate((len(text) + len(BREAK) for text in texts[:-1]), initial=0))
    said = tokens(joined)
    words = list(said.words if joined.isascii() else map(_FOLDED.__getitem__, said.words))
    gaps, starts = said.gaps, said.starts
    if said.numbers:
        gaps, starts = gaps.copy(), starts.copy()
    for k in reversed(said.numbers):  # a number stands between words
        gaps[k : k + 2] = [gaps[k] + words[k] + gaps[k + 1]]
        del words[k], starts[k]
    unique = frozenset(words)
    single = _LETTERS & unique
    letters = [i for i, word in enumerate(words) if word in single] if single else []
    return Words(joined, offsets, words, gaps, starts, unique, letters)
