"""The doctors who can be offered, with their free times: from a CSV, or from FHIR R4 (`fhir`).

In a CSV a row is a doctor, or one slot of a doctor; rows of one doctor are put together. Columns are guessed
from French and English names and can be given instead. The model never sees this roster: code picks from it.
"""

from __future__ import annotations

import csv
import hashlib
import io
import json
import re
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import asdict, dataclass, replace
from datetime import datetime
from functools import cache
from pathlib import Path
from typing import Literal

from llmft.dialogue import Fault
from llmft.text_files.whole_file import read_whole
from llmft.vocabulary import UNDECIDED, name_key, specialty_id

_COLUMN_NAMES = {
    "doctor_id": "doctor_id, id, identifiant, id_medecin, rpps, n_rpps, numero_rpps, matricule, practitioner_id",
    "display_name": "display_name, nom_affiche, nom_complet, nom_prenom, medecin, praticien, docteur, doctor, full_name, name",
    "title": "civilite, titre, title, prefix",
    "given": "prenom, first_name, given_name",
    "family": "nom, nom_de_famille, last_name, family_name, surname",
    "specialties": "specialties, specialty, specialites, specialite, discipline",
    "site": "site, lieu, cabinet, centre, etablissement, hopital, location",
    "modes": "modes, mode, type_de_consultation, consultation",
    "languages": "languages, language, langues, langue, langues_parlees",
    "age_min": "age_min, age_minimum, age_mini, min_age",
    "age_max": "age_max, age_maximum, age_maxi, max_age",
    "slot_id": "slot_id, id_creneau, creneau",
    "date": "date, jour, day",
    "start": "start, slot_start, debut, debut_creneau, heure_debut, heure_de_debut",
    "end": "end, slot_end, fin, fin_creneau, heure_fin, heure_de_fin",
    "status": "status, slot_status, statut, etat, disponibilite",
}
_FIELDS = {name: field for field, names in _COLUMN_NAMES.items() for name in names.split(", ")}
_MODES = {
    "on_site": "on_site, cabinet, presentiel, sur_place, consultation",
    "video": "video, visio, visioconsultation, teleconsultation",
    "phone": "phone, telephone, tel",
    "home": "home, domicile, a_domicile, visite, visite_a_domicile",
}
_MODE_NAMES = {name: mode for mode, names in _MODES.items() for name in names.split(", ")}
_LANGUAGE_NAMES = {
    **dict.fromkeys(("francais", "french"), "fr"),
    **dict.fromkeys(("anglais", "english"), "en"),
    **dict.fromkeys(("arabe", "arabic"), "ar"),
    **dict.fromkeys(("espagnol", "spanish"), "es"),
    **dict.fromkeys(("allemand", "german"), "de"),
    **dict.fromkeys(("italien", "italian"), "it"),
    **dict.fromkeys(("portugais", "portuguese"), "pt"),
}
_STATUSES = {
    **dict.fromkeys(("", "free", "libre", "disponible", "available", "ouvert", "oui"), "free"),
    **dict.fromkeys(("busy", "occupe", "pris", "reserve", "indisponible", "complet", "booked", "non"), "busy"),
}
_QUALIFIED = re.compile(r"^(?:sp[ée]cialiste|qualifi\w+|comp[ée]tence|m[ée]decin|docteur)\s+(?:en|de|d'|d’)\s*", re.IGNORECASE)
_PARTS = re.compile(r"[,;/()]|\s(?:et|and)\s")
_LOCAL_TIMES = ("%d/%m/%Y %H:%M", "%d/%m/%Y %Hh%M", "%Y-%m-%d %Hh%M")


@dataclass(frozen=True)
class Slot:
    """A time of a doctor; ``start`` and ``end`` as ISO 8601, local when no zone is given."""

    id: str
    start: str
    end: str
    status: Literal["free", "busy"]


@dataclass(frozen=True)
class Doctor:
    """Somebody who sees patients: what of, where, how, whom and when."""

    doctor_id: str
    display_name: str
    specialties: tuple[str, ...]  # ids of knowledge/specialties.yaml
    site: str | None = None
    modes: tuple[str, ...] = ()  # on_site, video, phone, home
    languages: tuple[str, ...] = ()  # ISO 639 codes
    age_min: int | None = None  # years, of the patients
    age_max: int | None = None
    slots: tuple[Slot, ...] = ()


class _CellError(ValueError):
    """A cell that cannot be used: which field, and why."""

    def __init__(self, field: str, reason: str) -> None:
        super().__init__(reason)
        self.field = field


def read_doctors(path: Path, columns: Mapping[str, str] | None = None) -> Iterator[Doctor | Fault]:
    """Every fault of ``path``, then every doctor; ``columns`` (field ─▶ column) goes before the guess."""
    if path.suffix.lower() in (".json", ".ndjson", ".jsonl"):
        from llmft.doctors.fhir import read_fhir_doctors

        yield from read_fhir_doctors(path)
        return
    text = read_whole(path)
    if isinstance(text, Fault):
        yield text
        return
    rows = _rows(text)
    header = next(rows, (1, []))[1]
    places = _places(header, columns or {})
    if "specialties" not in places or not {"display_name", "family"} & set(places):
        yield Fault(
            str(path),
            1,
            "",
            "the header names no doctor or no specialty; call their columns nom and specialite, or name and specialty",
        )
        return
    doctors: dict[str, Doctor] = {}
    for number, cells in rows:
        try:
            doctor = _doctor({field: cells[place].strip() for field, place in places.items() if place < len(cells)})
            doctors[doctor.doctor_id] = _joined(doctors.get(doctor.doctor_id), doctor)
        except _CellError as error:
            yield Fault(str(path), number, error.field, str(error))
    yield from doctors.values()


def guess_columns(header: Iterable[str]) -> dict[str, str]:
    """Field ─▶ the column that holds it, to be shown to the user; the first of two columns counts."""
    guessed: dict[str, str] = {}
    for column in header:
        field = _FIELDS.get(name_key(column))
        if field is not None:
            guessed.setdefault(field, column)
    return guessed


def as_roster_json(doctors: Iterable[Doctor]) -> str:
    """The roster file that the service reads."""
    rows = []
    for doctor in doctors:
        row = asdict(doctor)
        rows.append({("specialty" if key == "specialties" else key): value for key, value in row.items()})
    return json.dumps({"schema_version": "1", "doctors": rows}, ensure_ascii=False, indent=2) + "\n"


@cache
def find_specialty(name: str) -> str | None:
    """The specialty that an official title means, such as "Cardiologie et maladies vasculaires (SM)"; None if none."""
    name = _QUALIFIED.sub("", name.strip())
    found = (specialty_id(part) for part in (name, *_PARTS.split(name)) if part.strip())
    return next((specialty for specialty in found if specialty not in (None, UNDECIDED)), None)


def find_mode(name: str) -> str | None:
    """``on_site``, ``video``, ``phone`` or ``home``; None if the name means none of them."""
    return _MODE_NAMES.get(name_key(name))


def find_language(name: str) -> str | None:
    """The code of a language that is named or is a code already; None if neither."""
    name = name_key(name).split("_")[0]
    return _LANGUAGE_NAMES.get(name) or (name if re.fullmatch("[a-z]{2,3}", name) else None)


def _rows(text: str) -> Iterator[tuple[int, list[str]]]:
    """Each row that is not blank with the line it ends on; the separator is the header's commonest."""
    first = text.lstrip("\n").split("\n", 1)[0]
    separator = max(",;\t|", key=first.count)
    reader = csv.reader(io.StringIO(text), delimiter=separator)
    while True:
        try:
            cells = next(reader, None)
        except csv.Error:  # a cell beyond the library's limit
            continue
        if cells is None:
            return
        if any(cell.strip() for cell in cells):
            yield reader.line_num, cells


def _places(header: list[str], columns: Mapping[str, str]) -> dict[str, int]:
    wanted = {**guess_columns(header), **columns}
    return {field: header.index(column) for field, column in wanted.items() if column in header}


def _doctor(cells: Mapping[str, str]) -> Doctor:
    """One row, with its slot if it names one."""
    name = cells.get("display_name") or " ".join(filter(None, (cells.get(part) for part in ("title", "given", "family"))))
    if not name:
        raise _CellError("display_name", "the doctor has no name")
    doctor = Doctor(
        doctor_id=cells.get("doctor_id") or "d_" + hashlib.sha256(name_key(name).encode()).hexdigest()[:8],
        display_name=name,
        specialties=_several(cells, "specialties", find_specialty, "no specialty; add it as an alias to specialties.yaml"),
        site=cells.get("site") or None,
        modes=_several(cells, "modes", find_mode, f"none of {', '.join(_MODES)}"),
        languages=_several(cells, "languages", find_language, "no language code such as fr"),
        age_min=_age(cells, "age_min"),
        age_max=_age(cells, "age_max"),
    )
    if not doctor.specialties:
        raise _CellError("specialties", "the doctor has no specialty")
    if doctor.age_min is not None and doctor.age_max is not None and doctor.age_max < doctor.age_min:
        raise _CellError("age_max", "the highest age is below the lowest")
    slot = _slot(cells, doctor.doctor_id)
    return replace(doctor, slots=(slot,)) if slot else doctor


def _several(cells: Mapping[str, str], field: str, find: Callable[[str], str | None], rule: str) -> tuple[str, ...]:
    """The values of a cell such as ``fr; en``, each once."""
    found: dict[str, None] = {}
    for part in filter(None, map(str.strip, re.split(r"[;|/+\n]", cells.get(field, "")))):
        values = [find(piece) for piece in part.split(",") if piece.strip()]
        if None in values and field == "specialties":  # an official title may have commas: "Endocrinologie, nutrition"
            values = [find(part)]
        for value in values:
            if value is None:
                raise _CellError(field, f"{part[:40]!r} is {rule}")
            found[value] = None
    return tuple(found)


def _age(cells: Mapping[str, str], field: str) -> int | None:
    age = cells.get(field, "")
    if not age:
        return None
    if not re.fullmatch(r"\d{1,3}", age, re.ASCII) or int(age) > 130:
        raise _CellError(field, f"{age[:40]!r} is no whole number of years from 0 to 130")
    return int(age)


def _slot(cells: Mapping[str, str], doctor_id: str) -> Slot | None:
    start, end = cells.get("start", ""), cells.get("end", "")
    if not start and not end:
        return None
    day = cells.get("date", "")
    began, ended = (_time(field, f"{day} {time}" if day else time) for field, time in (("start", start), ("end", end)))
    if (began.tzinfo is None) != (ended.tzinfo is None) or ended <= began:
        raise _CellError("end", "the slot does not end after it starts")
    status = _STATUSES.get(name_key(cells.get("status", "")))
    if status is None:
        raise _CellError("status", f"{cells['status'][:40]!r} is neither free nor busy")
    times = [time.isoformat(timespec="minutes") for time in (began, ended)]
    return Slot(cells.get("slot_id") or f"{doctor_id}:{times[0]}", times[0], times[1], "free" if status == "free" else "busy")


def _time(field: str, text: str) -> datetime:
    for form in (None, *_LOCAL_TIMES):
        try:
            return datetime.fromisoformat(text) if form is None else datetime.strptime(text, form)
        except ValueError:
            continue
    raise _CellError(field, f"{text[:40]!r} is no time such as 2026-12-01T09:00")


def _joined(known: Doctor | None, row: Doctor) -> Doctor:
    """A doctor with one more slot; what else another row says must agree."""
    if known is None:
        return row
    if replace(row, slots=()) != replace(known, slots=()):
        raise _CellError("doctor_id", f"{row.doctor_id[:40]!r} stands on an earlier row with other facts")
    if any(slot.id == other.id for slot in row.slots for other in known.slots):
        raise _CellError("slot_id", "the slot stands on an earlier row")
    return replace(known, slots=known.slots + row.slots)
