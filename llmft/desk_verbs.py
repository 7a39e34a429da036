"""What the verbs about the desk's records do once their arguments are read."""

from __future__ import annotations

import argparse
import getpass
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING

from llmft.errors import StoreError
from llmft.vocabulary import specialties, specialty_id

if TYPE_CHECKING:
    from llmft.serve.store.database import Store


def journal_verify(arguments: argparse.Namespace) -> int:
    """``llmft journal verify``."""
    from llmft.serve.store.anchor import parse_head
    from llmft.serve.store.checking import verify

    anchor = parse_head(arguments.anchor) if arguments.anchor else None
    with _desk(arguments) as store:
        verdict = verify(store, anchor)
    for fault in verdict.faults:
        print(f"llmft: {fault}", file=sys.stderr)
    kept = f", from number {verdict.first} on" if verdict.first > 1 else ""
    print(f"{verdict.records} records{kept}; {verdict.contents} contents are as recorded, {verdict.erased} were erased")
    if verdict.faults:
        print("the journal is NOT whole")
        return 1
    print(f"the journal is whole; keep its head elsewhere: {verdict.head}")
    return 0


def journal_export(arguments: argparse.Namespace) -> None:
    """``llmft journal export``."""
    from llmft.serve.store.journal import export

    with _desk(arguments) as store:
        print(f"{arguments.output}: {export(store, arguments.output)} records")


def journal_retain(arguments: argparse.Namespace) -> None:
    """``llmft journal retain``."""
    from llmft.serve.store.retention import retain

    with _desk(arguments) as store:
        gone = retain(store, arguments.days, arguments.log_days)
    print(f"removed: {len(gone.calls)} calls, {gone.answers} answers, {gone.feedback} judgements, {gone.records} records")


def journal_erase(arguments: argparse.Namespace) -> None:
    """``llmft journal erase``."""
    from llmft.serve.store.retention import erase

    with _desk(arguments) as store:
        gone = erase(store, subject=arguments.subject, call_id=arguments.call)
    print(f"erased: {len(gone.calls)} calls, {gone.answers} answers, {gone.feedback} judgements; backups are yours to erase")
    for call_id in gone.calls:
        print(f"where feedback was exported and prepared, also: llmft data erase --id {call_id}")


def keys_add(arguments: argparse.Namespace) -> None:
    """``llmft keys add``."""
    from llmft.serve.store.keys import add_key

    with _desk(arguments) as store:
        key = add_key(store, arguments.role, arguments.name)
    print(key)
    print("this key is shown once and stored only as a hash: hand it over now", file=sys.stderr)


def keys_list(arguments: argparse.Namespace) -> None:
    """``llmft keys list``."""
    from llmft.serve.store.keys import list_keys

    with _desk(arguments) as store:
        for key in list_keys(store):
            state = f"revoked {key.revoked[:10]}" if key.revoked else "in force"
            print(f"{key.id}  {key.role:10}  {key.name}  made {key.created[:10]}, {state}")


def keys_revoke(arguments: argparse.Namespace) -> None:
    """``llmft keys revoke``."""
    from llmft.serve.store.keys import revoke_key

    with _desk(arguments) as store:
        revoke_key(store, arguments.id)
    print(f"{arguments.id}: revoked")


def roster_import(arguments: argparse.Namespace) -> None:
    """``llmft roster import``."""
    from llmft.serve.roster.importing import import_roster

    with _desk(arguments) as store:
        made = import_roster(store, arguments.file, _who())
    print(f"{made.doctors} doctors, {made.slots} slots; {made.withdrawn} earlier slots withdrawn (roster {made.version[:12]})")
    for booking in made.orphaned:
        print(f"llmft: the booking {booking} has lost its slot; call its patient back", file=sys.stderr)


def roster_slots(arguments: argparse.Namespace) -> None:
    """``llmft roster slots``."""
    from llmft.serve.roster.search import Wish, free_slots

    specialty = specialty_id(arguments.specialty) if arguments.specialty else None
    if arguments.specialty and specialty is None:
        raise StoreError(f"{arguments.specialty!r} is no specialty; choose from {', '.join(specialties())}")
    wish = Wish(specialty=specialty, site=arguments.site, language=arguments.language, age=arguments.age)
    with _desk(arguments) as store:
        found = free_slots(store, wish, limit=arguments.limit)
    for slot in found:
        print(f"{slot.starts}  {slot.doctor.display_name}  {', '.join(slot.doctor.specialties)}  {slot.doctor.site or ''}")
    if not found:
        print("no free time fits; ask for less, or import a newer roster")


def feedback_export(arguments: argparse.Namespace) -> None:
    """``llmft feedback export``."""
    from llmft.serve.store.loop import PAIRS, ROWS, export_feedback

    with _desk(arguments) as store:
        made = export_feedback(
            store, arguments.output, arguments.beside, agreement=arguments.agreement, operators=arguments.operators
        )
    print(f"{arguments.output / ROWS}: {made.rows} calls")
    print(f"{arguments.output / PAIRS}: {made.pairs} answers, of {made.judgements} judgements")
    print(
        f"left out: {made.in_test} in a test split, {made.disputed} disputed, {made.too_few} judged by too few, "
        f"{made.unusable} without triage or patient's words"
    )


def models_use(arguments: argparse.Namespace) -> None:
    """``llmft models use``."""
    from llmft.serve.store.models import use_model

    with _desk(arguments) as store:
        version = use_model(store, arguments.file, _who(), gate_dir=arguments.gate, despite_gate=arguments.despite_gate)
    print(f"{version.path}: in service (gate {version.gate}, SHA-256 {version.sha256[:12]}…)")


def models_list(arguments: argparse.Namespace) -> None:
    """``llmft models list``."""
    from llmft.serve.store.models import list_models

    with _desk(arguments) as store:
        versions = list_models(store)
    for version in versions:
        mark = "*" if version is versions[-1] else " "
        back = f", back to {version.back_to}" if version.back_to is not None else ""
        print(
            f"{mark} {version.number}  {version.created[:19]}  gate {version.gate}{back}  {version.sha256[:12]}  {version.path}"
        )


def models_back(arguments: argparse.Namespace) -> None:
    """``llmft models back``."""
    from llmft.serve.store.models import roll_back

    with _desk(arguments) as store:
        version = roll_back(store, _who())
    print(f"{version.path}: in service again (SHA-256 {version.sha256[:12]}…)")


@contextmanager
def _desk(arguments: argparse.Namespace) -> Iterator[Store]:
    """The desk's store, let go at the end."""
    from llmft.serve.store.database import open_store

    store = open_store(arguments.database, arguments.desk)
    try:
        yield store
    finally:
        store.close()


def _who() -> str:
    """Whom the journal names for a command: the account that gave it."""
    try:
        return f"command:{getpass.getuser()}"[:80]
    except (OSError, KeyError):
        return "command"
