"""What is wrong with a call, found by looking at it: faults set it aside, warnings are counted in the report.

    check_call      before cleaning: empty, one-sided or swapped, impossible date or age
    check_dialogue  after labelling: facts, labels and the triage block that contradict each other

Calls with nearly the same words and other labels are found when all rows are known (``outcome``).

Each finding has file, line, field and reason, never what was said.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from datetime import date
from typing import Any, NamedTuple

from llmft.dialogue import Dialogue, EvidenceMention, Fault, Labels, Patient, Triage
from llmft.prepare.call import RawCall, RawTurn
from llmft.prepare.cleaning.normalise import FENCE

FIRST_YEAR = 1980  # earlier calls are a spreadsheet's or a clock's zero
OLDEST, ADULT = 120, 18  # years
_LEAST_QUESTIONS, _SWAPPED_RATIO = 3, 3  # the "patient" asks that many, and so many times more than the operator

_ISO = re.compile(r"(\d{4})[-/.](\d{1,2})(?:[-/.](\d{1,2}))?(?:[T ].*)?", re.DOTALL)
_COMPACT = re.compile(r"(\d{4})(\d{2})(\d{2})")
_DAY_FIRST = re.compile(r"(\d{1,2})[-/.](\d{1,2})[-/.](\d{4})(?:[T ,].*)?", re.DOTALL)
SWAPPED = "the patient asks and the operator answers, as if swapped; turn them with --roles patient=operator,operator=patient"
_OPENERS = (  # of questions, for transcripts without question marks; operators put them to somebody
    *("-vous", "vous avez", "vous êtes", "votre ", "vos ", "-t-il", "-t-elle", "-il ", "-elle ", "est-ce", "y a-t"),
    *("combien", "depuis quand", "quel ", "quelle ", "do you", "did you", "have you", "are you", "were you", "can you"),
    *(
        "your ",
        "is there",
        "are there",
        "is the ",
        "are the ",
        "is it ",
        "does ",
        "did the",
        "has the ",
        "have the ",
        "how ",
        "any ",
    ),
)


class Findings(NamedTuple):
    """Faults set the call aside, warnings do not."""

    faults: tuple[Fault, ...] = ()
    warnings: tuple[Fault, ...] = ()


def check_call(call: RawCall, latest: date | None = None) -> Findings:
    """What makes a call unusable before it is cleaned; ``latest`` is the last day that a call can be of."""
    found = (*_speech(call.turns), *_date(call.date, latest), *_age(call.patient))
    return Findings(tuple(Fault(call.file, call.row, field, reason) for field, reason in found))


def check_dialogue(dialogue: Dialogue, triage: Triage | None, file: str, line: int) -> Findings:
    """What contradicts itself in a labelled call; ``triage`` is ``read_triage`` of its last turn."""
    faults = list(_misplaced_block(dialogue, triage))
    warnings: list[Finding] = []
    if any(turn.evidence for turn in dialogue.turns):  # few calls are annotated
        faults += _two_answers_in_a_turn(dialogue)
        warnings += _changed_answers(dialogue)
    if triage is not None:
        faults += _inside(triage)
        if dialogue.labels is not None:
            faults += _labels_against_block(dialogue.labels, triage)
            warnings += _flags_against_block(dialogue.labels, triage)
    known = dialogue.labels or triage
    if known is not None:
        faults += _patient_against_specialty(dialogue.patient, known.specialty)
    codes = set(triage.icd10 if triage else ()) | {dialogue.labels.icd10_primary if dialogue.labels else None}
    for code in sorted(code for code in codes if code):
        faults += _patient_against_code(dialogue.patient, code)
    return Findings(_placed(faults, file, line), _placed(warnings, file, line))


def read_date(text: str) -> date | None:
    """The day that ``text`` names: 2026-11-21, 2026-11 (its first day), 20261121, 21/11/2026, with or without time."""
    text = text.strip()
    if found := _ISO.fullmatch(text) or _COMPACT.fullmatch(text):
        year, month, day = found.groups()
    elif found := _DAY_FIRST.fullmatch(text):
        day, month, year = found.groups()
    else:
        return None
    try:
        return date(int(year), int(month), int(day or 1))
    except ValueError:  # the 31st of February
        return None


Finding = tuple[str, str]  # field, reason


def _placed(found: Iterable[Finding], file: str, line: int) -> tuple[Fault, ...]:
    return tuple(Fault(file, line, field, reason) for field, reason in found)


def _speech(turns: Sequence[RawTurn]) -> Iterator[Finding]:
    speakers = {turn.speaker for turn in turns if turn.speaker != "system" and turn.text and not turn.text.isspace()}
    if not speakers:
        yield "turns", "the call has no words; check the column or key that holds the text"
    elif len(speakers) == 1:
        yield "turns", "only one speaker says anything; a call needs a patient and an operator"
    elif _is_swapped(turns):
        yield "turns", SWAPPED


def _is_swapped(turns: Sequence[RawTurn]) -> bool:
    if any(turn.speaker == "patient" and FENCE in turn.text for turn in turns):
        return True
    asks = _marked if any("?" in turn.text for turn in turns) else _opened
    asked = {"patient": 0, "operator": 0}
    for turn in turns:
        if turn.speaker in asked and asks(turn.text):
            asked[turn.speaker] += 1
    return asked["patient"] >= max(_LEAST_QUESTIONS, _SWAPPED_RATIO * asked["operator"])


def _marked(text: str) -> bool:
    return "?" in text


def _opened(text: str) -> bool:
    text = text.lower()
    return any(opener in text for opener in _OPENERS)


def _date(text: str | None, latest: date | None) -> Iterator[Finding]:
    if text is None or not text.strip():
        return
    day = read_date(text)
    if day is None:
        yield "date", "not a day of the calendar; write it as 2026-11-21 or 21/11/2026"
    elif day.year < FIRST_YEAR:
        yield "date", f"before {FIRST_YEAR}, a day on which no call was recorded; mend it or leave it empty"
    elif latest is not None and day > latest:
        yield "date", f"after {latest.isoformat()}, a day that had not come; mend it or leave it empty"


def _age(patient: Mapping[str, Any]) -> Iterator[Finding]:
    age = patient.get("age")
    if age is None or age == "":
        return
    try:
        years = float(age)
    except (TypeError, ValueError, OverflowError):
        yield "patient.age", f"not a number; write the age as a whole number from 0 to {OLDEST}"
        return
    if isinstance(age, bool) or not 0 <= years <= OLDEST:
        yield "patient.age", f"no age of a person; write a whole number from 0 to {OLDEST}"


def _misplaced_block(dialogue: Dialogue, triage: Triage | None) -> Iterator[Finding]:
    last = len(dialogue.turns) - 1
    for number, turn in enumerate(dialogue.turns):
        if FENCE in turn.text and number < last:
            yield f"turns[{number}].text", "a triage block stands before the operator's last turn; it ends the call"
        elif FENCE in turn.text and triage is None:
            yield f"turns[{number}].text", "the triage block breaks its contract; see the keys in data/README.md"


def _two_answers_in_a_turn(dialogue: Dialogue) -> Iterator[Finding]:
    for number, turn in enumerate(dialogue.turns):
        denied = {mention.slot for mention in turn.evidence if _is_denied(mention)}
        if denied & {mention.slot for mention in turn.evidence if not _is_denied(mention)}:
            yield f"turns[{number}].evidence", "one fact is stated and denied in the same turn; keep the mention that is meant"


def _is_denied(mention: EvidenceMention) -> bool:
    return mention.negated or mention.value is False


def _changed_answers(dialogue: Dialogue) -> Iterator[Finding]:
    """People correct themselves, so a fact that changes between turns is for a human to look at, no fault."""
    said: dict[tuple[str, str], tuple[bool, int]] = {}
    for number, turn in enumerate(dialogue.turns):
        for mention in turn.evidence:
            is_stated = not _is_denied(mention)
            before = said.setdefault((turn.speaker, mention.slot), (is_stated, number))
            if before[0] != is_stated and before[1] != number:
                yield f"turns[{number}].evidence", f"a fact that the {turn.speaker} stated otherwise in turn {before[1]}"


def _inside(triage: Triage) -> Iterator[Finding]:
    if triage.urgency == "U1" and not triage.escalate:
        yield "triage.escalate", "U1 without escalation; an emergency is always escalated"


def _labels_against_block(labels: Labels, triage: Triage) -> Iterator[Finding]:
    if labels.urgency != triage.urgency:
        yield "labels.urgency", f"{labels.urgency}, but the triage block says {triage.urgency}; one of them is wrong"
    if triage.specialty not in (labels.specialty, *labels.specialty_acceptable):
        yield "labels.specialty", f"{labels.specialty}, but the triage block says {triage.specialty}; one of them is wrong"
    code = labels.icd10_primary
    if code is not None and triage.icd10 and code[:3] not in {other[:3] for other in triage.icd10}:
        yield "labels.icd10_primary", "a code of another category than those of the triage block; one of them is wrong"


def _flags_against_block(labels: Labels, triage: Triage) -> Iterator[Finding]:
    if set(labels.red_flags) != set(triage.red_flags):
        yield "labels.red_flags", "not the red flags of the triage block"


def _years(patient: Patient) -> int | None:
    return patient.age if patient.age is None or patient.age_unit == "y" else 0 if patient.age_unit == "d" else patient.age // 12


def _patient_against_specialty(patient: Patient, specialty: str) -> Iterator[Finding]:
    years = _years(patient)
    if specialty == "pediatrie" and years is not None and years > ADULT:
        yield "labels.specialty", f"pediatrie for a patient over {ADULT}; the age or the specialty is wrong"
    if specialty == "gynecologie_obstetrique" and patient.sex == "M":
        yield (
            "labels.specialty",
            "gynecologie_obstetrique for a man; the sex, which may be the caller's, or the specialty is wrong",
        )


def _patient_against_code(patient: Patient, code: str) -> Iterator[Finding]:
    """ICD-10 chapters that suit one sex or age only: O pregnancy, P newborn, N40-N51 male, N70-N98 female organs."""
    years, number = _years(patient), int(code[1:3])
    if code[0] == "P" and years is not None and years > 2:
        yield "labels.icd10", "a code of the newborn for a patient over 2; the age or the code is wrong"
    if code[0] == "O" and years is not None and not 9 <= years <= 65:
        yield "labels.icd10", "a code of pregnancy that does not suit the age; the age or the code is wrong"
    female = code[0] == "O" or (code[0] == "N" and 70 <= number <= 98)
    male = code[0] == "N" and 40 <= number <= 51
    if patient.sex == "M" and female or patient.sex == "F" and male:
        yield "labels.icd10", "a code that does not suit the patient's sex; the sex or the code is wrong"
