"""kill -9 under load: whatever was acknowledged is there, the chain verifies, no slot is booked twice."""

from __future__ import annotations

from collections import Counter

from kill_desk import losses, told
from sqlalchemy import delete, update
from tiny_store import tiny_answer, tiny_call, write_roster

from llmft.serve.roster.importing import import_roster
from llmft.serve.store.tables import bookings, feedback

KILLS = 3


def test_what_was_acknowledged_outlives_a_kill(store, tmp_path):
    import_roster(store, write_roster(tmp_path / "roster.csv", doctors=2, slots=20), "test")
    slots = [f"s-{doctor}-{slot}" for doctor in range(2) for slot in range(20)]
    answer = tiny_answer(store, tiny_call(store))
    said = told(store, slots, answer.id, KILLS)
    assert losses(store, said) == []
    counts = Counter(kind for kind, *_ in said)
    assert min(counts[kind] for kind in ("record", "feedback", "booked")) >= KILLS
    # the check itself sees a loss
    with store.writing() as connection:
        connection.execute(delete(feedback).where(feedback.c.id == next(facts[0] for kind, *facts in said if kind == "feedback")))
        connection.execute(update(bookings).values(slot_id="s-0-0", released="2026"))
    assert {fault.split()[0] for fault in losses(store, said)} >= {"feedback", "booking"}
