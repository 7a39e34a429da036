"""A roster file becomes what the desk offers; a later file replaces the earlier one, and bookings stay."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Any

from sqlalchemy import Connection, Table, bindparam, delete, insert, select, update

from llmft.dialogue import Fault
from llmft.doctors.roster_file import Doctor, Slot, read_doctors
from llmft.errors import StoreError
from llmft.run import sha256
from llmft.serve.store.database import Store, as_text, now
from llmft.serve.store.journal import append, lock
from llmft.serve.store.tables import bookings, doctor_facts, doctors, rosters, slots
from llmft.vocabulary import plain


@dataclass(frozen=True)
class ImportedRoster:
    """What an import has changed."""

    version: str  # the file's SHA-256, named by each answer
    doctors: int
    slots: int
    withdrawn: int  # slots of the earlier roster that this one does not name
    orphaned: tuple[str, ...]  # bookings in force whose slot this roster does not name: somebody must call back


def import_roster(store: Store, path: Path, by: str, columns: Mapping[str, str] | None = None) -> ImportedRoster:
    """Offer the doctors and slots of a CSV or FHIR file, and only those.

    A time without a zone is in this machine's. Raises :class:`StoreError` at a fault of the file, and changes nothing then.
    """
    found = list(read_doctors(path, columns))
    faults = [entry for entry in found if isinstance(entry, Fault)]
    if faults:
        more = f" ({len(faults) - 1} more faults)" if len(faults) > 1 else ""
        raise StoreError(f"{faults[0]}{more}; mend the roster and import it again")
    listed = [entry for entry in found if isinstance(entry, Doctor)]
    offered = _slot_rows(listed, path)
    version = sha256(path)
    with store.writing() as connection:
        lock(connection)
        _write_doctors(connection, listed)
        withdrawn, orphaned = _write_slots(connection, offered)
        body = {"roster": version, "doctors": len(listed), "slots": len(offered), "withdrawn": withdrawn, "by": by}
        append(connection, "roster", body)
        row = {"sha256": version, "doctors": len(listed), "slots": len(offered), "created": now()}
        connection.execute(insert(rosters).values(**row))
    return ImportedRoster(version, len(listed), len(offered), withdrawn, orphaned)


def roster_version(store: Store) -> str | None:
    """The SHA-256 of the roster in force; None before the first import."""
    with store.reading() as connection:
        version: str | None = connection.execute(select(rosters.c.sha256).order_by(rosters.c.number.desc()).limit(1)).scalar()
    return version


def roster_age(store: Store) -> str | None:
    """When the roster in force was imported; None before the first import."""
    with store.reading() as connection:
        when: str | None = connection.execute(select(rosters.c.created).order_by(rosters.c.number.desc()).limit(1)).scalar()
    return when


def _slot_rows(listed: Iterable[Doctor], path: Path) -> dict[str, dict[str, Any]]:
    rows: dict[str, dict[str, Any]] = {}
    for doctor in listed:
        for slot in doctor.slots:
            if slot.id in rows:
                raise StoreError(
                    f"{path}: the slot id {slot.id[:60]!r} stands for two doctors; give each slot an id of its own, or none"
                )
            rows[slot.id] = _slot_row(doctor.doctor_id, slot)
    return rows


def _slot_row(doctor_id: str, slot: Slot) -> dict[str, Any]:
    moment = as_text(datetime.fromisoformat(slot.start))
    times = {"starts": slot.start, "ends": slot.end, "starts_utc": moment}
    return {"id": slot.id, "doctor_id": doctor_id, "status": slot.status, **times}


def _write_doctors(connection: Connection, listed: list[Doctor]) -> None:
    """Doctors who are listed no longer stay as rows, for the bookings that name them."""
    connection.execute(update(doctors).values(listed=False))
    rows: list[dict[str, Any]] = [
        {
            "id": doctor.doctor_id,
            "display_name": doctor.display_name,
            "site": doctor.site,
            "site_plain": plain(doctor.site or ""),
            "age_min": doctor.age_min,
            "age_max": doctor.age_max,
            "listed": True,
        }
        for doctor in listed
    ]
    _upsert(connection, doctors, {row["id"]: row for row in rows}, set(connection.execute(select(doctors.c.id)).scalars()))
    connection.execute(delete(doctor_facts))
    facts = [fact for doctor in listed for fact in _facts(doctor)]
    if facts:
        connection.execute(insert(doctor_facts), facts)


def _facts(doctor: Doctor) -> Iterable[dict[str, Any]]:
    several = {"specialty": doctor.specialties, "language": doctor.languages, "mode": doctor.modes}
    for kind, values in several.items():
        for place, value in enumerate(values):
            yield {"doctor_id": doctor.doctor_id, "kind": kind, "value": value, "place": place}


def _write_slots(connection: Connection, offered: Mapping[str, dict[str, Any]]) -> tuple[int, tuple[str, ...]]:
    """Slots that are offered no longer go, save those that were booked once; returns how many, and the bookings left alone."""
    known = set(connection.execute(select(slots.c.id)).scalars())
    gone = sorted(known - set(offered))
    booked = connection.execute(select(bookings.c.id, bookings.c.slot_id, bookings.c.released)).all()
    kept = {row.slot_id for row in booked}
    if stale := [{"slot": slot_id} for slot_id in gone if slot_id not in kept]:
        connection.execute(delete(slots).where(slots.c.id == bindparam("slot")), stale)
    if busy := [{"slot": slot_id} for slot_id in gone if slot_id in kept]:
        connection.execute(update(slots).where(slots.c.id == bindparam("slot")).values(status="busy"), busy)
    _upsert(connection, slots, offered, known)
    orphaned = sorted(row.id for row in booked if row.released is None and row.slot_id not in offered)
    return len(gone), tuple(orphaned)


def _upsert(connection: Connection, table: Table, rows: Mapping[str, dict[str, Any]], known: set[str]) -> None:
    """Insert the rows whose id is new, change the others; in words that both databases know."""
    if fresh := [row for key, row in rows.items() if key not in known]:
        connection.execute(insert(table), fresh)
    if old := [{"row": key, **_without_id(row)} for key, row in rows.items() if key in known]:
        connection.execute(update(table).where(table.c.id == bindparam("row")), old)


def _without_id(row: Mapping[str, Any]) -> dict[str, Any]:
    return {name: value for name, value in row.items() if name != "id"}
