"""DDXPlus's own patients: each row of a ``release_*_patients`` CSV, plain or zipped, as a call.

    AGE,DIFFERENTIAL_DIAGNOSIS,SEX,PATHOLOGY,EVIDENCES,INITIAL_EVIDENCE
    18,"[['Bronchitis', 0.19], …]",M,GERD,"['E_53', 'E_55_@_V_29', 'E_56_@_4']",E_53

The two JSON files of the English release must lie in the same folder (or in the one above). Nothing of
the patient is drawn: age, sex, facts and answers are the row's; what is drawn is how it is told.
A row is one line, so a broken quote spoils no other row.
Source of the form: mila-iqia/ddxplus, CC-BY 4.0.
"""

from __future__ import annotations

import csv
import io
import json
import random
import re
import zipfile
import zlib
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import IO, Any, Literal

from llmft.dialogue import Dialogue, Fault
from llmft.errors import DialogueError
from llmft.knowledge import Lang, Relative, conversation
from llmft.prepare.call import RawCall, RawTurn
from llmft.prepare.readers.ddxplus import CONDITIONS, EVIDENCES, Condition, Question, Tables, notes, read_tables
from llmft.prepare.readers.ddxplus_calls import MOST_FACTS, Answer, Call
from llmft.text_files.text_source import MAX_LINE_CHARS, TOO_LONG

COLUMNS = ("AGE", "SEX", "PATHOLOGY", "EVIDENCES", "INITIAL_EVIDENCE", "DIFFERENTIAL_DIAGNOSIS")
_WITH_VALUE = "_@_"
_NO, _NOWHERE = "V_10", "V_123"  # values that say that there is nothing to tell
_ADULT_AGE = 16  # years; for anyone younger a relative calls
_MOST_VALUES = 3  # of a multiple choice that one answer names


@dataclass(frozen=True)
class DdxPatient:
    """A row, checked against the two tables."""

    age: int
    sex: Literal["F", "M"]
    condition: Condition
    evidences: Mapping[str, tuple[str, ...]]  # code ─▶ its values; () for a plain yes
    initial: str
    differential: tuple[tuple[str, float], ...] = field(default=())  # ICD-10 code, probability


class _RowError(ValueError):
    """A row that cannot be used: which column, and why."""

    def __init__(self, column: str, reason: str) -> None:
        super().__init__(reason)
        self.column = column


def is_patients_file(path: Path) -> bool:
    """Whether a CSV or zip file is DDXPlus's patients, by its header."""
    try:
        with _opened(path) as file:
            return set(COLUMNS) <= set(_cells(file.readline(MAX_LINE_CHARS)))
    except DialogueError:
        return False


def read_ddxplus_patients(path: Path, seed: int = 1, tables: Tables | None = None) -> Iterator[RawCall | Fault]:
    """Each patient of ``path`` as a call, or why not; the same calls for the same ``seed``.

    Raises :class:`DialogueError` when the two JSON files are not beside it or the header is another one.
    """
    tables = tables or read_tables(_tables_folder(path))
    codes = _condition_names(tables)
    with _opened(path) as file:
        header = _cells(file.readline(MAX_LINE_CHARS))
        if missing := [column for column in COLUMNS if column not in header]:
            raise DialogueError(f"{path}: column {missing[0]} is missing; take the file again from DDXPlus")
        for number, line in _lines(file):
            if not line.strip():
                continue
            try:
                patient = _patient(dict(zip(header, _row(line, len(header)), strict=True)), tables, codes)
            except _RowError as error:
                yield Fault(str(path), number, error.column, str(error))
                continue
            yield _call(path, number, patient, tables, seed)


def _call(path: Path, number: int, patient: DdxPatient, tables: Tables, seed: int) -> RawCall:
    stem = re.sub(r"\W+", "_", path.stem)
    rng = random.Random(f"{seed}:{stem}:{number}")  # a row's call does not depend on the other rows
    lang: Lang = rng.choice(("fr", "fr", "en"))  # French first
    made = PatientCall(rng, tables, patient, lang).dialogue(f"ddx-{stem}-{number:07d}")
    return as_raw_call(made, str(path), number, {"differential": patient.differential})


def as_raw_call(made: Dialogue, file: str, row: int, labels: Mapping[str, Any] | None = None) -> RawCall:
    """A call that a generator has made, in the form that every reader yields."""
    told = made.labels.model_dump(include={"urgency", "specialty", "red_flags"}) if made.labels else {}
    if made.labels and made.labels.icd10_primary:
        told["icd10"] = made.labels.icd10_primary
    return RawCall(
        file=file,
        row=row,
        turns=tuple(RawTurn(turn.speaker, turn.text) for turn in made.turns),
        id=made.id,
        family=made.family_id,
        lang=made.lang,
        labels={**told, **(labels or {})},
        patient=made.patient.model_dump(include={"age", "sex", "caller"}),
        source=made.source,
        license=made.license,
    )


class PatientCall(Call):
    """A call of a given patient: facts and answers are the row's, only the wording is drawn."""

    def __init__(self, rng: random.Random, tables: Tables, patient: DdxPatient, lang: Lang) -> None:
        """Take over the patient; the parent class would draw one."""
        self.rng, self.tables, self.condition, self.lang, self.patient = rng, tables, patient.condition, lang, patient
        self.age, self.sex = patient.age, patient.sex
        self.relative = self._pick_relative() if patient.age < _ADULT_AGE else None
        self.present = self._draw_facts()
        self.told = self._pick_told()

    def _pick_relative(self) -> Relative:
        """A child's relative; those told of as seven years old stand for older children too."""
        known, age = conversation().relatives[self.lang], self.patient.age
        children = [r for r in known if r.sex == self.sex and r.age[0] == 0 and (r.age[1] >= age or r.age[1] > 2)]
        return self.rng.choice(children)

    def _draw_facts(self) -> tuple[str, ...]:
        """The row's facts, the first complaint first; as elsewhere no red flags in a mild condition."""
        alarming = notes().red_flags if self.condition.urgency in ("U3", "U4") else {}
        facts = [c for c in self.patient.evidences if self._is_fact(c) and self._suits(c) and c not in alarming]
        symptoms = [code for code in facts if code in self.condition.symptoms]
        others = [code for code in facts if code not in self.condition.symptoms]
        self.rng.shuffle(symptoms)
        symptoms.sort(key=lambda code: code != self.patient.initial)
        return tuple((symptoms[: MOST_FACTS - 1] + others)[:MOST_FACTS])

    def _is_fact(self, code: str) -> bool:
        """A thing that is there, not a detail of another thing that is there."""
        question = self.tables.questions[code]
        if question.parent != code and (question.kind != "yes_no" or question.parent in self.patient.evidences):
            return False
        return self.patient.evidences[code] not in ((_NO,), (_NOWHERE,))

    def phrase(self, code: str) -> str:
        """A fact in a patient's words; a pain by the place that the row names."""
        pain = notes().pain
        places = set(self.patient.evidences.get(pain.place, ())) if code == pain.code else set()
        if not places - {_NOWHERE}:
            return super().phrase(code)
        area = next((area for area in notes().areas.values() if places & set(area.places)), notes().phrases[code])
        return area.of(self.lang)

    def _absent(self) -> list[str]:
        return [code for code in super()._absent() if code not in self.patient.evidences]

    def _asked_details(self, code: str) -> list[str]:
        """Details that the row answers: a plain question always, the others where it holds a value."""
        questions, given = self.tables.questions, self.patient.evidences
        return [c for c in super()._asked_details(code) if c in given or questions[c].kind == "yes_no"]

    def _answer(self, question: Question) -> Answer:
        values = self.patient.evidences.get(question.code)
        if question.kind == "score" and values:
            return Answer(self.rng.choice(notes().score[self.lang]).format(n=values[0]), int(values[0]))
        known = [v for v in values or () if v in question.values and v != _NOWHERE][:_MOST_VALUES]
        if question.kind == "choice" and known:
            text = (" et " if self.lang == "fr" else " and ").join(question.values[value].of(self.lang) for value in known)
            return Answer(f"{notes().yes[self.lang][0]}, {text}" if question.may_be_no else text, known[0])
        present = question.kind != "choice" and values is not None and values != (_NO,)
        return Answer(self.rng.choice((notes().yes if present else notes().no)[self.lang]), present)


def _patient(row: dict[str, str], tables: Tables, codes: Mapping[str, Condition]) -> DdxPatient:
    age, sex, initial = row["AGE"].strip(), row["SEX"].strip(), row["INITIAL_EVIDENCE"].strip()
    if not re.fullmatch(r"\d{1,3}", age) or int(age) > 130:
        raise _RowError("AGE", "the age is no whole number from 0 to 130")
    if sex not in ("F", "M"):
        raise _RowError("SEX", "the sex is neither F nor M")
    condition = codes.get(row["PATHOLOGY"].strip())
    if condition is None:
        raise _RowError("PATHOLOGY", f"the condition is none of {CONDITIONS}; take both files from the English release")
    evidences = _evidences(row["EVIDENCES"], tables)
    if initial not in evidences:
        raise _RowError("INITIAL_EVIDENCE", "the first evidence is none of the row's evidences")
    return DdxPatient(int(age), "F" if sex == "F" else "M", condition, evidences, initial, _differential(row, codes))


def _evidences(cell: str, tables: Tables) -> dict[str, tuple[str, ...]]:
    found: dict[str, tuple[str, ...]] = {}
    for entry in _list("EVIDENCES", cell):
        code, _, value = entry.partition(_WITH_VALUE) if isinstance(entry, str) else ("", "", "")
        question = tables.questions.get(code)
        if question is None:
            raise _RowError("EVIDENCES", f"an evidence is none of {EVIDENCES}; take both files from the English release")
        if question.kind == "score" and not (re.fullmatch(r"\d{1,2}", value) and int(value) <= 10):
            raise _RowError("EVIDENCES", f"the value of {code} is no whole number from 0 to 10")
        found[code] = (*found.get(code, ()), value) if value else found.get(code, ())
    return found


def _differential(row: dict[str, str], codes: Mapping[str, Condition]) -> tuple[tuple[str, float], ...]:
    pairs = _list("DIFFERENTIAL_DIAGNOSIS", row["DIFFERENTIAL_DIAGNOSIS"])
    good = all(isinstance(pair, list) and len(pair) == 2 and isinstance(pair[0], str) and _is_share(pair[1]) for pair in pairs)
    if not good or any(name not in codes for name, _ in pairs):
        raise _RowError("DIFFERENTIAL_DIAGNOSIS", "not a list of known conditions with probabilities from 0 to 1")
    return tuple((codes[name].icd10, float(share)) for name, share in pairs)


def _is_share(value: Any) -> bool:
    return isinstance(value, int | float) and 0 <= value <= 1


def _list(column: str, cell: str) -> list[Any]:
    """A list as Python prints it: plain enough to become JSON by changing its quotes."""
    try:
        value = json.loads(cell.replace("'", '"')) if cell.strip() else []
    except (ValueError, RecursionError):
        value = None
    if not isinstance(value, list):
        raise _RowError(column, "not a list such as ['E_53', 'E_56_@_4']")
    return value


def _condition_names(tables: Tables) -> dict[str, Condition]:
    """A condition by its key, by DDXPlus's own misspelt key and by its English name."""
    by_key = {condition.key: condition for condition in tables.conditions}
    mended = {key: by_key[note.key] for key, note in notes().conditions.items() if note.key in by_key}
    return {**{c.names.en: c for c in tables.conditions}, **mended, **by_key}


def _tables_folder(path: Path) -> Path:
    folders = (path.parent, path.parent.parent)
    return next((folder for folder in folders if (folder / CONDITIONS).exists()), path.parent)


def _row(line: str, width: int) -> list[str]:
    if len(line) > MAX_LINE_CHARS:
        raise _RowError("", TOO_LONG)
    cells = _cells(line)
    if len(cells) != width:
        raise _RowError("", f"the row has {len(cells)} cells where the header has {width}")
    return cells


def _cells(line: str) -> list[str]:
    try:
        return next(csv.reader([line.rstrip("\r\n").removeprefix("\ufeff")], strict=True), [])
    except csv.Error:
        return []


def _lines(file: IO[str]) -> Iterator[tuple[int, str]]:
    number = 1  # the header was read
    try:
        while line := file.readline(MAX_LINE_CHARS + 1):
            number += 1
            yield number, line
            while len(line) > MAX_LINE_CHARS and not line.endswith("\n"):
                line = file.readline(MAX_LINE_CHARS + 1)
    except (zipfile.BadZipFile, zlib.error, EOFError):
        yield number + 1, "the archive is damaged from here on"  # no row has this form: it becomes a fault


@contextmanager
def _opened(path: Path) -> Iterator[IO[str]]:
    """The CSV itself or the one CSV of a zip file; bytes that are no text become marks that no code holds."""
    try:
        if path.suffix.lower() != ".zip":
            with path.open(encoding="utf-8", errors="replace", newline="\n") as file:
                yield file
            return
        with zipfile.ZipFile(path) as archive:
            names = [name for name in archive.namelist() if not name.endswith("/") and "__MACOSX" not in name]
            if len(names) != 1:
                raise DialogueError(f"{path} holds {len(names)} files; name a zip file with one CSV of patients")
            with archive.open(names[0]) as packed:
                yield io.TextIOWrapper(packed, encoding="utf-8", errors="replace", newline="\n")
    except (OSError, zipfile.BadZipFile, NotImplementedError, RuntimeError) as error:
        raise DialogueError(f"{path} cannot be read ({type(error).__name__}); take the file again from DDXPlus") from error
