"""A store to test with: its database in SQLite and in a PostgreSQL of the tests' own, a roster, calls, answers."""

from __future__ import annotations

import json
import os
import secrets
import shutil
import subprocess
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from llmft.dialogue import Triage
from llmft.serve.store.answers import Answer, NewAnswer, Versions, record_answer
from llmft.serve.store.calls import Call, Lang, add_turn, start_call
from llmft.serve.store.database import Store
from llmft.serve.store.feedback import NewFeedback

TRIAGE = {
    "urgency": "U3",
    "specialty": "cardiologie",
    "icd10": ["R07.4"],
    "red_flags": [],
    "summary": "douleur au thorax",
    "missing_info": [],
    "escalate": False,
}
SAID = "Je vous oriente en cardiologie."
WORDS = "j'ai mal à la poitrine depuis hier"
ANSWER = NewAnswer("triage", turns_read=1, triage=TRIAGE, decided_by="model", versions=Versions(model="a" * 64))


@contextmanager
def quick_folder() -> Iterator[Path]:
    """A folder in memory where there is one: each commit is synced, and a busy disk takes a tenth of a second for that."""
    memory = "/dev/shm"
    with tempfile.TemporaryDirectory(prefix="llmft-", dir=memory if os.access(memory, os.W_OK) else None) as name:
        yield Path(name)


@contextmanager
def running_postgresql() -> Iterator[str]:
    """A PostgreSQL of its own, reached by a socket in its folder alone; yields the URL of its database."""
    found = sorted(Path("/usr/lib/postgresql").glob("*/bin"))
    if not found and os.environ.get("LLMFT_WITHOUT_POSTGRESQL"):
        pytest.skip("LLMFT_WITHOUT_POSTGRESQL is set")
    assert found, "install Debian's postgresql, or set LLMFT_WITHOUT_POSTGRESQL=1 to leave its tests out"
    user, as_user = "postgres", []
    with tempfile.TemporaryDirectory(prefix="llmft-postgresql-") as name:  # not in pytest's: only their owner may enter those
        folder = Path(name)
        if os.geteuid() == 0:  # PostgreSQL refuses to run as root
            shutil.chown(folder, user)
            as_user = ["runuser", "-u", user, "--"]

        def run(program: str, *arguments: str) -> None:
            command = [*as_user, str(found[-1] / program), "-D", str(folder / "data"), *arguments]
            subprocess.run(command, check=True, stdout=subprocess.DEVNULL, cwd=folder)

        run("initdb", "-U", user, "--no-sync", "--auth=trust", "--encoding=UTF8", "--locale=C")
        options = f"-c listen_addresses='' -c unix_socket_directories={folder} -c fsync=off -c max_connections=200"
        run("pg_ctl", "-w", "-s", "-l", str(folder / "log"), "-o", options, "start")
        try:
            yield f"postgresql://{user}@/postgres?host={folder}"
        finally:
            run("pg_ctl", "-m", "immediate", "-s", "stop")


def new_database(url: str) -> str:
    """The URL of an empty schema in the database at ``url``: as good as a database of its own, and made at once."""
    import psycopg

    name = f"desk_{secrets.token_hex(4)}"
    with psycopg.connect(url, autocommit=True) as connection:
        connection.execute(f"CREATE SCHEMA {name}")
    return f"{url}&options=-csearch_path%3D{name}"


def tiny_call(store: Store, *said: str, lang: Lang = "fr", subject: str | None = None) -> Call:
    """A call of ``op-1`` in which the patient has said something."""
    call = start_call(store, lang, "op-1", subject=subject)
    for number, text in enumerate(said or (WORDS,)):
        add_turn(store, call.id, "operator" if number % 2 else "patient", text, key=f"turn-{number}")
    return call


def tiny_answer(store: Store, call: Call, **changes: object) -> Answer:
    """The model's answer to the call, which asks for too little."""
    text = f"{SAID}\n{Triage.model_validate_json(json.dumps(TRIAGE)).as_block()}"
    return record_answer(store, replace(ANSWER, call_id=call.id, text=text, **changes), "the whole prompt", "op-1")


def judged(answer: Answer, action: str = "accepted", **changes: object) -> NewFeedback:
    """A judgement with a key of its own."""
    value = {"answer_id": answer.id, "action": action, "key": secrets.token_hex(8)}
    return NewFeedback.model_validate_json(json.dumps(value | changes))


def write_roster(path: Path, doctors: int = 2, slots: int = 3, start: datetime | None = None) -> Path:
    """A roster in CSV: doctors of cardiology, each with slots of 20 minutes from tomorrow on."""
    lines = ["doctor_id;nom;specialite;site;langues;age_min;age_max;slot_id;debut;fin;statut"]
    first = start or (datetime.now(UTC) + timedelta(days=1)).replace(hour=9, minute=0, second=0, microsecond=0)
    for doctor in range(doctors):
        for slot in range(slots):
            begin = first + timedelta(minutes=20 * (slot * doctors + doctor))
            times = f"{begin.isoformat()};{(begin + timedelta(minutes=20)).isoformat()}"
            who = f"d-{doctor};Dr Exemple {doctor};cardiologie;Cabinet des Tilleuls;fr,en;16;"
            lines.append(f"{who};s-{doctor}-{slot};{times};libre")
    path.write_text("\n".join(lines) + "\n")
    return path
