"""Whether the journal is whole: each record in its place and unchanged, the tail not cut, the contents as they were recorded.

What it cannot find: somebody who may write to the database *and* to every anchor can make a new chain from the first record. So
the head's ``NUMBER:HASH`` is printed, to be kept where such a person cannot write.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import dataclass, field

from sqlalchemy import Connection, select

from llmft.serve.store.anchor import START, Head, read_anchor
from llmft.serve.store.database import Store
from llmft.serve.store.journal import PIECE, Record, link_hash, read_records, seal
from llmft.serve.store.tables import answers, feedback, journal, journal_head

CONTENTS = {"answer": answers, "feedback": feedback}  # kind of record ─▶ where its content lies
SHOWN = 20  # faults; after a record that was taken out there are few more to learn from


@dataclass
class Verdict:
    """What was looked at, and what is wrong."""

    records: int = 0
    contents: int = 0  # answers and judgements that are as they were recorded
    erased: int = 0  # of which the chain alone is left
    head: Head = Head(0, START)
    first: int = 1  # number of the first record that is kept
    faults: list[str] = field(default_factory=list)


def verify(store: Store, anchor: Head | None = None) -> Verdict:
    """Check the chain against itself, its head, the anchor in the desk's folder, and ``anchor``, one that was kept elsewhere."""
    anchors = [known for known in (read_anchor(store.folder), anchor) if known is not None and known.sequence > 0]
    verdict = Verdict()
    with store.reading() as connection:
        _walk(connection, verdict, anchors)
        _check_ends(connection, verdict, anchors)
        _check_contents(connection, verdict)
    return verdict


def _cut(connection: Connection) -> Head:
    """Where retention last cut the chain, as its own record in the chain says; the start when it never did."""
    cut = Head(0, START)
    for link in read_records(connection):
        if link.kind == "retained" and link.facts.get("cut"):
            cut = max(cut, Head(*link.facts["cut"]))
    return cut


def _walk(connection: Connection, verdict: Verdict, anchors: list[Head]) -> None:
    """Each record against the one before it."""
    before = _cut(connection)
    verdict.first = before.sequence + 1
    for link in read_records(connection):
        verdict.records += 1
        for fault in _faults(link, before, anchors):
            _tell(verdict, fault)
        verdict.erased += link.kind in CONTENTS  # those that are found will be taken off again
        before = Head(link.sequence, link.hash)
    verdict.head = before


def _faults(link: Record, before: Head, anchors: list[Head]) -> Iterator[str]:
    if link.sequence != before.sequence + 1:
        yield f"{_missing(before.sequence + 1, link.sequence)} before record {link.sequence}"
    elif link.previous != before.hash:
        yield f"record {link.sequence} does not follow the one before it: one of the two was changed or replaced"
    if link.hash != link_hash(link.sequence, link.created, link.kind, link.body, link.previous):
        yield f"record {link.sequence} was changed after it was written"
    if any(anchor.sequence == link.sequence and anchor.hash != link.hash for anchor in anchors):
        yield f"record {link.sequence} is not the one that the anchor names: the chain was written anew"


def _missing(start: int, end: int) -> str:
    if end <= start:
        return "a record is out of place"
    return f"record {start} is missing" if end == start + 1 else f"records {start} to {end - 1} are missing"


def _check_ends(connection: Connection, verdict: Verdict, anchors: list[Head]) -> None:
    """The tail: what the database and the anchors say of the last record."""
    row = connection.execute(select(journal_head.c.sequence, journal_head.c.hash)).first()
    head, end = Head(*row) if row else Head(0, START), verdict.head.sequence
    if head != verdict.head:
        _tell(
            verdict,
            f"the head names record {head.sequence}, and the chain ends at {end}: its tail was cut or replaced",
        )
    for anchor in anchors:
        if anchor.sequence > end:
            _tell(verdict, f"the anchor names record {anchor.sequence}, and the chain ends at {end}: its tail was cut")


def _check_contents(connection: Connection, verdict: Verdict) -> None:
    """Each stored answer and judgement against the hash of it in its record; those without a row were erased."""
    for kind, table in CONTENTS.items():
        columns = (table.c.id, table.c.sequence, table.c.content, table.c.salt, journal.c.body)
        asked = select(*columns).outerjoin(journal, journal.c.sequence == table.c.sequence).order_by(table.c.sequence)
        for row in connection.execution_options(yield_per=PIECE).execute(asked):
            told = json.loads(row.body) if row.body else {}
            if told.get(kind) == row.id:
                verdict.erased -= 1
            if row.sequence < verdict.first:  # retention has cut its record
                continue
            if told.get(kind) != row.id:
                _tell(verdict, f"{row.id} has no record in the journal")
            elif told["content"] != seal(row.salt, row.content):
                _tell(verdict, f"{row.id} was changed after record {row.sequence} was written")
            else:
                verdict.contents += 1


def _tell(verdict: Verdict, fault: str) -> None:
    if len(verdict.faults) < SHOWN:
        verdict.faults.append(fault)
