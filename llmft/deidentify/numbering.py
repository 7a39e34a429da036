"""Which placeholder stands for whom: one index for one person or value within the call, so that co-reference survives."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterable

from llmft.deidentify.numbers import digits_in
from llmft.deidentify.roster import canonical
from llmft.deidentify.span import Roster
from llmft.deidentify.words import fold

PEOPLE = frozenset(("NOM", "PRENOM", "MEDECIN"))
_NO_INDEX = frozenset(("AGE90+",))  # a fact, not somebody
_PLACEHOLDER = re.compile(r"\[([A-Z][A-Z_0-9+]*?)(?:_(\d+))?\]")


class Numbering:
    """The indices that one call has given out; the people and values behind them stay in this object."""

    def __init__(self, texts: Iterable[str]) -> None:
        """Indices go on after those of the placeholders that ``texts`` already hold."""
        self._last: Counter[str] = Counter()
        for text in texts:
            if "[" in text:
                for label, index in _PLACEHOLDER.findall(text):
                    self._last[label] = max(self._last[label], int(index[:6] or 0))
        self._seen: dict[str, list[tuple[frozenset[str], int]]] = {}

    def placeholder(self, said: str, label: str, roster: Roster) -> str:
        """What stands for ``said``: the placeholder of the same person or value, or the next one."""
        if label in _NO_INDEX:
            return f"[{label}]"
        key = _key(said, label, roster)
        index = self._index(key, label)
        if not index:
            self._last[label] += 1
            index = self._last[label]
            self._seen.setdefault(label, []).append((key, index))
        return f"[{label}_{index}]"

    def label_of(self, said: str, label: str, roster: Roster) -> str:
        """The label under which the call knows what ``said`` names; ``label`` when it does not know it."""
        if label in self._seen and self._index(_key(said, label, roster), label):
            return label
        alike = (other for other in self._seen if (other in PEOPLE) == (label in PEOPLE))
        return next((other for other in alike if self._index(_key(said, other, roster), other)), label)

    def _index(self, key: frozenset[str], label: str) -> int:
        known = self._seen.get(label, ())
        return next((index for words, index in known if words <= key or key <= words), 0)


def _key(said: str, label: str, roster: Roster) -> frozenset[str]:
    return canonical(said, roster) if label in PEOPLE else frozenset((_value(said, label),))


def _value(said: str, label: str) -> str:
    """What makes two ways of writing one value equal."""
    if label == "TEL" and (digits := "".join(read for _, _, read in digits_in(said))):
        return digits[-9:]
    return "".join(letter for letter in fold(said) if letter.isalnum())
