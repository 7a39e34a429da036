"""What happens to rows, counted one by one in any number of processes and added up at the end.

One counter holds everything, so that merging is addition and the order of the workers leaves no trace.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterable, Mapping
from typing import Any, Literal, NamedTuple, get_args

from llmft.dialogue import Fault, Split, read_triage

SPLITS: tuple[str, ...] = get_args(Split)
WORDS_BIN, CHARACTERS_BIN, TOKENS_BIN = 10, 50, 10  # the width of a bar in the histogram
# Of 190 of the bundled calls the tokenizers of Llama 3, Qwen 2, Phi-3 and GPT-J make 1 token of 2.3 to 4.0 characters:
# French is the denser one, and GPT-J's is densest. Markup is about 5 tokens a turn.
CHARACTERS_A_TOKEN, TOKENS_A_TURN = 3, 5
UNKNOWN, NONE = "unlabelled", "none"

Key = tuple[str | int, ...]
Pairs = tuple[tuple[int, int], ...]


class Facts(NamedTuple):
    """What the report needs of one dialogue; nothing that was said."""

    lang: str
    source: str
    license: str
    consent: str
    specialty: str
    urgency: str
    confidence: str
    turns: int
    words: int
    characters: int
    has_triage: bool
    deidentified: bool
    placeholders: tuple[tuple[str, int], ...]
    layers: tuple[tuple[str, int], ...]
    rated_twice: tuple[tuple[str, str, str], ...] = ()  # field, what one annotator says, what another one says
    dropped: tuple[tuple[str, int], ...] = ()  # kind ─▶ turns of the source that are not in the dialogue

    @property
    def estimated_tokens(self) -> int:
        """What a model may read of it, without a tokenizer to tell."""
        return self.characters // CHARACTERS_A_TOKEN + TOKENS_A_TURN * self.turns


def facts(
    record: Mapping[str, Any], *, has_triage: bool | None = None, rated_twice: tuple[tuple[str, str, str], ...] = (),
    dropped: tuple[tuple[str, int], ...] = (),
) -> Facts:  # fmt: skip
    """The facts of a dialogue as JSON has it (``as_line``); pass ``has_triage`` where it is known already, which is fast."""
    labels, deid = record.get("labels") or {}, record.get("deid") or {}
    texts = [turn["text"] for turn in record["turns"]]
    return Facts(
        lang=record["lang"],
        source=record.get("source", "real"),
        license=record.get("license") or NONE,
        consent=_basis(record.get("consent")),
        specialty=labels.get("specialty", UNKNOWN),
        urgency=labels.get("urgency", UNKNOWN),
        confidence=labels.get("confidence", "generated") if labels else UNKNOWN,
        turns=len(texts),
        words=" ".join(texts).count(" ") + 1,  # texts have single spaces by now
        characters=sum(map(len, texts)),
        has_triage=read_triage(texts[-1]) is not None if has_triage is None else has_triage,
        deidentified=deid.get("status") == "done",
        placeholders=tuple(deid.get("counts", {}).items()),
        layers=tuple(deid.get("layers", {}).items()),
        rated_twice=rated_twice,
        dropped=dropped,
    )


def _basis(consent: Mapping[str, str] | None) -> str:
    """Lawful basis, purpose and end on one line."""
    if not consent:
        return NONE
    end = f", until {consent['expires']}" if consent.get("expires") else ""
    return f"{consent.get('basis', '?')}, {consent.get('purpose', '?')}{end}"


class Counts:
    """What happened to rows: (what, …) ─▶ how often."""

    def __init__(self, counter: Mapping[Key, int] | None = None) -> None:
        """Start from nothing, or from an earlier count."""
        self.counter: Counter[Key] = Counter(counter or {})

    def read(self, file: str, rows: int = 1) -> None:
        """``rows`` of ``file`` came in, good or bad."""
        self.counter["rows", "in"] += rows
        self.counter["file", file, "rows"] += rows

    def quarantine(self, fault: Fault) -> None:
        """A row is no dialogue."""
        self.counter["rows", "quarantined"] += 1
        self.counter["file", fault.file, "quarantined"] += 1
        self.counter["quarantine", _kind(fault.field, fault.reason)] += 1

    def refuse(self, reason: str) -> None:
        """A good row that may not be used: erased, another language, personal data left over, …"""
        self.counter["rows", "refused"] += 1
        self.counter["refusal", _kind("", reason)] += 1

    def duplicate(self, kind: Literal["exact", "near"], *, across: bool = False) -> None:
        """A row says what an earlier one says; ``across``: they would have stood in different splits."""
        self.counter["rows", "duplicates"] += 1
        self.counter["duplicate", f"{kind}, {'across' if across else 'within'} splits"] += 1

    def keep(self, row: Facts, split: str) -> None:
        """A row goes out."""
        count = self.counter
        count["rows", "out"] += 1
        for name in ("lang", "source", "license", "consent", "specialty", "urgency", "confidence"):
            count[name, split, getattr(row, name)] += 1
        count["split", split] += 1
        count["turns", row.turns] += 1
        count["words", row.words // WORDS_BIN * WORDS_BIN] += 1
        count["characters", row.characters // CHARACTERS_BIN * CHARACTERS_BIN] += 1
        count["tokens", row.estimated_tokens // TOKENS_BIN * TOKENS_BIN] += 1
        count["without triage", split] += not row.has_triage
        count["deidentified", "done" if row.deidentified else "not done"] += 1
        for label, number in row.placeholders:
            count["placeholder", label] += number
        for layer, number in row.layers:
            count["layer", layer] += number
        for kind, number in row.dropped:
            count["turns dropped", kind] += number

    def rate(self, row: Facts) -> None:
        """Two annotators have labelled a row, be it kept or refused for what they differ in."""
        for name, first, second in row.rated_twice:
            self.counter["rated twice", name, first, second] += 1

    def warn(self, warning: Fault) -> None:
        """A row goes out although something in it does not fit."""
        self.counter["warning", _kind(warning.field, warning.reason)] += 1

    def merge(self, other: Counts) -> None:
        """Add what another worker counted."""
        self.counter.update(other.counter)

    def as_json(self) -> list[list[str | int]]:
        """The same counts as JSON, sorted."""
        return [[*key, n] for key, n in sorted(self.counter.items(), key=lambda item: tuple(map(str, item[0]))) if n]

    @classmethod
    def from_json(cls, rows: Iterable[list[Any]]) -> Counts:
        """What :meth:`as_json` wrote."""
        return cls({tuple(key): number for *key, number in rows})

    def total(self, *key: str | int) -> int:
        """One count."""
        return self.counter[key]

    def of(self, *prefix: str) -> dict[str, int]:
        """Last part of the key ─▶ count, for the keys that begin with ``prefix``; sorted."""
        size = len(prefix)
        found = {str(key[-1]): n for key, n in self.counter.items() if key[:size] == prefix and len(key) == size + 1 and n}
        return dict(sorted(found.items()))

    def pairs(self) -> dict[str, dict[tuple[str, str], int]]:
        """Field ─▶ what two annotators say ─▶ rows."""
        found: dict[str, dict[tuple[str, str], int]] = {}
        for key, n in sorted(self.counter.items(), key=lambda item: tuple(map(str, item[0]))):
            if key[0] == "rated twice":
                found.setdefault(str(key[1]), {})[str(key[2]), str(key[3])] = n
        return found

    def histogram(self, name: str) -> Pairs:
        """(lower edge, rows) in order."""
        return tuple(sorted((int(key[1]), n) for key, n in self.counter.items() if key[0] == name))


# What differs from row to row for one reason: a place, a count, a code; never the numbers of an advice.
_VARYING = re.compile(r"(?<=^turns\[)\d+|(?<=\bcolumn )\d+|(?<=\bturn )\d+|(?<=\bline )\d+|(?<=\brow has )\d+|(?<=\bheader )\d+")
_CODE = re.compile(r"^\S+ is not a code")


def _kind(field: str, reason: str) -> str:
    """One line for faults that differ in their place alone, such as a turn or a column."""
    kind = _CODE.sub("a code is not a code", _VARYING.sub("N", reason))
    place = re.sub(r"(?<=[.\[])\d+\b", "N", field)  # of turns[3].text, and not of labels.icd10
    return f"{place}: {kind}" if place else kind
