"""Personal data out of the texts of one call: the one function that prepare and the service call.

Layers look at all texts of the call together; of stretches that overlap, the earlier layer's stays.
Each person, number or place gets one index within the call, from 1, always written ("[NOM_1]"), so
that co-reference survives. Which words a placeholder stands for is neither returned nor written.

What stands beside a call (a summary, a known illness) answers no question of it, so such notes are read one by
one, with the people that the texts gave away.
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
from llmft.deidentify.heard import heard
from llmft.deidentify.lexicon import find_unknown
from llmft.deidentify.names import find_names
from llmft.deidentify.numbering import PEOPLE, Numbering
from llmft.deidentify.roster import find_roster
from llmft.deidentify.span import Roster, Span, without_overlaps
from llmft.deidentify.words import BREAK, Words, read, words_of
from llmft.errors import LlmftError

__all__ = ["ALL_LAYERS", "LAYERS", "Deidentified", "Recogniser", "deidentify", "residual"]

LAYERS = ("roster", "identifiers", "contacts", "dates", "addresses", "context", "names")
ALL_LAYERS = (*LAYERS, "lexicon", "external")  # external runs when a recogniser is given

_MECHANICAL = frozenset(("identifiers", "contacts", "dates", "addresses"))
_SPELLED = re.compile(r"[^\W\d_][\W_]")  # how a spelled name begins: one letter


@dataclass(frozen=True)
class Deidentified:
    """The texts with placeholders, and what was replaced where, without the words."""

    texts: tuple[str, ...]
    spans: tuple[tuple[Span, ...], ...]  # one tuple a text, in the characters of the original text
    placeholders: tuple[tuple[str, ...], ...]  # what stands for each of the spans
    counts: dict[str, int]  # label ─▶ mentions
    layers: dict[str, int]  # layer ─▶ mentions
    notes: tuple[str, ...] = ()  # what stands beside the texts, with placeholders; counted with them

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
    notes: Sequence[str] = (),
) -> Deidentified:
    """The ``texts`` of one call in ``lang``, and the ``notes`` beside them, without what names a person.

    Raises :class:`LlmftError` for an unknown layer.
    """
    _check(layers, external)
    numbering = Numbering((*texts, *notes))
    words = read(texts)
    spans = _spans(texts, words, lang, roster, layers, external)
    done = _replaced(texts, words, spans, [_placeholder(span, words, numbering, roster) for span in spans])
    if not notes:
        return done
    known = heard(words.text, spans, roster) if "roster" in layers else roster
    beside = [_note(note, lang, known, layers, external, numbering) for note in notes]
    return replace(
        done,
        notes=tuple(note.texts[0] for note in beside),
        counts=dict(sorted(sum((Counter(note.counts) for note in beside), Counter(done.counts)).items())),
        layers=_in_order(sum((Counter(note.layers) for note in beside), Counter(done.layers))),
    )


def _note(
    text: str, lang: str, known: Roster, layers: Sequence[str], external: Recogniser | None, numbering: Numbering
) -> Deidentified:
    """One note, in which whoever the texts know keeps the placeholder that they have there."""
    words = read((text,))
    spans = [
        span._replace(label=numbering.label_of(words.text[span.start : span.end], span.label, known))
        for span in _spans((text,), words, lang, known, layers, external)
    ]
    return _replaced((text,), words, spans, [_placeholder(span, words, numbering, known) for span in spans])


def _placeholder(span: Span, words: Words, numbering: Numbering, roster: Roster) -> str:
    return numbering.placeholder(words.text[span.start : span.end], span.label, roster)


def _spans(
    texts: Sequence[str], words: Words, lang: str, roster: Roster, layers: Sequence[str], external: Recogniser | None
) -> list[Span]:
    """What the layers find together, in the characters of the joined texts."""
    if not words.text:
        return []
    found = [
        span for layer in ALL_LAYERS if layer in layers and layer != "external" for span in _find(layer, words, lang, roster)
    ]
    if external is not None:
        found += find_external(texts, words.offsets, lang, external)
    return _settled(found, words)


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
    if not found:
        return []
    wide = {span for span in found if span.layer in _MECHANICAL or _SPELLED.match(words.text, span.start, span.end)}
    places = {(span.start, span.end) for span in wide}
    whole = [span for span in found if span in wide or not _is_inside(span, places)]
    given = set(whole)
    spans: list[Span] = []
    scrap: Span | None = None  # what an earlier layer left of a name: the "da" of "da Silva"
    for span in without_overlaps(whole):
        if span not in given and not _says_something(words.text[span.start : span.end]):
            scrap = span if span.label in PEOPLE else None
            continue
        if scrap and span.label in PEOPLE and _is_particle(words.text[scrap.start : span.start]):
            span = span._replace(start=scrap.start)
        scrap = None
        spans += _within_texts(span if span in given else _trimmed(span, words.text), words)
    return spans


def _is_inside(span: Span, places: Iterable[tuple[int, int]]) -> bool:
    """Whether one of ``places`` holds more than ``span``: a surname within an e-mail address is part of the address."""
    first, last = span.start, span.end
    return any(start <= first and last <= end and end - start > last - first for start, end in places)


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
    return span._replace(start=start, end=end)


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


def _replaced(texts: Sequence[str], words: Words, spans: list[Span], named: list[str]) -> Deidentified:
    if not spans:
        return Deidentified(tuple(texts), ((),) * len(texts), ((),) * len(texts), {}, {})
    outputs: list[str] = []
    own: list[tuple[Span, ...]] = []
    stands: list[tuple[str, ...]] = []
    by_text: list[list[tuple[Span, str]]] = [[] for _ in texts]
    for span, placeholder in zip(spans, named, strict=True):
        by_text[words.text_number(span.start)].append((span, placeholder))
    for text, offset, parts in zip(texts, words.offsets, by_text, strict=False):  # no texts have one offset
        pieces, done, moved = [], 0, []
        for span, placeholder in parts:
            start, end = span.start - offset, span.end - offset
            pieces += [text[done:start], placeholder]
            moved.append(Span(start, end, span.label, span.layer))
            done = end
        outputs.append("".join((*pieces, text[done:])) if parts else text)
        own.append(tuple(moved))
        stands.append(tuple([placeholder for _, placeholder in parts]))
    counts, layers = Counter([span.label for span in spans]), Counter([span.layer for span in spans])
    return Deidentified(tuple(outputs), tuple(own), tuple(stands), dict(sorted(counts.items())), _in_order(layers))


def _in_order(layers: Counter[str]) -> dict[str, int]:
    return {layer: layers[layer] for layer in ALL_LAYERS if layer in layers}


def residual(texts: Sequence[str], roster: Roster, notes: Iterable[str] = ()) -> list[tuple[int, str]]:
    """Texts and notes that still hold something certain: their number, notes after texts, and "roster" or "identifier"."""
    left = _certain(texts, roster)
    for number, note in enumerate(notes, start=len(texts)):
        left |= {(number, reason) for _, reason in _certain((note,), roster)}
    return sorted(left)


def _certain(texts: Sequence[str], roster: Roster) -> set[tuple[int, str]]:
    words = read(texts)
    left = [(span, "roster") for span in find_roster(words, roster)]
    left += [(span, "identifier") for span in identifiers.checksummed(words.text)]
    return {(words.text_number(span.start), reason) for span, reason in left}
