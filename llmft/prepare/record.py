"""One row of a source, made into a dialogue that one may train on, or told why not: the per-record function.

It is pure: the same row and options give the same result in any process on any machine. The order is
parse ─▶ roles ─▶ normalise ─▶ language ─▶ labels ─▶ de-identify ─▶ weak labels, triage block ─▶ check.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from datetime import date
from typing import Any

from pydantic import ValidationError

from llmft.deidentify.files import parse_row
from llmft.deidentify.notes import rewritten
from llmft.deidentify.record import LEFT, capped, deidentify_record, is_done, known_note, left_over
from llmft.deidentify.span import Roster
from llmft.deidentify.stage import LAYERS, Recogniser
from llmft.dialogue import Dialogue, EvidenceMention, Fault, Labels, Patient, Triage, fault_of, parse_dialogue, read_triage
from llmft.prepare.call import RawCall, RawTurn
from llmft.prepare.cleaning.checks import check_call, check_dialogue, read_date
from llmft.prepare.cleaning.language import detect
from llmft.prepare.cleaning.normalise import normalise
from llmft.prepare.labels.label import label, with_triage
from llmft.prepare.readers.speakers import SURE, guess_roles, with_roles
from llmft.protocol.weak_label import silver_label
from llmft.vault import keyed

ROLES = {"patient", "operator", "system"}
Dropped = tuple[tuple[str, int], ...]  # kind ─▶ turns of the source that the dialogue has not


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
    salt: bytes = field(default=b"", repr=False)  # of the vault, for the ids of calls that have none


@dataclass(frozen=True)
class Cleaned:
    """A usable dialogue, and what is known of the row it came from."""

    dialogue: Dialogue
    call: RawCall
    has_triage: bool
    warnings: tuple[Fault, ...] = ()
    dropped: Dropped = ()


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
    dropped: Dropped = ()
    if isinstance(row, RecordLine):
        parsed = _parsed(row)
        if isinstance(parsed, Fault):
            return parsed
        record, roster = parsed
        call = replace(call_of(record, row.file, row.row), roster=roster)
    else:
        row = _as_told(row, options.roles)
        found = check_call(row, options.latest)
        if found.faults:
            return found.faults[0]
        with_speakers = _with_roles(row)
        if isinstance(with_speakers, Fault):
            return with_speakers
        call, dropped = with_speakers
    if call is not row:
        found = check_call(call, options.latest)  # once more: now it is known who the operator is
        if found.faults:
            return found.faults[0]
    cleaned = _cleaned(call, record, options)
    return replace(cleaned, dropped=dropped) if dropped and isinstance(cleaned, Cleaned) else cleaned


def _parsed(row: RecordLine) -> tuple[Dialogue, Roster] | Fault:
    """A record, and the roster that stands beside it where there is one."""
    if '"roster"' in row.text:
        known = parse_row(row.text, row.file, row.row)
        if isinstance(known, Fault):
            return known
        if isinstance(known.value, Dialogue):
            return known.value, known.roster
    parsed = parse_dialogue(row.text, row.file, row.row)
    return parsed if isinstance(parsed, Fault) else (parsed, Roster())


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
        return Fault(call.file, call.row, f"turns[{blank}].text", "the text is blank")
    lang = call.lang
    if lang not in ("fr", "en"):
        language = detect(plain)
        if language.lang is None:
            return Fault(call.file, call.row, "lang", language.reason)
        lang = language.lang
    labels = record.labels if record is not None else label(call, lang)  # type: ignore[arg-type]
    if isinstance(labels, Fault):
        return labels
    try:
        dialogue = _dialogue(call, plain, lang, labels, options.salt) if record is None else _with_texts(record, plain)
    except ValidationError as error:
        return fault_of(error, call.file, call.row)
    dialogue = rewritten(dialogue, lambda _, text: normalise(text))
    dialogue, left = _private(dialogue, call, options)
    if left:
        field, kind = left[0]
        return Refused(call, f"{field}: {LEFT.format(kind)}")
    if dialogue.labels is None and options.weak_labels and read_triage(dialogue.turns[-1].text) is None:
        dialogue = dialogue.model_copy(update={"labels": _silver(dialogue)})
    dialogue, triage = with_triage(dialogue)
    if dialogue.labels is None and triage is not None:
        dialogue = dialogue.model_copy(update={"labels": _of_block(triage, dialogue.source)})
    found = check_dialogue(dialogue, triage, call.file, call.row)
    if found.faults:
        return found.faults[0]
    return Cleaned(dialogue, call, triage is not None, found.warnings)


def _silver(dialogue: Dialogue) -> Labels | None:
    """What the protocols' rules read in a call that nobody labelled."""
    return silver_label(((turn.speaker, turn.text) for turn in dialogue.turns), dialogue.lang)


def _of_block(triage: Triage, source: str) -> Labels:
    """The labels that a triage block states."""
    return Labels(
        urgency=triage.urgency,
        specialty=triage.specialty,
        icd10_primary=next(iter(triage.icd10), None),
        red_flags=triage.red_flags,
        confidence="generated" if source == "synthetic" else "gold",
    )


def _as_told(call: RawCall, roles: Mapping[str, str] | None) -> RawCall:
    """The call with the roles that the user gives, also where the source has them the wrong way round."""
    if not roles:
        return call
    return replace(call, turns=tuple(replace(turn, speaker=roles.get(turn.speaker, turn.speaker)) for turn in call.turns))


def _with_roles(call: RawCall) -> tuple[RawCall, Dropped] | Fault:
    """The call with patient and operator in alternation, ending with the operator; and how many turns that cost."""
    mapping: Mapping[str, str] = {}
    if not {turn.speaker for turn in call.turns} <= ROLES:
        guess = guess_roles(call.turns)
        if guess.confidence < SURE:
            # Without the guess's reason: it has the speakers' names, and they may be the patient's.
            reason = "nobody can be told for the operator; say who it is with --roles NAME=operator"
            place = next(k for k, turn in enumerate(call.turns) if turn.speaker not in ROLES)
            return Fault(call.file, call.row, f"turns[{place}].speaker", reason)
        mapping = guess.mapping
    turns = with_roles(call.turns, mapping)
    while turns and turns[-1].speaker != "operator":
        turns = turns[:-1]  # a goodbye; what the operator said last is what is learnt
    if len(turns) < 2:
        return Fault(call.file, call.row, "turns", "the operator never answers; a call needs a patient and an operator")
    if turns == call.turns:
        return call, ()
    said = [mapping.get(turn.speaker, turn.speaker) for turn in call.turns if turn.text.strip()]
    return replace(call, turns=turns), _dropped(said)


def _dropped(speakers: Sequence[str]) -> Dropped:
    """The turns of a system, and those of a patient after the operator's last."""
    people = [speaker for speaker in speakers if speaker != "system"]
    trailing = next((k for k, speaker in enumerate(reversed(people)) if speaker == "operator"), 0)
    kinds = {"trailing": trailing, "system": len(speakers) - len(people)}
    return tuple((kind, count) for kind, count in kinds.items() if count)


def _private(dialogue: Dialogue, call: RawCall, options: CleanOptions) -> tuple[Dialogue, tuple[tuple[str, str], ...]]:
    """The dialogue without personal data, and what the residual check still finds: field and kind."""
    if not is_done(dialogue):
        done = deidentify_record(dialogue, call.roster, options.layers, options.recogniser)
        return done.dialogue, done.left
    update = {"deid": known_note(dialogue.deid or {}), "patient": capped(dialogue.patient)}
    return dialogue.model_copy(update=update), left_over(dialogue, call.roster)


def _with_texts(record: Dialogue, texts: Sequence[str]) -> Dialogue:
    """Our own record with its normalised texts; where one changed nobody knows the places of its evidence."""
    turns = tuple(
        turn if turn.text == text else turn.model_copy(update={"text": text, "evidence": tuple(map(_placeless, turn.evidence))})
        for turn, text in zip(record.turns, texts, strict=True)
    )
    return record.model_copy(update={"turns": turns, "hash": None})  # of the line that the source had


def _placeless(mention: EvidenceMention) -> EvidenceMention:
    return mention.model_copy(update={"span": None})


def _dialogue(call: RawCall, texts: Sequence[str], lang: str, labels: Labels | None, salt: bytes) -> Dialogue:
    day = read_date(call.date) if call.date else None
    name = call.id or anonymous_id(call, salt)
    record = {
        "schema_version": "1",
        "id": name,
        "family_id": call.family or name,
        "lang": lang,
        "turns": tuple(
            {"speaker": turn.speaker, "text": text, "start": turn.start, "end": turn.end}
            for turn, text in zip(call.turns, texts, strict=True)
        ),
        "labels": labels,
        "source": call.source,
        "license": call.license,
        "collected_on": day.isoformat()[:7] if day else None,  # the month: the day is one of the things that identify
        "patient": _patient(call.patient),
        "split": call.split,
    }
    return Dialogue.model_validate(record)  # all at once: a call has a dozen turns


def anonymous_id(call: RawCall, salt: bytes) -> str:
    """An id for a call that has none: of what was said, so that it stays when rows are added before it.

    Keyed with the vault's ``salt``: who guesses the words cannot prove from the id that they were said.
    """
    said = "\x1f".join(f"{turn.speaker}\x1e{turn.text}" for turn in call.turns)
    return f"c_{keyed(b'call:', said, salt)[:16]}"


def _patient(known: Mapping[str, Any]) -> Patient:
    """What may be kept of the patient: age, sex, who calls."""
    age = known.get("age")
    years = None if age in (None, "") else int(float(age))  # type: ignore[arg-type]  # "45.0" is a number to check_call
    kept = {name: known[name] for name in ("sex", "caller", "pregnant", "age_unit") if known.get(name) is not None}
    return Patient(age=years, **kept)
