"""What the desk stores of calls, answers and keys, and how the database behaves: the same in SQLite and in PostgreSQL."""

from __future__ import annotations

import subprocess
import sys
import time
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace

import pytest
from alembic.autogenerate import compare_metadata
from alembic.migration import MigrationContext
from alembic.script import ScriptDirectory
from sqlalchemy import select, text, update
from sqlalchemy.exc import DBAPIError
from tiny_store import ANSWER, TRIAGE, judged, new_database, tiny_answer, tiny_call

from llmft.errors import ConflictError, MissingExtraError, NotStoredError, StoreDownError, StoreError
from llmft.serve.store import database, migrations
from llmft.serve.store.answers import answers_between, answers_of, read_answer, record_answer
from llmft.serve.store.calls import add_turn, end_call, read_call, recent_calls, replace_turns, start_call
from llmft.serve.store.checking import verify
from llmft.serve.store.database import ago, now, open_store
from llmft.serve.store.feedback import give_feedback
from llmft.serve.store.journal import recent_records, record
from llmft.serve.store.keys import add_key, check_key, has_keys, list_keys, revoke_key
from llmft.serve.store.retention import erase
from llmft.serve.store.sessions import check_session, close_session, open_session
from llmft.serve.store.tables import calls, keys, metadata, sessions


def test_migrations_make_the_tables(store):
    with store.engine.connect() as connection:
        context = MigrationContext.configure(connection, opts={"compare_type": True})
        assert compare_metadata(context, metadata) == []
        assert context.get_current_revision() == migrations.NEWEST
    scripts = ScriptDirectory(str(migrations.__path__[0]))
    assert scripts.get_current_head() == migrations.NEWEST


def test_a_newer_database_is_left_alone(store):
    with store.writing() as connection:
        connection.execute(text("UPDATE alembic_version SET version_num = '9999'"))
    with pytest.raises(StoreError, match="newer llmft"), store.engine.connect() as connection:
        migrations.migrate(connection)


def test_sqlite_is_set_to_lose_nothing(tmp_path):
    store = open_store(None, tmp_path / "desk")
    with store.reading() as connection:
        found = {name: connection.exec_driver_sql(f"PRAGMA {name}").scalar() for name in ("journal_mode", "synchronous")}
    assert found == {"journal_mode": "wal", "synchronous": 2}  # 2: FULL
    assert (tmp_path / "desk").stat().st_mode & 0o777 == 0o700
    store.close()


OPENER = """
import sys
from pathlib import Path
from llmft.serve.store.database import open_store
open_store(sys.argv[1] or None, Path(sys.argv[2])).ping()
"""


def test_processes_that_open_a_new_database_at_once_all_find_it_whole(tmp_path, postgresql):
    for url in ("", new_database(postgresql)):
        command = [sys.executable, "-c", OPENER, url, str(tmp_path / "desk")]
        assert [process.wait(60) for process in [subprocess.Popen(command) for _ in range(2)]] == [0, 0]


def test_a_call_outlives_a_reload(store):
    call = start_call(store, "fr", "op-1")
    first = add_turn(store, call.id, "patient", "j'ai mal", key="key-0001")
    assert add_turn(store, call.id, "patient", "[NOM_1] a mal", key="key-0001") == first  # sent twice, and masked otherwise
    add_turn(store, call.id, "operator", "Depuis quand ?", key="key-0002")
    with pytest.raises(ConflictError, match="another turn"):
        add_turn(store, call.id, "operator", "j'ai mal", key="key-0001")
    found = read_call(store, call.id)
    assert [(turn.number, turn.speaker, turn.text) for turn in found.turns] == [
        (0, "patient", "j'ai mal"),
        (1, "operator", "Depuis quand ?"),
    ]
    assert [recent.id for recent in recent_calls(store, by="op-1", status="open")] == [call.id]
    assert recent_calls(store, by="op-2") == recent_calls(store, status="done") == []
    assert end_call(store, call.id, "done").status == end_call(store, call.id, "done").status == "done"
    for change in (
        lambda: end_call(store, call.id, "escalated"),
        lambda: add_turn(store, call.id, "patient", "x", key="key-0003"),
    ):
        with pytest.raises(ConflictError, match="ended as done"):
            change()


def test_masking_a_call_once_more_keeps_the_keys(store):
    call = tiny_call(store, "c'est Marie", "Bonjour", "Marie Durand")
    before = read_call(store, call.id).turns
    again = replace_turns(store, call.id, [("patient", "c'est [PRENOM]"), ("operator", "Bonjour")])
    assert [turn.text for turn in again.turns] == ["c'est [PRENOM]", "Bonjour"]
    assert [turn.created for turn in again.turns] == [turn.created for turn in before[:2]]
    assert add_turn(store, call.id, "operator", "Bonjour", key="turn-1").number == 1
    assert add_turn(store, call.id, "patient", "et puis", key="turn-9").number == 2


def test_turns_of_many_threads_all_have_a_place(store):
    call = start_call(store, "en", "op-1")
    with ThreadPoolExecutor(8) as threads:
        list(threads.map(lambda n: add_turn(store, call.id, "patient", f"turn {n}", key=f"key-{n:04}"), range(24)))
    turns = read_call(store, call.id).turns
    assert [turn.number for turn in turns] == list(range(24)) and len({turn.text for turn in turns}) == 24


@pytest.mark.parametrize("said", ["a\0b", "\ud800"], ids=["NUL", "lone surrogate"])
def test_characters_that_no_text_has_are_refused_in_words(store, said):
    call = start_call(store, "fr", "op-1")
    try:
        add_turn(store, call.id, "patient", said, key="key-0001")
    except StoreError as error:
        assert "characters" in str(error) and read_call(store, call.id).turns == ()
    else:
        assert store.is_sqlite and read_call(store, call.id).turns[0].text == said  # it takes a NUL character as it is


def test_answers_come_back_as_they_were_given(store):
    call = tiny_call(store)
    first = tiny_answer(store, call)
    bare = record_answer(store, replace(ANSWER, kind="chat", text="secret words"), "prompt", "op-1")
    assert read_answer(store, first.id) == first and first.given.triage == TRIAGE
    assert bare.given.text == "" and bare.given.triage is None  # of the bare chat interface no words are kept
    assert answers_of(store, call.id) == [first]
    assert [answer.id for answer in answers_between(store, ago(1))] == [first.id, bare.id]
    assert answers_between(store, ago(1), first.created) == answers_between(store, now()) == []
    assert [answer.id for answer in answers_between(store, "", kind="chat")] == [bare.id]
    body = recent_records(store, "answer")[-1].facts
    assert body["versions"]["model"] == "a" * 64 and body["call"] == call.id and len(body["input"]) == 64
    with pytest.raises(NotStoredError):
        read_answer(store, "answer-0")
    erase(store, call_id=call.id)
    with pytest.raises(NotStoredError, match="erased"):
        tiny_answer(store, call)


def test_a_key_opens_until_it_is_revoked(store):
    assert not has_keys(store)
    key = add_key(store, "supervisor", "Desk 3")
    who = check_key(store, key)
    assert who is not None and (who.name, who.role) == ("Desk 3", "supervisor") and has_keys(store)
    wrong = key[:-1] + ("A" if key[-1] != "A" else "B")
    for text_ in (wrong, key[:-1], key + "A", "", "llmft-", key.replace(who.key_id, "0" * 12), "\ud800"):
        assert check_key(store, text_) is None
    token = open_session(store, who)
    assert check_session(store, token) == who and check_session(store, token + "x") is None
    other = open_session(store, who)
    close_session(store, other)
    assert check_session(store, other) is None and check_session(store, token) == who
    with store.reading() as connection:
        stored = str(connection.execute(select(keys)).all()) + str(connection.execute(select(sessions)).all())
    assert key.split("-", 2)[2] not in stored and token not in stored
    revoke_key(store, who.key_id)
    revoke_key(store, who.key_id)
    assert check_key(store, key) is check_session(store, token) is None and not has_keys(store)
    assert [row.revoked is None for row in list_keys(store)] == [False]
    assert [len(recent_records(store, kind)) for kind in ("key_added", "key_revoked")] == [1, 1]
    with pytest.raises(NotStoredError):
        revoke_key(store, "nobody")
    with pytest.raises(StoreError, match="no name for a key"):
        add_key(store, "operator", "\n")


def test_a_session_runs_out(store):
    who = check_key(store, add_key(store, "operator", "op"))
    token = open_session(store, who, hours=1)
    with store.writing() as connection:
        connection.execute(update(sessions).values(expires=ago(0)))
    assert check_session(store, token) is None
    open_session(store, who)
    with store.reading() as connection:
        assert len(connection.execute(select(sessions)).all()) == 1  # the one that had run out is removed


@pytest.mark.parametrize(
    ("url", "rule"),
    [("mysql://h/d", "is no database of the desk"), ("nonsense", "cannot be read"), ("oracle://", "is no database of the desk")],
)
def test_an_address_that_cannot_be_used_is_named(tmp_path, url, rule):
    with pytest.raises(StoreError, match=rule):
        open_store(url, tmp_path)


def test_a_database_that_is_away_fails_clearly_and_comes_back(postgresql, tmp_path, monkeypatch):
    monkeypatch.setattr(database, "WAIT_S", 0.5)
    with pytest.raises(StoreDownError, match="does not answer"):
        open_store("postgresql://nobody:secret@127.0.0.1:1/x", tmp_path)
    with pytest.raises(StoreDownError) as error:
        open_store("postgresql://nobody:secret@127.0.0.1:1/x", tmp_path)
    assert "secret" not in str(error.value)
    store = open_store(new_database(postgresql), tmp_path)
    record(store, "test", {})
    with pytest.raises(StoreDownError, match="went away"), store.writing() as connection:  # cut off in mid-transaction
        cut_off(postgresql)
        connection.execute(update(calls).values(lang="fr"))
    record(store, "test", {})
    assert (verify(store).records, verify(store).faults) == (2, [])
    store.close()


def cut_off(url):
    """End every other connection of the server, as a restart does."""
    import psycopg

    others = "pid <> pg_backend_pid() AND datname = 'postgres'"
    with psycopg.connect(url, autocommit=True) as connection:
        connection.execute(f"SELECT pg_terminate_backend(pid, 10000) FROM pg_stat_activity WHERE {others}")


def test_a_database_that_comes_back_in_time_is_waited_for(tmp_path, monkeypatch):
    store = open_store(None, tmp_path / "desk")
    store.close()
    (tmp_path / "desk").rename(tmp_path / "away")
    with ThreadPoolExecutor(1) as threads:
        waiting = threads.submit(record, store, "test", {})
        time.sleep(0.6)
        (tmp_path / "away").rename(tmp_path / "desk")
        assert waiting.result(30).sequence == 1
    store.close()


def test_a_damaged_file_is_named(tmp_path):
    (tmp_path / "desk").mkdir()
    (tmp_path / "desk" / database.DATABASE).write_bytes(b"no database at all, but some bytes" * 100)
    with pytest.raises(StoreError, match="damaged or no database"):
        open_store(None, tmp_path / "desk")


def test_a_question_that_is_wrong_is_no_absence(store):
    with pytest.raises(DBAPIError), store.reading() as connection:
        connection.execute(text("SELECT * FROM nothing_of_this_name"))


def test_feedback_without_its_driver_names_the_extra(tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "psycopg", None)
    with pytest.raises(MissingExtraError, match="postgresql"):
        open_store("postgresql://localhost/x", tmp_path)


def test_the_disk_is_asked_before_the_caller_hears(store):
    """Judged by its record: what was acknowledged is found by another connection."""
    answer = tiny_answer(store, tiny_call(store))
    made = give_feedback(store, judged(answer), "op-1")
    other = open_store(store.engine.url.render_as_string(hide_password=False), store.folder)
    assert recent_records(other, "feedback")[0].facts["feedback"] == made.id
    other.close()
