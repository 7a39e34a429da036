"""Slots are booked once: by a transaction that looks and takes, and by an index of the database that allows no second one."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from sqlalchemy import Connection, insert, select, update

from llmft.errors import ConflictError, NotStoredError
from llmft.serve.store.calls import call_of, new_id
from llmft.serve.store.database import Store, now
from llmft.serve.store.journal import append, lock
from llmft.serve.store.tables import bookings, slots


@dataclass(frozen=True)
class Booking:
    """A slot that was taken for a call; ``released`` once it was given back."""

    id: str
    slot_id: str
    call_id: str | None  # None: the call was erased
    operator: str
    created: str
    released: str | None = None


def book(store: Store, slot_id: str, call_id: str | None, by: str, *, key: str) -> Booking:
    """Take a slot; asked again with the same ``key``, the booking that was made is returned.

    Raises :class:`ConflictError` when the slot is taken, over or not free, :class:`NotStoredError` when there is none.
    """
    with store.writing() as connection:
        lock(connection)
        if known := connection.execute(select(bookings).where(bookings.c.key == key)).first():
            if (known.slot_id, known.call_id) != (slot_id, call_id):
                raise ConflictError(f"the key {key[:80]!r} stands for another booking; give each booking a key of its own")
            return _booking(known)
        if call_id is not None:
            call_of(connection, call_id)
        _require_free(connection, slot_id)
        booking = Booking(new_id("booking"), slot_id, call_id, by, now())
        append(connection, "booked", {"booking": booking.id, "slot": slot_id, "call": call_id, "by": by})
        row = {"id": booking.id, "slot_id": slot_id, "call_id": call_id, "operator": by, "key": key, "created": booking.created}
        connection.execute(insert(bookings).values(**row))
        return booking


def release(store: Store, booking_id: str, by: str) -> Booking:
    """Give a slot back; releasing it again changes nothing. Raises :class:`NotStoredError`."""
    with store.writing() as connection:
        lock(connection)
        row = connection.execute(select(bookings).where(bookings.c.id == booking_id)).first()
        if row is None:
            raise NotStoredError(f"no booking has the id {booking_id[:60]!r}; see those of the call")
        if row.released is None:
            append(connection, "released", {"booking": booking_id, "slot": row.slot_id, "by": by})
            connection.execute(update(bookings).where(bookings.c.id == booking_id).values(released=now()))
        return _booking(connection.execute(select(bookings).where(bookings.c.id == booking_id)).one())


def bookings_of(store: Store, call_id: str) -> list[Booking]:
    """What was booked for a call, the oldest first."""
    asked = select(bookings).where(bookings.c.call_id == call_id).order_by(bookings.c.created)
    with store.reading() as connection:
        return [_booking(row) for row in connection.execute(asked)]


def _require_free(connection: Connection, slot_id: str) -> None:
    slot = connection.execute(select(slots).where(slots.c.id == slot_id).with_for_update()).first()
    if slot is None:
        raise NotStoredError(f"no slot has the id {slot_id[:60]!r}; the roster may have changed: search again")
    if slot.status != "free" or slot.starts_utc <= now():
        raise ConflictError("the slot is busy or over; search again for one that is free")
    taken = select(bookings.c.id).where(bookings.c.slot_id == slot_id, bookings.c.released.is_(None))
    if connection.execute(taken).first():
        raise ConflictError("the slot was booked a moment ago; search again for one that is free")


def _booking(row: Any) -> Booking:
    return Booking(row.id, row.slot_id, row.call_id, row.operator, row.created, row.released)
