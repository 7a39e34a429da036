"""The journal: whatever is done to the chain shows, and what is erased leaves it whole."""

from __future__ import annotations

import json
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor

import pytest
from sqlalchemy import delete, insert, select, update
from tiny_store import WORDS, judged, tiny_answer, tiny_call

from llmft.errors import NotStoredError, StoreError
from llmft.serve.store.anchor import START, Head, keep_anchor, parse_head, read_anchor
from llmft.serve.store.calls import read_call
from llmft.serve.store.checking import verify
from llmft.serve.store.database import open_store
from llmft.serve.store.feedback import give_feedback
from llmft.serve.store.journal import append, canonical, export, link_hash, read_records, record
from llmft.serve.store.retention import erase, retain
from llmft.serve.store.tables import answers, calls, feedback, journal, journal_head


def chain(store):
    with store.reading() as connection:
        return list(read_records(connection))


def filled(store, records=5):
    for number in range(records):
        record(store, "test", {"number": number})
    return chain(store)


def test_records_form_a_chain(store):
    links = filled(store)
    assert [link.sequence for link in links] == [1, 2, 3, 4, 5] and links[0].previous == START
    assert [link.previous for link in links[1:]] == [link.hash for link in links[:-1]]
    assert [link.facts for link in links] == [{"number": number} for number in range(5)]
    verdict = verify(store)
    assert (verdict.records, verdict.faults, verdict.head) == (5, [], Head(5, links[-1].hash))
    assert read_anchor(store.folder) == verdict.head


def test_the_hash_is_what_the_documentation_says(store):
    link = filled(store, 1)[0]
    assert link.hash == link_hash(1, link.created, "test", '{"number":0}', START)
    assert canonical({"b": 1, "a": "é"}) == '{"a":"é","b":1}'


TAMPERING = {
    "body": (update(journal).where(journal.c.sequence == 3).values(body='{"number":9}'), "record 3 was changed"),
    "created": (update(journal).where(journal.c.sequence == 3).values(created="2020"), "record 3 was changed"),
    "kind": (update(journal).where(journal.c.sequence == 3).values(kind="other"), "record 3 was changed"),
    "hash": (update(journal).where(journal.c.sequence == 3).values(hash="f" * 64), "record 3 was changed"),
    "missing": (delete(journal).where(journal.c.sequence == 3), "record 3 is missing before record 4"),
    "missing two": (delete(journal).where(journal.c.sequence.in_([2, 3])), "records 2 to 3 are missing before record 4"),
    "beginning": (delete(journal).where(journal.c.sequence <= 2), "records 1 to 2 are missing before record 3"),
    "tail": (delete(journal).where(journal.c.sequence == 5), "the head names record 5, and the chain ends at 4"),
}


def test_tampering_is_found(store):
    whole = filled(store)
    for what in sorted(TAMPERING):
        change, fault = TAMPERING[what]
        with store.writing() as connection:
            connection.execute(change)
        assert any(fault in found for found in verify(store).faults), what
        with store.writing() as connection:  # as it was
            connection.execute(delete(journal))
            connection.execute(insert(journal), [link._asdict() for link in whole])
    assert verify(store).faults == []


def test_reordered_records_are_found(store):
    filled(store)
    with store.writing() as connection:
        for old, new in ((2, 100), (4, 2), (100, 4)):
            connection.execute(update(journal).where(journal.c.sequence == old).values(sequence=new))
    faults = verify(store).faults
    assert any("record 2 was changed" in fault for fault in faults) and any("record 4 was changed" in fault for fault in faults)


def test_a_tail_that_was_cut_with_its_head_is_found_by_the_anchor(store):
    links = filled(store)
    with store.writing() as connection:
        connection.execute(delete(journal).where(journal.c.sequence > 3))
        connection.execute(update(journal_head).values(sequence=3, hash=links[2].hash))
    assert verify(store).faults == ["the anchor names record 5, and the chain ends at 3: its tail was cut"]


def test_a_chain_that_was_written_anew_is_found_by_an_anchor_kept_elsewhere(store):
    filled(store)
    kept = parse_head(str(verify(store).head))
    previous = START
    with store.writing() as connection:
        for link in list(read_records(connection)):
            forged = link_hash(link.sequence, link.created, "forged", link.body, previous)
            values = {"kind": "forged", "previous": previous, "hash": forged}
            connection.execute(update(journal).where(journal.c.sequence == link.sequence).values(**values))
            previous = forged
        connection.execute(update(journal_head).values(hash=previous))
    (store.folder / "journal.anchor").unlink()
    assert verify(store).faults == []  # nobody can tell without an anchor
    assert verify(store, kept).faults == ["record 5 is not the one that the anchor names: the chain was written anew"]


def test_a_failed_transaction_leaves_neither_record_nor_anchor(store):
    before = filled(store, 1)
    anchor = read_anchor(store.folder)
    with pytest.raises(ZeroDivisionError), store.writing() as connection:
        append(connection, "test", {})
        raise ZeroDivisionError
    assert chain(store) == before and read_anchor(store.folder) == anchor


def test_an_anchor_never_goes_back(tmp_path):
    keep_anchor(tmp_path, Head(5, "a" * 64))
    keep_anchor(tmp_path, Head(4, "b" * 64))
    assert read_anchor(tmp_path) == Head(5, "a" * 64)
    for text in ("5", "x:" + "a" * 64, "5:" + "a" * 63):
        with pytest.raises(StoreError, match="no anchor"):
            parse_head(text)


WRITER = """
import sys
from pathlib import Path
from llmft.serve.store.database import open_store
from llmft.serve.store.journal import record
store = open_store(sys.argv[1] or None, Path(sys.argv[2]))
for number in range(15):
    record(store, "process", {"who": sys.argv[3], "number": number})
"""


def test_processes_and_threads_write_one_chain(store):
    url = "" if store.is_sqlite else store.engine.url.render_as_string(hide_password=False)
    command = [sys.executable, "-c", WRITER, url, str(store.folder)]
    other = subprocess.Popen([*command, "a"])
    with ThreadPoolExecutor(8) as threads:
        list(threads.map(lambda number: record(store, "thread", {"number": number}), range(25)))
    assert other.wait(120) == 0
    verdict = verify(store)
    assert (verdict.records, verdict.faults) == (40, [])
    assert [link.facts["number"] for link in chain(store) if link.facts.get("who") == "a"] == list(range(15))


def test_the_chain_can_be_checked_outside(store, tmp_path):
    links = filled(store)
    assert export(store, tmp_path / "journal.jsonl") == 5
    rows = [json.loads(line) for line in (tmp_path / "journal.jsonl").read_text().splitlines()]
    assert [row["hash"] for row in rows] == [link.hash for link in links]
    for row in rows:
        assert row["hash"] == link_hash(row["sequence"], row["created"], row["kind"], canonical(row["body"]), row["previous"])


def test_contents_are_held_to_their_records(store):
    answer = tiny_answer(store, tiny_call(store))
    made = give_feedback(store, judged(answer, "rejected", reason="trop bas"), "op-1")
    assert (verify(store).contents, verify(store).faults) == (2, [])
    with store.writing() as connection:
        connection.execute(update(answers).values(content=answers.c.content.concat(" ")))
        connection.execute(update(feedback).values(sequence=1))
    assert verify(store).faults == [
        f"{answer.id} was changed after record 1 was written",
        f"{made.id} has no record in the journal",
    ]


def test_no_words_stand_in_the_chain(store):
    call = tiny_call(store, subject="P-1042")
    give_feedback(store, judged(tiny_answer(store, call), "rejected", reason="poitrine"), "op-1")
    text = "".join(map(str, chain(store)))
    for words in ("poitrine", "cardiologie", "U3", "P-1042", "the whole prompt"):
        assert words not in text
    assert call.id in text


def test_an_erased_person_is_gone_and_the_chain_still_verifies(store):
    calls_of_one = [tiny_call(store, subject="P-1042") for _ in range(2)]
    other = tiny_call(store, "c'est autre chose", subject="P-7")
    for call in (*calls_of_one, other):
        give_feedback(store, judged(tiny_answer(store, call), "rejected", reason="poitrine"), "op-1")
    gone = erase(store, subject=" p-1042")
    assert (set(gone.calls), gone.answers, gone.feedback) == ({call.id for call in calls_of_one}, 2, 2)
    assert read_call(store, other.id).turns[0].text == "c'est autre chose"
    verdict = verify(store)
    assert (verdict.faults, verdict.contents, verdict.erased) == ([], 2, 4)
    with store.reading() as connection:
        assert connection.execute(select(calls.c.id)).scalars().all() == [other.id]
    with pytest.raises(NotStoredError):
        read_call(store, calls_of_one[0].id)
    with pytest.raises(NotStoredError, match="erased already"):
        erase(store, subject="P-1042")
    with pytest.raises(StoreError, match="either"):
        erase(store)


def test_nothing_erased_is_left_in_the_file(tmp_path, monkeypatch):
    monkeypatch.setenv("LLMFT_VAULT", str(tmp_path / "vault"))
    store = open_store(None, tmp_path / "desk")
    call = tiny_call(store, WORDS + " zygomatique")
    answer = tiny_answer(store, call)
    with store.reading() as connection:
        salt = connection.execute(select(answers.c.salt)).scalar_one()

    def stored():
        return b"".join(path.read_bytes() for path in store.folder.iterdir() if path.is_file())

    assert b"zygomatique" in stored() and salt in stored()
    erase(store, call_id=call.id)
    assert b"zygomatique" not in stored() and salt not in stored()
    assert answer.id.encode() in stored()  # the chain's record
    store.close()


def test_what_is_old_goes_and_the_chain_says_where_it_begins(store):
    old, young = tiny_call(store), tiny_call(store)
    tiny_answer(store, old)
    filled(store, 3)
    with store.writing() as connection:
        connection.execute(update(calls).where(calls.c.id == old.id).values(updated="2020-01-01T00:00:00.000000Z"))
        # records that are old since they were written: their hashes hold their time
        connection.execute(delete(journal))
        previous = START
        for number in range(1, 5):
            created = "2020-01-01T00:00:00.000000Z" if number < 3 else "2099-01-01T00:00:00.000000Z"
            link = link_hash(number, created, "test", "{}", previous)
            row = {"sequence": number, "created": created, "kind": "test", "body": "{}", "previous": previous, "hash": link}
            connection.execute(insert(journal).values(**row))
            previous = link
        connection.execute(update(journal_head).values(sequence=4, hash=previous))
    (store.folder / "journal.anchor").unlink()
    gone = retain(store, 30, 200)
    assert (gone.calls, gone.answers, gone.records) == ((old.id,), 1, 2)
    assert read_call(store, young.id).id == young.id
    verdict = verify(store)
    assert (verdict.records, verdict.first, verdict.faults) == (3, 3, [])
    with store.writing() as connection:
        connection.execute(delete(journal).where(journal.c.sequence == 3))
    assert verify(store).faults == ["record 3 is missing before record 4"]


@pytest.mark.parametrize(("days", "log_days", "rule"), [(-1, None, "0 or more"), (30, 182, "six months"), (400, 300, "no fewer")])
def test_too_short_a_retention_is_refused(store, days, log_days, rule):
    with pytest.raises(StoreError, match=rule):
        retain(store, days, log_days)
