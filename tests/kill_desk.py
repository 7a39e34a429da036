"""Load for the desk's records that is killed: what each writer was told is stored must be there afterwards.

As a program it forks writers and kills them, again and again; one line on its output for each thing that they were told.
"""

from __future__ import annotations

import os
import random
import signal
import subprocess
import sys
import threading
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

from sqlalchemy import select

from llmft.deidentify.stage import deidentify
from llmft.errors import ConflictError
from llmft.serve.roster.booking import book, release
from llmft.serve.store.checking import verify
from llmft.serve.store.database import Store, open_store
from llmft.serve.store.feedback import NewFeedback, give_feedback
from llmft.serve.store.journal import read_records, record
from llmft.serve.store.tables import bookings, feedback

PROCESSES, THREADS = 2, 4


def told(store: Store, slots: list[str], answer_id: str, kills: int, seed: int = 1) -> list[tuple[str, ...]]:
    """What the writers of so many kills were told, each as kind and facts; the writers are processes of a fresh program."""
    url = "" if store.is_sqlite else store.engine.url.render_as_string(hide_password=False)
    command = [sys.executable, __file__, url, str(store.folder), answer_id, str(kills), str(seed), *slots]
    done = subprocess.run(command, stdout=subprocess.PIPE, text=True, check=True)
    return [tuple(line.split()) for line in done.stdout.splitlines()]


def losses(store: Store, acknowledged: list[tuple[str, ...]]) -> list[str]:
    """What is not as it was told, or does not hold together."""
    wrong = list(verify(store).faults)
    with store.reading() as connection:
        judged = set(connection.execute(select(feedback.c.id)).scalars())
        booked = {row.id: row for row in connection.execute(select(bookings))}
        links = list(read_records(connection))
    hashes = {str(link.sequence): link.hash for link in links}
    for kind, *facts in acknowledged:
        if kind == "feedback" and facts[0] not in judged:
            wrong.append(f"feedback {facts[0]} is lost")
        if kind == "booked" and (facts[0] not in booked or booked[facts[0]].slot_id != facts[1]):
            wrong.append(f"booking {facts[0]} is lost")
        if kind == "released" and (facts[0] not in booked or booked[facts[0]].released is None):
            wrong.append(f"release {facts[0]} is lost")
        if kind == "record" and hashes.get(facts[0]) != facts[1]:
            wrong.append(f"record {facts[0]} is lost")
    taken = Counter(row.slot_id for row in booked.values() if row.released is None)
    wrong += [f"slot {slot} is booked {count} times" for slot, count in taken.items() if count > 1]
    journaled = {link.facts["booking"] for link in links if link.kind == "booked"}
    wrong += [f"booking {name} stands without its record, or the record without it" for name in journaled ^ set(booked)]
    return wrong


def kill_once(url: str, folder: Path, answer_id: str, slots: list[str], lines: int) -> list[str]:
    """Fork writers that have all loaded already, kill them after so many lines; returns what they wrote."""
    reader, writer = os.pipe()
    children = []
    for _ in range(PROCESSES):
        if not (child := os.fork()):
            os.close(reader)
            _write(writer, open_store(url or None, folder), slots, answer_id)
        children.append(child)
    os.close(writer)
    said: list[str] = []
    with os.fdopen(reader) as file:
        while len(said) < lines or not any(line.startswith("feedback") for line in said):
            said.append(file.readline())
            assert said[-1], "the writers have ended by themselves"
        for child in children:
            os.kill(child, signal.SIGKILL)
        for child in children:
            os.waitpid(child, 0)
        said += file.readlines()
    return said


def _write(output: int, store: Store, slots: list[str], answer_id: str) -> None:
    """Write from several threads until the process is killed."""
    random.seed()  # a forked process would do what the other does

    def work() -> None:
        while True:
            for said in _some_work(store, slots, answer_id):
                os.write(output, f"{said}\n".encode())  # one call, so that a line is whole or not there

    for _ in range(THREADS):
        threading.Thread(target=work, daemon=True).start()
    signal.pause()


def _some_work(store: Store, slots: list[str], answer_id: str) -> Iterator[str]:
    key = random.randbytes(8).hex()
    head = record(store, "load", {"key": key})
    yield f"record {head.sequence} {head.hash}"
    given = NewFeedback(answer_id=answer_id, action="rejected", reason="trop bas", key=key)
    yield f"feedback {give_feedback(store, given, key).id}"
    try:
        booking = book(store, random.choice(slots), None, key, key=key)
    except ConflictError:  # somebody was faster
        return
    yield f"booked {booking.id} {booking.slot_id}"
    if random.random() < 0.5:
        yield f"released {release(store, booking.id, key).id}"


if __name__ == "__main__":
    url, folder, answer_id, kills, seed, *slots = sys.argv[1:]
    deidentify(("warm",), "fr")
    chance = random.Random(int(seed))
    for _ in range(int(kills)):
        print("".join(kill_once(url, Path(folder), answer_id, slots, chance.randint(4, 60))), end="", flush=True)
