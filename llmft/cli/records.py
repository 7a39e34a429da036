"""Verbs about what the operator's desk has stored: journal, keys, roster, feedback, models."""

from __future__ import annotations

import argparse
from collections.abc import Callable
from pathlib import Path

from llmft.cli.arguments import Verbs, verb_parser


def desk_arguments(verb: argparse.ArgumentParser) -> None:
    """Which desk."""
    verb.add_argument("--desk", type=Path, metavar="DIR", help="the desk's folder (default: $LLMFT_DESK, or desk in the vault)")
    verb.add_argument("--database", metavar="URL", help="postgresql://… (default: $LLMFT_DATABASE, or SQLite in the folder)")


def add_journal(verbs: Verbs) -> None:
    """The verb ``journal``."""
    verb = verb_parser(
        verbs,
        "journal",
        "check, export or shorten the desk's journal; erase a person",
        "  llmft journal verify\n"
        "  llmft journal verify --anchor 1042:9f86d081…   (as an earlier verify printed it)\n"
        "  llmft journal export --output journal.jsonl\n"
        "  llmft journal retain --days 90 --log-days 400\n"
        "  llmft journal erase --subject P-1042",
    )
    actions = verb.add_subparsers(title="actions", required=True, metavar="ACTION")
    checked = actions.add_parser("verify", help="find records that were changed, taken out or moved, and a tail that was cut")
    checked.add_argument("--anchor", metavar="NUMBER:HASH", help="a head that was kept elsewhere; the chain must hold it")
    out = actions.add_parser("export", help="write the chain as JSONL")
    out.add_argument("--output", type=Path, required=True, help="file to write")
    kept = actions.add_parser("retain", help="remove what is older than it may be")
    kept.add_argument("--days", type=float, required=True, help="of contents: calls, answers, judgements")
    kept.add_argument("--log-days", type=float, help="of the chain's records, at least 183 (default: all are kept)")
    erased = actions.add_parser("erase", help="remove a person's calls for good; the chain still verifies")
    who = erased.add_mutually_exclusive_group(required=True)
    who.add_argument("--subject", help="the patient's number that the calls were begun with")
    who.add_argument("--call", help="one call's id")
    _finish(verb, actions, "journal")


def add_keys(verbs: Verbs) -> None:
    """The verb ``keys``."""
    verb = verb_parser(
        verbs,
        "keys",
        "make, list and revoke the keys of operators and supervisors",
        "  llmft keys add --role operator --name desk-3\n  llmft keys list\n  llmft keys revoke 3f2a9c01b7de",
    )
    actions = verb.add_subparsers(title="actions", required=True, metavar="ACTION")
    added = actions.add_parser("add", help="make a key; it is shown once")
    added.add_argument("--role", choices=("operator", "supervisor"), required=True)
    added.add_argument("--name", required=True, help="whose it is; the journal names it, so a pseudonym is best")
    actions.add_parser("list", help="show all keys, without their secrets")
    revoked = actions.add_parser("revoke", help="refuse a key from now on, and end its sessions")
    revoked.add_argument("id", help="the key's id, as llmft keys list shows it")
    _finish(verb, actions, "keys")


def add_roster(verbs: Verbs) -> None:
    """The verb ``roster``."""
    verb = verb_parser(
        verbs,
        "roster",
        "import the doctors who can be offered, and look for free times",
        "  llmft roster import data/sample/doctors.csv\n"
        "  llmft roster import doctors.fhir.json\n"
        "  llmft roster slots --specialty cardiologie --language en --age 54",
    )
    actions = verb.add_subparsers(title="actions", required=True, metavar="ACTION")
    read = actions.add_parser("import", help="offer the doctors and slots of a CSV or FHIR file, and only those")
    read.add_argument("file", type=Path)
    found = actions.add_parser("slots", help="the earliest free times")
    found.add_argument("--specialty", help="its name in French or English")
    found.add_argument("--site", help="words of the place")
    found.add_argument("--language", help="code, such as en")
    found.add_argument("--age", type=int, help="the patient's, in years")
    found.add_argument("--limit", type=int, default=10, help="how many (default 10)")
    _finish(verb, actions, "roster")


def add_feedback(verbs: Verbs) -> None:
    """The verb ``feedback``."""
    verb = verb_parser(
        verbs,
        "feedback",
        "bring the operators' judgements back to training",
        "  llmft feedback export --output feedback/ --beside data/prepared/demo\n"
        "  llmft prepare data/prepared/calls.jsonl feedback/calls.jsonl --output data/prepared/next\n"
        "  llmft sft recipes/demo-llama.yaml name=next data.folder=data/prepared/next train.corrected_repeats=24",
    )
    actions = verb.add_subparsers(title="actions", required=True, metavar="ACTION")
    out = actions.add_parser("export", help="write calls.jsonl for prepare and judged.jsonl for prefer")
    out.add_argument("--output", type=Path, required=True, metavar="DIR", help="folder to write")
    out.add_argument(
        "--beside", type=Path, action="append", default=[], metavar="DIR", help="prepared set whose test split must stay unseen"
    )
    out.add_argument("--agreement", type=float, default=2 / 3, help="share of an answer's judges who must agree (default 0.67)")
    out.add_argument("--operators", type=int, default=1, help="how many must have judged an answer (default 1)")
    _finish(verb, actions, "feedback")


def add_models(verbs: Verbs) -> None:
    """The verb ``models``."""
    verb = verb_parser(
        verbs,
        "models",
        "take a model into service, or go back to the one before",
        "  llmft models use export/demo-llama/demo-llama-Q4_0.gguf\n  llmft models list\n  llmft models back",
    )
    actions = verb.add_subparsers(title="actions", required=True, metavar="ACTION")
    used = actions.add_parser("use", help="take a GGUF into service if it has passed the gate")
    used.add_argument("file", type=Path, help="the GGUF")
    used.add_argument("--gate", type=Path, metavar="DIR", help="folder of the gate's gate.json (default: the file's own)")
    used.add_argument("--despite-gate", action="store_true", help="take it though it has not passed; the journal tells of it")
    actions.add_parser("list", help="every change of model; the one in service is marked")
    actions.add_parser("back", help="return to the model that was in service before")
    _finish(verb, actions, "models")


def _finish(verb: argparse.ArgumentParser, actions: argparse._SubParsersAction, name: str) -> None:
    """Give each action the desk's arguments and its function in ``desk_verbs``."""
    for word, action in actions.choices.items():
        desk_arguments(action)
        action.set_defaults(run=_runner(f"{name}_{word}"))


def _runner(function: str) -> Callable[[argparse.Namespace], int]:
    def run(arguments: argparse.Namespace) -> int:
        from llmft import desk_verbs

        return int(getattr(desk_verbs, function)(arguments) or 0)

    return run
