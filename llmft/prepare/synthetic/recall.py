"""How much of known personal data a de-identifier covers, and what it takes away for nothing.

A piece counts as found when all its letters and digits are covered, whatever the label: what a
leak depends on. Utterances without personal data must come out byte for byte.
"""

from __future__ import annotations

import random
import re
from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field
from functools import lru_cache
from pathlib import Path

from llmft.deidentify.span import Roster, Span
from llmft.deidentify.stage import deidentify
from llmft.errors import DialogueError
from llmft.knowledge import Lang
from llmft.prepare.synthetic.plant import plant
from llmft.prepare.synthetic.synthesize import synthesize

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
        kept = _kept(len(sample.text), answer.spans)
        found = [span for span in sample.spans if not leaked(sample.text, span, kept)]
        result.total.update(span.label for span in sample.spans)
        result.found.update(span.label for span in found)
        result.replaced += len(answer.spans)
        result.useful += sum(any(s.start < g.end and g.start < s.end for g in sample.spans) for s in answer.spans)
        if sample.spans:
            result.whole.append(len(found) == len(sample.spans))
        else:
            result.clean.append(answer.text == sample.text)
        if not (result.whole if sample.spans else result.clean)[-1]:
            result.missed.append(sample.id)
    return result


@lru_cache
def planted_recall(layers: tuple[str, ...], calls: int = 100, seed: int = 7) -> dict[str, dict[str, int]]:
    """Label ─▶ how many planted pieces there were and how many the de-identifier covered, on ``calls`` synthetic calls.

    The layers of our own are measured; an external recogniser is not called.
    """
    layers = tuple(layer for layer in layers if layer != "external")
    planted: Counter[str] = Counter()
    found: Counter[str] = Counter()
    for dialogue in synthesize(calls, seed):
        known = plant(dialogue, random.Random(dialogue.id))
        done = deidentify(known.texts, dialogue.lang, known.roster, layers)
        for text, spans, covered in zip(known.texts, known.spans, done.spans, strict=True):
            kept = _kept(len(text), covered)
            for span in spans:
                planted[span.label] += 1
                found[span.label] += not leaked(text, span, kept)
    return {label: {"planted": count, "found": found[label]} for label, count in sorted(planted.items())}


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
