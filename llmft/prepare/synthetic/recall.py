"""How much of known personal data a de-identifier covers, and what it takes away for nothing.

A piece counts as found when all its letters and digits are covered, whatever the label: what a
leak depends on. Utterances without personal data must come out byte for byte.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from llmft.deidentify.span import Roster, Span
from llmft.errors import DialogueError
from llmft.knowledge import Lang

GROUPS = {
    "names": frozenset({"NOM", "PRENOM", "MEDECIN"}),
    "checksums": frozenset({"NIR", "RPPS", "FINESS", "IBAN", "CARTE"}),
    "contacts": frozenset({"TEL", "EMAIL"}),
}
MARK = re.compile(r"\[\[([A-Z_]+(?:90\+)?):(.*?)\]\]")


@dataclass(frozen=True)
class Sample:
    """An utterance whose personal data is known."""

    id: str
    lang: Lang
    kind: str  # names, identifiers, contacts, dates, addresses, none, planted
    text: str
    spans: tuple[Span, ...]
    roster: Roster


@dataclass(frozen=True)
class Answer:
    """What a de-identifier made of an utterance: its new text, and the characters of the old one that it replaced."""

    text: str
    spans: Sequence[Span]


@dataclass
class Count:
    """Pieces and utterances, found and in all."""

    found: Counter[str] = field(default_factory=Counter)  # by label
    total: Counter[str] = field(default_factory=Counter)
    whole: list[bool] = field(default_factory=list)  # utterances with personal data: all of it covered
    clean: list[bool] = field(default_factory=list)  # utterances without: unchanged
    useful: int = 0  # replaced stretches that touch personal data
    replaced: int = 0
    missed: list[str] = field(default_factory=list)  # ids

    def add(self, name: str, text: str, known: Sequence[Span], covered: Sequence[Span], *, unchanged: bool) -> None:
        """One utterance: the personal data that it holds, and the characters that were replaced."""
        kept = _kept(len(text), covered)
        found = [span for span in known if not leaked(text, span, kept)]
        self.total.update(span.label for span in known)
        self.found.update(span.label for span in found)
        self.replaced += len(covered)
        self.useful += sum(any(s.start < g.end and g.start < s.end for g in known) for s in covered)
        results, good = (self.whole, len(found) == len(known)) if known else (self.clean, unchanged)
        results.append(good)
        if not good:
            self.missed.append(name)

    def recall(self, labels: Iterable[str] | None = None) -> float:
        """Share of the pieces with these labels (all of them by default) that were found."""
        wanted = set(self.total if labels is None else labels)
        return _share(sum(self.found[label] for label in wanted), sum(self.total[label] for label in wanted))

    @property
    def precision(self) -> float:
        """Share of the replaced stretches that touch personal data."""
        return _share(self.useful, self.replaced)

    @property
    def whole_share(self) -> float:
        """Share of the utterances with personal data of which nothing is left."""
        return _share(sum(self.whole), len(self.whole))

    @property
    def clean_share(self) -> float:
        """Share of the utterances without personal data that are unchanged."""
        return _share(sum(self.clean), len(self.clean))


def _share(part: int, whole: int) -> float:
    return part / whole if whole else float("nan")


def count(samples: Iterable[Sample], clean: Callable[[Sample], Answer]) -> Count:
    """Run ``clean`` over the samples and compare with what is known."""
    result = Count()
    for sample in samples:
        answer = clean(sample)
        result.add(sample.id, sample.text, sample.spans, answer.spans, unchanged=answer.text == sample.text)
    return result


def _kept(length: int, spans: Iterable[Span]) -> list[bool]:
    """For each character, whether it is left in the text."""
    kept = [True] * length
    for span in spans:
        kept[span.start : span.end] = [False] * (span.end - span.start)
    return kept


def leaked(text: str, span: Span, kept: Sequence[bool]) -> bool:
    """Whether a letter or digit of ``span`` is left."""
    return any(kept[place] and text[place].isalnum() for place in range(span.start, span.end))


def parse_marked(marked: str) -> tuple[str, tuple[Span, ...]]:
    """Text and spans of words with ``[[LABEL:personal data]]`` in them."""
    text, spans, end = "", [], 0
    for mark in MARK.finditer(marked):
        text += marked[end : mark.start()]
        spans.append(Span(len(text), len(text) + len(mark.group(2)), mark.group(1), "marked"))
        text += mark.group(2)
        end = mark.end()
    return text + marked[end:], tuple(spans)


def read_marked(path: Path) -> list[Sample]:
    """The utterances of a marked file; its head says how it is written."""
    samples: list[Sample] = []
    lang: Lang = "fr"
    roster = Roster()
    for number, line in enumerate(path.read_text("utf-8").splitlines(), start=1):
        if not line or line.startswith("#"):
            continue
        if line.startswith("@"):
            lang, roster = _read_call(path, number, line)
            continue
        kind, _, words = line.partition(": ")
        text, spans = parse_marked(words)
        if "[[" in text or "]]" in text or bool(spans) == (kind == "none"):
            raise DialogueError(f"{path.name}:{number}: marks and kind disagree; mark personal data as [[LABEL:…]]")
        samples.append(Sample(f"{lang}-{number:03d}", lang, kind, text, spans, roster))
    return samples


def _read_call(path: Path, number: int, line: str) -> tuple[Lang, Roster]:
    """Language and roster of a line such as ``@ fr patient=A B; relatives=C D / E F``."""
    _, lang, *rest = line.split(" ", 2)
    fields = dict(part.strip().split("=", 1) for part in (rest[0] if rest else "").split(";") if part.strip())
    if lang not in ("fr", "en") or not fields.keys() <= Roster.__dataclass_fields__.keys():
        raise DialogueError(f"{path.name}:{number}: not a call; write '@ fr' or '@ en', then fields of the roster")
    return ("fr" if lang == "fr" else "en"), Roster(
        **{key: tuple(v.strip() for v in value.split(" / ")) for key, value in fields.items()}
    )
