"""Personal data out of the texts of one call: the one function that prepare and the service call.

Layers look at all texts of the call together; of stretches that overlap, the earlier layer's stays.
Each person, number or place gets one index within the call, from 1, always written ("[NOM_1]"), so
that co-reference survives. Which words a placeholder stands for is neither returned nor written.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace

from llmft.deidentify import addresses, contacts, dates, identifiers
from llmft.deidentify.context import find_context
from llmft.deidentify.cues import cues
from llmft.deidentify.external import Recogniser, find_external
from llmft.deidentify.lexicon import find_unknown
from llmft.deidentify.names import find_names
from llmft.deidentify.numbers import digits_in
from llmft.deidentify.roster import canonical, find_roster
from llmft.deidentify.span import Roster, Span, without_overlaps
from llmft.deidentify.words import BREAK, Words, fold, read, words_of
from llmft.errors import LlmftError

__all__ = ["ALL_LAYERS", "LAYERS", "Deidentified", "Recogniser", "deidentify", "residual"]

LAYERS = ("roster", "identifiers", "contacts", "dates", "addresses", "context", "names")
ALL_LAYERS = (*LAYERS, "lexicon", "external")  # external runs when a recogniser is given

_PEOPLE = frozenset(("NOM", "PRENOM", "MEDECIN"))
_MECHANICAL = frozenset(("identifiers", "contacts", "dates", "addresses"))
_NO_INDEX = frozenset(("AGE90+",))  # a fact, not somebody
_SPELLED = re.compile(r"[^\W\d_][\W_]")  # how a spelled name begins: one letter
_PLACEHOLDER = re.compile(r"\[([A-Z][A-Z_0-9+]*?)(?:_(\d+))?\]")


@dataclass(frozen=True)
class Deidentified:
    """The texts with placeholders, and what was replaced where, without the words."""

    texts: tuple[str, ...]
    spans: tuple[tuple[Span, ...], ...]  # one tuple a text, in the characters of the original text
    placeholders: tuple[tuple[str, ...], ...]  # what stands for each of the spans
    counts: dict[str, int]  # label ─▶ mentions
    layers: dict[str, int]  # layer ─▶ mentions

    def moved(self, number: int, start: int, end: int) -> tuple[int, int] | None:
        """Where characters ``start`` to ``end`` of text ``number`` are now; None when some of them were replaced."""
        shift = 0
        for span, placeholder in zip(self.spans[number], self.placeholders[number], strict=True):
            if span.start < end and start < span.end:
                return None
            if span.end <= start:
                shift += len(placeholder) - (span.end - span.start)
        return start + shift, end + shift


def deidentify(
    texts: Sequence[str],
    lang: str,
    roster: Roster = Roster(),  # noqa: B008  frozen
    layers: Sequence[str] = LAYERS,
    external: Recogniser | None = None,
) -> Deidentified:
    """The ``texts`` of one call in ``lang`` without what names a person; raises :class:`LlmftError` for an unknown layer."""
    _check(layers, external)
    words = read(texts)
    if not words.text:
        return Deidentified(tuple(texts), ((),) * len(texts), ((),) * len(texts), {}, {})
    found = [
        span for layer in ALL_LAYERS if layer in layers and layer != "external" for span in _find(layer, words, lang, roster)
    ]
    if external is not None:
        found += find_external(texts, words.offsets, lang, external)
    spans = _settled(found, words)
    return _replaced(texts, words, spans, _named(texts, words, spans, roster))


def _check(layers: Sequence[str], external: Recogniser | None) -> None:
    unknown = [layer for layer in layers if layer not in ALL_LAYERS]
    if unknown:
        raise LlmftError(f"{unknown[0]!r} is no layer of de-identification; choose from {', '.join(ALL_LAYERS)}")
    if "external" in layers and external is None:
        raise LlmftError("the layer 'external' needs a recogniser; give one, or leave the layer out")


def _find(layer: str, words: Words, lang: str, roster: Roster) -> list[Span]:
    """What one layer finds, in the characters of the joined texts."""
    match layer:
        case "roster":
            return find_roster(words, roster)
        case "identifiers":
            return identifiers.find(words.text, lang)
        case "contacts":
            return contacts.find(words.text, lang)
        case "dates":
            return dates.find(words.text, lang)
        case "addresses":
            return addresses.find(words.text, lang)
        case "context":
            return find_context(words)
        case "names":
            return find_names(words)
    return find_unknown(words)


def _settled(found: list[Span], words: Words) -> list[Span]:
    """No overlaps, nothing across two texts, no scraps."""
    wide = [span for span in found if span.layer in _MECHANICAL or _SPELLED.match(words.text, span.start, span.end)]
    whole = [span for span in found if span in wide or not any(_inside(span, other) for other in wide)]
    given = set(whole)
    spans: list[Span] = []
    scrap: Span | None = None  # what an earlier layer left of a name: the "da" of "da Silva"
    for span in without_overlaps(whole):
        if span not in given and not _says_something(words.text[span.start : span.end]):
            scrap = span if span.label in _PEOPLE else None
            continue
        if scrap and span.label in _PEOPLE and _is_particle(words.text[scrap.start : span.start]):
            span = replace(span, start=scrap.start)
        scrap = None
        spans += _within_texts(span if span in given else _trimmed(span, words.text), words)
    return spans


def _inside(span: Span, other: Span) -> bool:
    """Whether ``other`` holds more than ``span``: a surname within an e-mail address is part of the address."""
    return other.start <= span.start and span.end <= other.end and other.end - other.start > span.end - span.start


def _says_something(rest: str) -> bool:
    """Whether what an earlier layer left of a span is more than a particle or a comma."""
    return any(len(word) > 1 and word not in cues().particles for word in words_of(rest)) or any(map(str.isdigit, rest))


def _trimmed(span: Span, text: str) -> Span:
    """A part of a span without the hyphen or space that parted it from the rest."""
    start, end = span.start, span.end
    while start < end - 1 and not text[start].isalnum():
        start += 1
    while start < end - 1 and not text[end - 1].isalnum():
        end -= 1
    return replace(span, start=start, end=end)


def _is_particle(text: str) -> bool:
    return text[:1].isalpha() and not cues().particles.isdisjoint(words_of(text))


def _within_texts(span: Span, words: Words) -> list[Span]:
    if BREAK not in words.text[span.start : span.end]:
        return [span]
    parts: list[Span] = []
    start = span.start
    for piece in words.text[span.start : span.end].split(BREAK):
        if piece.strip():
            parts.append(Span(start, start + len(piece), span.label, span.layer))
        start += len(piece) + len(BREAK)
    return parts


def _named(texts: Sequence[str], words: Words, spans: list[Span], roster: Roster) -> list[str]:
    """The placeholder of each span: one index for one person or value, after those that the texts already hold."""
    last: Counter[str] = Counter()
    for text in texts:
        if "[" in text:
            for label, index in _PLACEHOLDER.findall(text):
                last[label] = max(last[label], int(index[:6] or 0))
    seen: dict[str, list[tuple[frozenset[str], int]]] = {}
    named: list[str] = []
    for span in spans:
        if span.label in _NO_INDEX:
            named.append(f"[{span.label}]")
            continue
        said = words.text[span.start : span.end]
        key = canonical(said, roster) if span.label in _PEOPLE else frozenset((_value(said, span.label),))
        known = seen.setdefault(span.label, [])
        index = next((index for words_of_it, index in known if words_of_it <= key or key <= words_of_it), 0)
        if not index:
            last[span.label] += 1
            index = last[span.label]
            known.append((key, index))
        named.append(f"[{span.label}_{index}]")
    return named


def _value(said: str, label: str) -> str:
    """What makes two ways of writing one value equal."""
    if label == "TEL" and (digits := "".join(read for _, _, read in digits_in(said))):
        return digits[-9:]
    return "".join(letter for letter in fold(said) if letter.isalnum())


def _replaced(texts: Sequence[str], words: Words, spans: list[Span], named: list[str]) -> Deidentified:
    outputs: list[str] = []
    own: list[tuple[Span, ...]] = []
    stands: list[tuple[str, ...]] = []
    by_text: list[list[tuple[Span, str]]] = [[] for _ in texts]
    for span, placeholder in zip(spans, named, strict=True):
        by_text[words.text_number(span.start)].append((span, placeholder))
    for text, offset, parts in zip(texts, words.offsets, by_text, strict=True):
        pieces, done, moved = [], 0, []
        for span, placeholder in parts:
            start, end = span.start - offset, span.end - offset
            pieces += [text[done:start], placeholder]
            moved.append(Span(start, end, span.label, span.layer))
            done = end
        outputs.append("".join((*pieces, text[done:])))
        own.append(tuple(moved))
        stands.append(tuple(placeholder for _, placeholder in parts))
    counts, layers = Counter(span.label for span in spans), Counter(span.layer for span in spans)
    return Deidentified(tuple(outputs), tuple(own), tuple(stands), dict(sorted(counts.items())), _in_order(layers))


def _in_order(layers: Counter[str]) -> dict[str, int]:
    return {layer: layers[layer] for layer in ALL_LAYERS if layers[layer]}


def residual(texts: Iterable[str], roster: Roster) -> list[tuple[int, str]]:
    """Texts that still hold something certain: their number, and "roster" or "identifier"."""
    words = read(list(texts))
    left = [(span, "roster") for span in find_roster(words, roster)]
    left += [(span, "identifier") for span in identifiers.checksummed(words.text)]
    return sorted({(words.text_number(span.start), reason) for span, reason in left})
