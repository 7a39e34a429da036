"""The roster over HTTP: who is there, when, and booking it."""

from __future__ import annotations

import tempfile
from asyncio import to_thread
from datetime import datetime
from pathlib import Path as FilePath
from typing import Annotated

from fastapi import APIRouter, Depends, Path, Query, Request

from llmft.serve.answering import doctor_shown, slot_shown
from llmft.serve.api.bodies import Age, NewBooking, Nothing, Short, Specialty
from llmft.serve.api.call_state import own_call
from llmft.serve.api.shown import Booked, Doctors, RosterRead, Slots
from llmft.serve.desk import Desk
from llmft.serve.roster.booking import Booking, book, bookings_of, release
from llmft.serve.roster.importing import ImportedRoster, import_roster
from llmft.serve.roster.search import Wish, find_doctors, free_slots, slot_named
from llmft.serve.security.access import Supervisor, TheDesk, Who
from llmft.serve.security.refusal import Refusal

router = APIRouter(prefix="/v1/roster", tags=["roster"])
SUFFIXES = {"text/csv": ".csv", "application/fhir+json": ".json", "application/json": ".json"}
BookingId = Annotated[str, Path(max_length=60, pattern=r"^[\w.:-]+$")]
Limit = Annotated[int, Query(ge=1, le=200)]


def wanted(
    specialty: Specialty | None = None,
    place: Short | None = None,
    language: Short | None = None,
    mode: Short | None = None,
    age: Age | None = None,
) -> Wish:
    """What the patient needs, from the query."""
    return Wish(specialty, place, language, mode, age)


Wanted = Annotated[Wish, Depends(wanted)]


@router.get("/doctors")
async def doctors(
    desk: TheDesk,
    who: Who,
    wish: Wanted,
    limit: Limit = 50,
) -> Doctors:
    """Doctors who fit, by name."""
    found = await to_thread(find_doctors, desk.store, wish, limit)
    return Doctors(doctors=tuple(doctor_shown(doctor) for doctor in found))


@router.get("/slots")
async def slots(
    desk: TheDesk,
    who: Who,
    wish: Wanted,
    after: datetime | None = None,
    limit: Limit = 10,
) -> Slots:
    """Free slots, the earliest first."""
    if after is not None and not 1970 < after.year < 9000:
        raise Refusal(422, "invalid", "after: a time of our days, as 2026-11-22T08:00:00Z", "after")
    found = await to_thread(free_slots, desk.store, wish, after, limit)
    return Slots(slots=tuple(slot_shown(slot) for slot in found))


@router.post("/bookings", status_code=201)
async def take(body: NewBooking, desk: TheDesk, who: Who) -> Booked:
    """Book a slot; the same key gets the same booking."""

    def booked() -> Booked:
        if body.call_id is not None:
            own_call(desk, body.call_id, who)
        return _shown(desk, book(desk.store, body.slot_id, body.call_id, who.name, key=body.key))

    return await to_thread(booked)


@router.get("/bookings")
async def booked_for(desk: TheDesk, who: Who, call: Annotated[str, Query(max_length=60, pattern=r"^[\w.:-]+$")]) -> list[Booked]:
    """What was booked for a call."""

    def found() -> list[Booked]:
        own_call(desk, call, who)
        return [_shown(desk, booking) for booking in bookings_of(desk.store, call)]

    return await to_thread(found)


@router.post("/bookings/{booking_id}/release")
async def give_back(booking_id: BookingId, desk: TheDesk, who: Who, body: Nothing | None = None) -> Booked:
    """Give a slot back."""
    return await to_thread(lambda: _shown(desk, release(desk.store, booking_id, who.name)))


@router.post(
    "/import",
    openapi_extra={"requestBody": {"required": True, "content": {kind: {"schema": {"type": "string"}} for kind in SUFFIXES}}},
)
async def read_in(request: Request, desk: TheDesk, who: Supervisor) -> RosterRead:
    """Replace the roster by a CSV or FHIR file, sent as the body."""
    kind = request.headers.get("content-type", "").partition(";")[0].strip().lower()
    if kind not in SUFFIXES:
        raise Refusal(415, "media_type", f"the roster's Content-Type is one of: {', '.join(SUFFIXES)}")
    content = await request.body()
    found = await to_thread(_imported, desk, content, SUFFIXES[kind], who.name)
    return RosterRead(
        version=found.version, doctors=found.doctors, slots=found.slots, withdrawn=found.withdrawn, orphaned=found.orphaned
    )


def _imported(desk: TheDesk, content: bytes, suffix: str, by: str) -> ImportedRoster:
    with tempfile.TemporaryDirectory(dir=desk.store.folder) as folder:
        path = FilePath(folder) / f"roster{suffix}"
        path.write_bytes(content)
        return import_roster(desk.store, path, by)


def _shown(desk: Desk, booking: Booking) -> Booked:
    slot = slot_named(desk.store, booking.slot_id)
    return Booked(
        id=booking.id,
        slot_id=booking.slot_id,
        call_id=booking.call_id,
        operator=booking.operator,
        created=booking.created,
        released=booking.released,
        slot=None if slot is None else slot_shown(slot),
    )
