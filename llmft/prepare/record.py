"""One row of a source, made into a dialogue that one may train on, or told why not: the per-record function.

It is pure: the same row and options give the same result in any process on any machine. The order is
parse ─▶ roles ─▶ normalise ─▶ language ─▶ de-identify ─▶ labels ─▶ check.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import date
from typing import Any

from pydantic import ValidationError

from llmft.deidentify.stage import LAYERS, Deidentified, Recogniser, deidentify, residual
from llmft.dialogue import Dialogue, EvidenceMention, Fault, Labels, Patient, Triage, Turn, parse_dialogue, read_triage
from llmft.prepare.call import RawCall, RawTurn
from llmft.prepare.cleaning.checks import check_call, check_dialogue, read_date
from llmft.prepare.cleaning.language import detect
from llmft.prepare.cleaning.normalise import FENCE, normalise
from llmft.prepare.labels.label import label, with_triage
from llmft.prepare.labels.weak_label import weak_label
from llmft.prepare.readers.speakers import SURE, guess_roles, with_roles

DEID_VERSION = "1"
OLD = 90  # years; from here on an age says too much, and is written as this
ROLES = {"patient", "operator", "system"}


@dataclass(frozen=True)
class RecordLine:
    """A line of our own record, parsed by whoever cleans it."""

    file: str
    row: int
    text: str


@dataclass(frozen=True)
class CleanOptions:
    """What decides the result besides the row itself."""

    layers: tuple[str, ...] = LAYERS
    weak_labels: bool = True
    latest: date | None = None  # the last day that a call can be of
    roles: Mapping[str, str] | None = None  # speaker ─▶ role, as the user says
    recogniser: Recogniser | None = None  # an external one, for the layer of that name


@dataclass(frozen=True)
class Cleaned:
    """A usable dialogue, and what is known of the row it came from."""

    dialogue: Dialogue
    call: RawCall
    has_triage: bool
    warnings: tuple[Fault, ...] = ()


@dataclass(frozen=True)
class Refused:
    """A row that is sound but may not be used."""

    call: RawCall
    reason: str


Row = RawCall | RecordLine | Fault


def clean_row(row: Row, options: CleanOptions) -> Cleaned | Refused | Fault:
    """The dialogue of a row; a :class:`Fault` when it has none, a :class:`Refused` when it must not be used."""
    if isinstance(row, Fault):
        return row
    record = None
    if isinstance(row, RecordLine):
        parsed = parse_dialogue(row.text, row.file, row.row)
        if isinstance(parsed, Fault):
            return parsed
        record, call = parsed, call_of(parsed, row.file, row.row)
    else:
        found = check_call(row, options.latest)
        if found.faults:
            return found.faults[0]
        with_speakers = _with_roles(row, options.roles)
        if isinstance(with_speakers, Fault):
            return with_speakers
        call = with_speakers
    found = check_call(call, options.latest)  # once more: now it is known who the operator is
    return found.faults[0] if found.faults else _cleaned(call, record, options)


def call_of(dialogue: Dialogue, file: str, row: int) -> RawCall:
    """A dialogue of our own record as a source's call."""
    turns = tuple(RawTurn(turn.speaker, turn.text, turn.start, turn.end) for turn in dialogue.turns)
    return RawCall(
        file=file, row=row, turns=turns, id=dialogue.id, family=dialogue.family_id, date=dialogue.collected_on,
        lang=dialogue.lang, source=dialogue.source, license=dialogue.license,
    )  # fmt: skip


def _cleaned(call: RawCall, record: Dialogue | None, options: CleanOptions) -> Cleaned | Refused | Fault:
    plain = [normalise(turn.text) for turn in call.turns]
    blank = next((number for number, text in enumerate(plain) if not text.strip()), None)
    if blank is not None:
        return Fault(call.file, call.row, f"turns.{blank}.text", "the text is blank")
    lang = call.lang
    if lang not in ("fr", "en"):
        language = detect(plain)
        if language.lang is None:
            return Fault(call.file, call.row, "lang", language.reason)
        lang = language.lang
    deid: dict[str, Any] | None = record.deid if record is not None else None
    texts, done = plain, None
    if not deid or deid.get("status") != "done":
        done, deid = _deidentified(plain, lang, call, options)
        texts = list(done.texts)
    left = residual(texts, call.roster)  # the triage block too: its summary is free text
    if left:
        turn, kind = left[0]
        return Refused(call, f"turn {turn} still holds a {kind} after de-identification; add it to the call's roster")
    labels = record.labels if record is not None else label(call, lang)  # type: ignore[arg-type]
    if isinstance(labels, Fault):
        return labels
    try:
        dialogue = _dialogue(call, texts, lang, deid, labels) if record is None else _renewed(record, plain, texts, done, deid)
    except ValidationError as error:
        return _fault(call, error)
    if dialogue.labels is None and options.weak_labels and read_triage(texts[-1]) is None:
        dialogue = dialogue.model_copy(update={"labels": _silver(dialogue)})
    dialogue = with_triage(dialogue)
    triage = read_triage(dialogue.turns[-1].text)
    if dialogue.labels is None and triage is not None:
        dialogue = dialogue.model_copy(update={"labels": _of_block(triage, dialogue.source)})
    found = check_dialogue(dialogue, triage, call.file, call.row)
    if found.faults:
        return found.faults[0]
    return Cleaned(dialogue, call, triage is not None, found.warnings)


def _silver(dialogue: Dialogue) -> Labels | None:
    """What the protocols' rules read in a call that nobody labelled."""
    found = weak_label(((turn.speaker, turn.text) for turn in dialogue.turns), dialogue.lang)
    return found.labels if found else None


def _of_block(triage: Triage, source: str) -> Labels:
    """The labels that a triage block states."""
    return Labels(
        urgency=triage.urgency,
        specialty=triage.specialty,
        icd10_primary=next(iter(triage.icd10), None),
        red_flags=triage.red_flags,
        confidence="generated" if source == "synthetic" else "gold",
    )


def _with_roles(call: RawCall, roles: Mapping[str, str] | None) -> RawCall | Fault:
    """The call with patient and operator in alternation, ending with the operator."""
    mapping: Mapping[str, str] = roles or {}
    if not {mapping.get(turn.speaker, turn.speaker) for turn in call.turns} <= ROLES:
        guess = guess_roles(call.turns)
        if guess.confidence < SURE:
            # Without the guess's reason: it has the speakers' names, and they may be the patient's.
            reason = "nobody can be told for the operator; say who it is with --roles NAME=operator"
            return Fault(call.file, call.row, "turns.speaker", reason)
        mapping = {**guess.mapping, **mapping}
    turns = with_roles(call.turns, mapping)
    while turns and turns[-1].speaker != "operator":
        turns = turns[:-1]  # a goodbye; what the operator said last is what is learnt
    if len(turns) < 2:
        return Fault(call.file, call.row, "turns", "the operator never answers; a call needs a patient and an operator")
    return replace(call, turns=turns)


def _deidentified(texts: Sequence[str], lang: str, call: RawCall, options: CleanOptions) -> tuple[Deidentified, dict[str, Any]]:
    """The texts with placeholders, the triage block beside them left alone, and the record's note of it."""
    heads, blocks = zip(*(_parted(text) for text in texts), strict=True)
    done = deidentify(heads, lang, call.roster, options.layers, options.recogniser)
    note = {"status": "done", "version": DEID_VERSION, "mode": "placeholder", "counts": done.counts, "layers": done.layers}
    return replace(done, texts=tuple(head + block for head, block in zip(done.texts, blocks, strict=True))), note


def _parted(text: str) -> tuple[str, str]:
    head, fence, block = text.partition(FENCE)
    return head, fence + block


def _renewed(
    record: Dialogue, plain: Sequence[str], texts: Sequence[str], done: Deidentified | None, deid: dict[str, Any] | None
) -> Dialogue:
    """Our own record with its new texts; the age is capped."""
    turns = tuple(
        turn
        if turn.text == text
        else turn.model_copy(update={"text": text, "evidence": _moved(turn, number, plain[number], done)})
        for number, (turn, text) in enumerate(zip(record.turns, texts, strict=True))
    )
    age = _capped(record.patient.age, record.patient.age_unit)
    patient = record.patient.model_copy(update={"age": age})
    return record.model_copy(update={"turns": turns, "deid": deid, "patient": patient})


def _capped(age: int | None, unit: str) -> int | None:
    return age if age is None or unit != "y" else min(age, OLD)


def _moved(turn: Turn, number: int, plain: str, done: Deidentified | None) -> tuple[EvidenceMention, ...]:
    """A turn's evidence with each span where its words are now; None where they were replaced or rewritten."""
    known = done if turn.text == plain else None
    return tuple(
        mention.model_copy(update={"span": known.moved(number, *mention.span) if known and mention.span else None})
        for mention in turn.evidence
    )


def _dialogue(call: RawCall, texts: Sequence[str], lang: str, deid: dict[str, Any] | None, labels: Labels | None) -> Dialogue:
    day = read_date(call.date) if call.date else None
    return Dialogue(
        schema_version="1",
        id=call.id or anonymous_id(call),
        family_id=call.family or call.id or anonymous_id(call),
        lang=lang,  # type: ignore[arg-type]
        turns=tuple(
            Turn(speaker=turn.speaker, text=text, start=turn.start, end=turn.end)  # type: ignore[arg-type]
            for turn, text in zip(call.turns, texts, strict=True)
        ),
        labels=labels,
        source=call.source,  # type: ignore[arg-type]
        license=call.license,
        collected_on=day.isoformat()[:7] if day else None,  # the month: the day is one of the things that identify
        patient=_patient(call.patient),
        deid=deid,
    )


def anonymous_id(call: RawCall) -> str:
    """An id for a call that has none: of what was said, so that it stays when rows are added before it."""
    said = "\x1f".join(f"{turn.speaker}\x1e{turn.text}" for turn in call.turns)
    return "c_" + hashlib.blake2b(said.encode("utf-8", "surrogatepass"), digest_size=8).hexdigest()


def _patient(known: Mapping[str, Any]) -> Patient:
    """What may be kept of the patient: age (90 and above as 90), sex, who calls."""
    age = known.get("age")
    years = None if age in (None, "") else int(float(age))  # type: ignore[arg-type]  # "45.0" is a number to check_call
    kept = {name: known[name] for name in ("sex", "caller", "pregnant", "age_unit") if known.get(name) is not None}
    return Patient(age=_capped(years, kept.get("age_unit", "y")), **kept)


def _fault(call: RawCall, error: ValidationError) -> Fault:
    first = error.errors(include_input=False, include_url=False, include_context=False)[0]
    field = ".".join(str(part) for part in first["loc"])
    return Fault(call.file, call.row, field, first["msg"].removeprefix("Value error, "))
