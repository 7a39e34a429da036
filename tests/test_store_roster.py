"""The desk's roster: what is imported is found, and a slot is booked once, whoever asks and however often."""

from __future__ import annotations

import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from sqlalchemy import func, insert, select
from sqlalchemy.exc import IntegrityError
from tiny_store import tiny_call, write_roster

import llmft
from llmft.errors import ConflictError, NotStoredError, StoreError
from llmft.run import sha256
from llmft.serve.roster.booking import book, bookings_of, release
from llmft.serve.roster.importing import import_roster, roster_version
from llmft.serve.roster.search import Wish, find_doctors, free_slots
from llmft.serve.store.checking import verify
from llmft.serve.store.retention import erase
from llmft.serve.store.tables import bookings

SAMPLE = Path(llmft.__file__).parent.parent / "data" / "sample"
BEFORE = datetime(2026, 11, 1, tzinfo=UTC)


def test_the_sample_is_found_by_specialty_place_language_and_age(store):
    made = import_roster(store, SAMPLE / "doctors.csv", "test")
    assert made.version == roster_version(store) == sha256(SAMPLE / "doctors.csv")
    everybody = find_doctors(store, Wish())
    assert len(everybody) == made.doctors and made.slots > 10
    hearts = find_doctors(store, Wish(specialty="cardiologie"))
    assert hearts and {"cardiologie"} <= {name for doctor in hearts for name in doctor.specialties}
    one = hearts[0]
    assert one in find_doctors(store, Wish(specialty="cardiologie", site="TILLEULS", language="en", age=16))
    assert one not in find_doctors(store, Wish(age=15)) and one.age_min == 16
    assert find_doctors(store, Wish(language="xx")) == find_doctors(store, Wish(site="100%_")) == []
    assert one.languages == ("fr", "en") and one.modes == ("on_site",)


def test_csv_and_fhir_offer_the_same_times(store):
    import_roster(store, SAMPLE / "doctors.csv", "test")
    first = free_slots(store, Wish(), BEFORE, limit=100)
    import_roster(store, SAMPLE / "doctors.fhir.json", "test")
    second = free_slots(store, Wish(), BEFORE, limit=100)
    assert first and [slot.starts_utc for slot in first] == [slot.starts_utc for slot in second]
    assert {slot.doctor.display_name for slot in first} == {slot.doctor.display_name for slot in second}


def test_the_earliest_free_times_come_first(store, tmp_path):
    import_roster(store, write_roster(tmp_path / "roster.csv"), "test")
    found = free_slots(store, Wish(specialty="cardiologie"), limit=4)
    assert [slot.id for slot in found] == ["s-0-0", "s-1-0", "s-0-1", "s-1-1"]
    assert [slot.id for slot in free_slots(store, Wish(), datetime.fromisoformat(found[2].starts))] == [
        "s-0-1", "s-1-1", "s-0-2", "s-1-2",
    ]  # fmt: skip
    book(store, "s-0-0", None, "op-1", key="k-000001")
    assert [slot.id for slot in free_slots(store, Wish(), limit=1)] == ["s-1-0"]


def test_times_without_a_zone_are_this_machines(store, tmp_path, monkeypatch):
    roster = "nom;specialite;debut;fin\nDr A;cardiologie;2030-07-01T09:00;2030-07-01T09:20\n"
    (tmp_path / "r.csv").write_text(roster)
    import_roster(store, tmp_path / "r.csv", "test")
    local = datetime(2030, 7, 1, 9).astimezone().astimezone(UTC)
    assert free_slots(store, Wish())[0].starts_utc == local.strftime("%Y-%m-%dT%H:%M:%S.%fZ")


def test_a_booking_holds_its_slot_until_it_is_released(store, tmp_path):
    import_roster(store, write_roster(tmp_path / "roster.csv"), "test")
    call = tiny_call(store)
    made = book(store, "s-0-0", call.id, "op-1", key="k-000001")
    assert book(store, "s-0-0", call.id, "op-1", key="k-000001") == made  # sent twice
    with pytest.raises(ConflictError, match="booked a moment ago"):
        book(store, "s-0-0", call.id, "op-1", key="k-000002")
    with pytest.raises(ConflictError, match="another booking"):
        book(store, "s-1-0", call.id, "op-1", key="k-000001")
    with pytest.raises(NotStoredError, match="no slot"):
        book(store, "s-9-9", call.id, "op-1", key="k-000003")
    gone = release(store, made.id, "op-1")
    assert gone.released is not None and release(store, made.id, "op-1") == gone
    again = book(store, "s-0-0", call.id, "op-2", key="k-000004")
    assert bookings_of(store, call.id) == [gone, again]
    assert verify(store).faults == []
    erase(store, call_id=call.id)
    assert bookings_of(store, call.id) == []
    with pytest.raises(ConflictError):
        book(store, "s-0-0", None, "op-1", key="k-000005")  # whose call is gone keeps the appointment


def test_times_that_are_over_or_busy_are_not_booked(store, tmp_path):
    yesterday = datetime.now(UTC) - timedelta(days=1)
    import_roster(store, write_roster(tmp_path / "roster.csv", start=yesterday), "test")
    assert free_slots(store, Wish()) == []
    with pytest.raises(ConflictError, match="busy or over"):
        book(store, "s-0-0", None, "op-1", key="k-000001")
    path = write_roster(tmp_path / "roster.csv")
    path.write_text(path.read_text().replace("libre", "occupé"))
    import_roster(store, path, "test")
    with pytest.raises(ConflictError, match="busy or over"):
        book(store, "s-0-0", None, "op-1", key="k-000001")


def test_a_new_roster_replaces_the_old_one_and_names_bookings_that_lost_their_slot(store, tmp_path):
    import_roster(store, write_roster(tmp_path / "roster.csv"), "test")
    made = book(store, "s-1-0", None, "op-1", key="k-000001")
    second = import_roster(store, write_roster(tmp_path / "roster.csv", doctors=1, slots=4), "test")
    assert (second.doctors, second.slots, second.withdrawn, second.orphaned) == (1, 4, 3, (made.id,))
    assert [doctor.id for doctor in find_doctors(store, Wish())] == ["d-0"]
    assert [slot.id for slot in free_slots(store, Wish())] == ["s-0-0", "s-0-1", "s-0-2", "s-0-3"]
    third = import_roster(store, write_roster(tmp_path / "roster.csv"), "test")
    assert third.orphaned == () and "s-1-0" not in {slot.id for slot in free_slots(store, Wish())}


TWICE = "".join(f"Dr {name};orl;s-1;2030-01-01T09:00;2030-01-01T10:00\n" for name in "AB")


@pytest.mark.parametrize(
    ("text", "fault"),
    [
        ("nom;specialite\nDr A;rien\nDr B;rien\n", r"field specialties: .*\(1 more faults\)"),
        (f"nom;specialite;slot_id;debut;fin\n{TWICE}", "two doctors"),
    ],
)
def test_a_faulty_roster_changes_nothing(store, tmp_path, text, fault):
    import_roster(store, write_roster(tmp_path / "roster.csv"), "test")
    version = roster_version(store)
    (tmp_path / "bad.csv").write_text(text)
    with pytest.raises(StoreError, match=fault):
        import_roster(store, tmp_path / "bad.csv", "test")
    assert roster_version(store) == version and len(find_doctors(store, Wish())) == 2


BOOKER = """
import sys
from pathlib import Path
from llmft.errors import ConflictError
from llmft.serve.roster.booking import book
from llmft.serve.store.database import open_store
store = open_store(sys.argv[1] or None, Path(sys.argv[2]))
for slot in sys.argv[4].split():
    try:
        print(slot, book(store, slot, None, sys.argv[3], key=f"{sys.argv[3]}-{slot}").id, flush=True)
    except ConflictError:
        pass
"""


def test_no_slot_is_booked_twice_by_threads_and_processes(store, tmp_path):
    import_roster(store, write_roster(tmp_path / "roster.csv", doctors=2, slots=5), "test")
    slots = [f"s-{doctor}-{slot}" for doctor in range(2) for slot in range(5)]
    url = "" if store.is_sqlite else store.engine.url.render_as_string(hide_password=False)
    command = [sys.executable, "-c", BOOKER, url, str(store.folder)]
    other = subprocess.Popen([*command, "process", " ".join(slots)], stdout=subprocess.PIPE, text=True)

    def attempt(number):
        try:
            return book(store, slots[number % 10], None, f"op-{number}", key=f"thread-{number}").slot_id
        except ConflictError:
            return None

    with ThreadPoolExecutor(16) as threads:
        taken = [slot for slot in threads.map(attempt, range(60)) if slot]
    taken += [line.split()[0] for line in other.communicate(timeout=120)[0].splitlines()]
    assert other.returncode == 0
    assert sorted(taken) == sorted(slots)
    with store.reading() as connection:
        assert connection.execute(select(func.count()).select_from(bookings)).scalar_one() == 10
    assert verify(store).faults == []


def test_the_database_itself_allows_no_second_booking(store, tmp_path):
    import_roster(store, write_roster(tmp_path / "roster.csv"), "test")
    row = {"slot_id": "s-0-0", "operator": "op", "created": "2026"}
    with store.engine.begin() as connection:
        connection.execute(insert(bookings).values(id="one", key="one", **row))
        connection.execute(insert(bookings).values(id="old", key="old", released="2026", **row))
    with pytest.raises(IntegrityError), store.engine.begin() as connection:
        connection.execute(insert(bookings).values(id="two", key="two", **row))
