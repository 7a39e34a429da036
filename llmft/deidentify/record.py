"""A whole record of a call without personal data: its turns, the triage block, and every free text beside them."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

from llmft.deidentify.external import Recogniser
from llmft.deidentify.identifiers import checksummed
from llmft.deidentify.notes import head_of, notes_of, rewritten
from llmft.deidentify.roster import find_roster, is_plain_id
from llmft.deidentify.span import Roster
from llmft.deidentify.stage import ALL_LAYERS, LAYERS, Deidentified, deidentify, residual
from llmft.deidentify.words import read
from llmft.dialogue import Dialogue, EvidenceMention, Patient, Turn
from llmft.vocabulary import placeholders

VERSION = "2"  # of the layers, written into a dialogue's `deid`
OLD = 90  # years; from here on an age says too much, and is written as this
LEFT = "{} hit left after de-identification; look at this row"
_TURNS_ALONE = frozenset(("1",))  # versions that left the notes as they were
_NOTE_KEYS = frozenset(("status", "version", "mode", "audited", "residual_check"))
_ID_LABELS = frozenset(("NOM", "PRENOM", "MEDECIN", "TEL", "EMAIL", "NIR", "IBAN"))  # other keys may well stand in an id


@dataclass(frozen=True)
class CleanRecord:
    """A record with placeholders, what was replaced, and what was not."""

    dialogue: Dialogue
    counts: dict[str, int]  # label ─▶ mentions
    left: tuple[tuple[str, str], ...]  # field, and "roster" or "identifier": anything here forbids the record


def deidentify_record(
    dialogue: Dialogue,
    roster: Roster = Roster(),  # noqa: B008  frozen
    layers: Sequence[str] = LAYERS,
    external: Recogniser | None = None,
) -> CleanRecord:
    """``dialogue`` with placeholders in its turns and notes, the note of it in ``deid``, and the residual check.

    Codes and ids stay. Evidence keeps its place in the words, or loses its span when they were replaced.
    """
    heads = _heads(dialogue)
    fields, notes = _notes(dialogue)
    done = deidentify(heads, dialogue.lang, roster, layers, external, notes)
    fresh = dict(zip(notes, done.notes, strict=True))
    beside = dialogue if done.notes == notes else rewritten(dialogue, lambda _, text: fresh[text])
    turns = beside.turns
    if done.counts:
        turns = tuple([_said(turn, number, heads[number], done) for number, turn in enumerate(turns)])
    patient = capped(beside.patient)
    update = {"turns": turns, "patient": patient, "deid": _note(dialogue.deid, done)}
    if done.counts or patient is not beside.patient:
        update["hash"] = None  # of words that are gone: who guesses them could prove it
    left = _left(dialogue, done.texts, fields, done.notes, roster)
    return CleanRecord(beside.model_copy(update=update), done.counts, left)


@dataclass(frozen=True)
class CleanText:
    """A text with placeholders, what was replaced, and what was not."""

    text: str
    counts: dict[str, int]  # label ─▶ mentions
    left: tuple[str, ...]  # "roster" or "identifier": anything here forbids the text


def deidentify_text(
    text: str,
    lang: str,
    roster: Roster = Roster(),  # noqa: B008  frozen
    layers: Sequence[str] = LAYERS,
    external: Recogniser | None = None,
) -> CleanText:
    """One text with placeholders; a triage block in it stays JSON, as in the turn of a record."""
    turn = Turn.model_construct(speaker="operator", text=text)
    head, notes = head_of(turn), tuple(note for _, note in notes_of(turn))
    done = deidentify((head,), lang, roster, layers, external, notes)
    fresh = dict(zip(notes, done.notes, strict=True))
    beside = rewritten(turn, lambda _, note: fresh[note]).text[len(head) :] if notes else text[len(head) :]
    left = residual(done.texts, roster, done.notes)
    return CleanText(done.texts[0] + beside, done.counts, tuple(kind for _, kind in left))


def left_over(dialogue: Dialogue, roster: Roster) -> tuple[tuple[str, str], ...]:
    """The residual check alone, of a record that was de-identified before."""
    fields, notes = _notes(dialogue)
    return _left(dialogue, _heads(dialogue), fields, notes, roster)


def _heads(dialogue: Dialogue) -> list[str]:
    """What is said in the turns, without triage blocks."""
    return [head_of(turn) if "```" in turn.text else turn.text for turn in dialogue.turns]


def _notes(dialogue: Dialogue) -> tuple[tuple[str, ...], tuple[str, ...]]:
    """The fields of the notes, and their texts."""
    notes = notes_of(dialogue)
    return tuple(field for field, _ in notes), tuple(text for _, text in notes)


def _left(
    dialogue: Dialogue, heads: Sequence[str], fields: Sequence[str], notes: Sequence[str], roster: Roster
) -> tuple[tuple[str, str], ...]:
    """What is certainly personal in heads, notes and ids: where, and "roster" or "identifier"."""
    found, size = residual(heads, roster, notes), len(heads)
    left = [(f"turns[{number}].text" if number < size else fields[number - size], kind) for number, kind in found]
    return (*left, *_in_ids(dialogue, roster))


def _in_ids(dialogue: Dialogue, roster: Roster) -> Iterator[tuple[str, str]]:
    names = [name for name in ("id", "family_id") if not is_plain_id(getattr(dialogue, name), roster)]
    if not names:
        return
    words = read([getattr(dialogue, name) for name in names])
    for kind, spans in (("roster", find_roster(words, roster)), ("identifier", checksummed(words.text))):
        for span in spans:
            if span.label in _ID_LABELS:
                yield names[words.text_number(span.start)], kind


def is_done(dialogue: Dialogue) -> bool:
    """Whether the record says that it was de-identified before, and not by a version of ours that read the turns alone."""
    note = dialogue.deid or {}
    return note.get("status") == "done" and note.get("version") not in _TURNS_ALONE


def capped(patient: Patient) -> Patient:
    """The patient with an age of at most ``OLD`` years."""
    is_old = patient.age is not None and patient.age_unit == "y" and patient.age > OLD
    return patient.model_copy(update={"age": OLD}) if is_old else patient


def known_note(deid: dict[str, Any]) -> dict[str, Any]:
    """An earlier ``deid`` without what is not ours: another tool may keep there who was replaced."""
    kept: dict[str, Any] = {}
    names = placeholders().union(ALL_LAYERS)
    for key, value in deid.items():
        if key in ("counts", "layers") and isinstance(value, dict):
            kept[key] = {name: n for name, n in value.items() if name in names and isinstance(n, int)}
        elif key in _NOTE_KEYS and isinstance(value, str | bool):
            kept[key] = value
    return kept


def _note(before: dict[str, Any] | None, done: Deidentified) -> dict[str, Any]:
    """What was replaced, earlier passes included."""
    earlier, counts, layers = {}, done.counts, done.layers
    if before and before.get("status") == "done":
        earlier = known_note(before)
        counts = dict(sorted((Counter(earlier.get("counts", {})) + Counter(counts)).items()))
        both = Counter(earlier.get("layers", {})) + Counter(layers)
        layers = {layer: both[layer] for layer in ALL_LAYERS if both[layer]}
    note = {"status": "done", "version": VERSION, "mode": "placeholder", "counts": counts, "layers": layers}
    return {**earlier, **note, "residual_check": "pass"}


def _said(turn: Turn, number: int, head: str, done: Deidentified) -> Turn:
    """The turn with the placeholders of its words; ``head`` is what it said, and what follows it is done already."""
    if done.texts[number] == head:
        return turn
    evidence = tuple(_moved(mention, number, head, done) for mention in turn.evidence)
    return turn.model_copy(update={"text": done.texts[number] + turn.text[len(head) :], "evidence": evidence})


def _moved(mention: EvidenceMention, number: int, head: str, done: Deidentified) -> EvidenceMention:
    if mention.span is None:
        return mention
    is_said = mention.span[1] <= len(head)  # not of the block or beyond it
    return mention.model_copy(update={"span": done.moved(number, *mention.span) if is_said else None})
