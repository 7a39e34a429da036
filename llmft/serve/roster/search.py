"""Who is there for this patient, and when first."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from typing import Any

from sqlalchemy import ColumnElement, Connection, Select, and_, exists, or_, select

from llmft.serve.store.database import Store, as_text
from llmft.serve.store.tables import bookings, doctor_facts, doctors, slots
from llmft.vocabulary import plain

_WITH_DOCTOR = select(slots.c.id.label("slot_id"), slots.c.starts, slots.c.ends, slots.c.starts_utc, doctors).join(
    doctors, doctors.c.id == slots.c.doctor_id
)


@dataclass(frozen=True)
class Wish:
    """What is looked for; a part that is None does not matter."""

    specialty: str | None = None  # an id of knowledge/specialties.yaml
    site: str | None = None  # words of the place, accents and case aside
    language: str | None = None  # ISO 639 code; only doctors whose roster names it
    mode: str | None = None  # on_site, video, phone, home
    age: int | None = None  # the patient's, in years; doctors without bounds see everybody


@dataclass(frozen=True)
class FoundDoctor:
    """A doctor of the roster in force."""

    id: str
    display_name: str
    site: str | None
    age_min: int | None
    age_max: int | None
    specialties: tuple[str, ...] = ()
    languages: tuple[str, ...] = ()
    modes: tuple[str, ...] = ()


@dataclass(frozen=True)
class FoundSlot:
    """A time of a doctor's."""

    id: str
    starts: str  # ISO 8601, as the roster writes it
    ends: str
    starts_utc: str
    doctor: FoundDoctor


def find_doctors(store: Store, wish: Wish, limit: int = 50) -> list[FoundDoctor]:
    """Doctors who fit, by name."""
    asked = select(doctors).where(*_fits(wish)).order_by(doctors.c.display_name, doctors.c.id).limit(limit)
    with store.reading() as connection:
        found = [_doctor(row) for row in connection.execute(asked)]
        return _with_facts(connection, found)


def free_slots(store: Store, wish: Wish, after: datetime | None = None, limit: int = 10) -> list[FoundSlot]:
    """The earliest times that are free, from ``after`` (default: now) on."""
    start = as_text(after or datetime.now(UTC))
    taken = exists().where(bookings.c.slot_id == slots.c.id, bookings.c.released.is_(None))
    asked = (
        _WITH_DOCTOR.where(slots.c.status == "free", slots.c.starts_utc >= start, ~taken, *_fits(wish))
        .order_by(slots.c.starts_utc, slots.c.id)
        .limit(limit)
    )
    with store.reading() as connection:
        return _slots(connection, asked)


def slot_named(store: Store, slot_id: str) -> FoundSlot | None:
    """A slot by its id, whether it is free or not; None when the roster has let go of it."""
    with store.reading() as connection:
        return next(iter(_slots(connection, _WITH_DOCTOR.where(slots.c.id == slot_id))), None)


def _slots(connection: Connection, asked: Select[Any]) -> list[FoundSlot]:
    rows = connection.execute(asked).all()
    known = {found.id: found for found in _with_facts(connection, [_doctor(row) for row in rows])}
    return [FoundSlot(row.slot_id, row.starts, row.ends, row.starts_utc, known[row.id]) for row in rows]


def _fits(wish: Wish) -> list[ColumnElement[bool]]:
    rules: list[ColumnElement[bool]] = [doctors.c.listed]
    for kind, value in (("specialty", wish.specialty), ("language", wish.language), ("mode", wish.mode)):
        if value is not None:
            fact = and_(doctor_facts.c.doctor_id == doctors.c.id, doctor_facts.c.kind == kind, doctor_facts.c.value == value)
            rules.append(exists().where(fact))
    if wish.site is not None:
        rules += [doctors.c.site_plain.contains(word, autoescape=True) for word in plain(wish.site).split()]
    if wish.age is not None:
        rules.append(or_(doctors.c.age_min.is_(None), doctors.c.age_min <= wish.age))
        rules.append(or_(doctors.c.age_max.is_(None), doctors.c.age_max >= wish.age))
    return rules


def _with_facts(connection: Connection, found: Sequence[FoundDoctor]) -> list[FoundDoctor]:
    """The doctors with what they may have several of, in the roster's order."""
    asked = (
        select(doctor_facts).where(doctor_facts.c.doctor_id.in_({doctor.id for doctor in found})).order_by(doctor_facts.c.place)
    )
    facts: dict[tuple[str, str], list[str]] = {}
    for row in connection.execute(asked):
        facts.setdefault((row.doctor_id, row.kind), []).append(row.value)
    return [
        replace(
            doctor,
            specialties=tuple(facts.get((doctor.id, "specialty"), ())),
            languages=tuple(facts.get((doctor.id, "language"), ())),
            modes=tuple(facts.get((doctor.id, "mode"), ())),
        )
        for doctor in found
    ]


def _doctor(row: Any) -> FoundDoctor:
    return FoundDoctor(row.id, row.display_name, row.site, row.age_min, row.age_max)
