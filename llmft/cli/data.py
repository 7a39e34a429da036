"""Verbs that make and prepare calls."""

from __future__ import annotations

import argparse
from pathlib import Path

from llmft.cli.arguments import Verbs, verb_parser


def add_synthesize(verbs: Verbs) -> None:
    """The verb ``synthesize``."""
    verb = verb_parser(
        verbs,
        "synthesize",
        "make calls, or pretraining text, from the bundled knowledge base",
        "  llmft synthesize --count 3000 --seed 11 --output calls.jsonl\n"
        "  llmft synthesize --personal-data --count 300 --output planted.jsonl\n"
        "  llmft synthesize --corpus --count 60000 --output data/corpus/corpus.jsonl",
    )
    verb.add_argument("--output", type=Path, required=True, help="JSONL file to write")
    verb.add_argument("--count", type=int, default=300, help="calls or documents (default 300)")
    verb.add_argument("--seed", type=int, default=1, help="the same seed makes the same file (default 1)")
    kind = verb.add_mutually_exclusive_group()
    kind.add_argument(
        "--personal-data",
        action="store_true",
        help="plant invented personal data in the calls, and write where it stands to FILE.spans.jsonl",
    )
    kind.add_argument("--corpus", action="store_true", help="text for pretraining the embedded base instead of calls")

    def run(arguments: argparse.Namespace) -> None:
        from llmft.data_verbs import synthesize_command

        synthesize_command(arguments)

    verb.set_defaults(run=run)


def add_prepare(verbs: Verbs) -> None:
    """The verb ``prepare``."""
    verb = verb_parser(
        verbs,
        "prepare",
        "make a private, labelled, honestly split set from what call centres have",
        "  llmft prepare data/sample/calls.jsonl --output data/prepared/sample\n"
        "  llmft prepare exports/*.csv --columns transcript=Texte,urgency=Niveau --output data/prepared/calls --audit 100\n"
        "  llmft prepare whisper/ --roles SPEAKER_00=operator,SPEAKER_01=patient --output data/prepared/calls\n"
        "  llmft prepare --format ddxplus ddxplus/ --output data/prepared/ddxplus",
    )
    verb.add_argument("sources", nargs="+", metavar="SOURCE", help="files, folders, globs, or hub:owner/name")
    verb.add_argument("--output", type=Path, required=True, help="folder for train, validation and test.jsonl")
    verb.add_argument("--format", default="auto", help="what the sources are (default auto; a wrong one lists all)")
    verb.add_argument("--columns", help="of tables: field=column,… or a YAML file")
    verb.add_argument("--separator", help="of CSV (default: guessed)")
    verb.add_argument("--encoding", help="of text files (default: guessed)")
    verb.add_argument("--sheet", help="of XLSX (default: the one that names most columns we know)")
    verb.add_argument("--roles", help="who is who: SPEAKER_00=operator,SPEAKER_01=patient (default: guessed)")
    verb.add_argument("--doctors", type=Path, help="doctors' roster (CSV or FHIR) for the set's database")
    verb.add_argument("--layers", help="de-identification layers, comma-separated (default: all but lexicon and external)")
    verb.add_argument("--recent-from", metavar="DATE", help="calls from this day on are the test set (default: the newest tenth)")
    verb.add_argument("--no-near-duplicates", action="store_true", help="look for exact duplicates alone")
    verb.add_argument("--no-weak-labels", action="store_true", help="leave calls without label as they are")
    verb.add_argument("--audit", type=int, metavar="N", help="also write audit.html with N random calls to sign off")
    verb.add_argument("--folds", type=int, metavar="K", help="also write folds.jsonl for cross-validation")
    verb.add_argument("--parquet", action="store_true", help="also write the splits as Parquet")
    verb.add_argument("--tokenizer", metavar="RECIPE", help="a recipe, or a tokenizer's folder: count tokens (default: estimate)")
    verb.add_argument("--seed", type=int, default=1, help="seed of the splits (default 1)")
    verb.add_argument("--count", type=int, help="DDXPlus: calls to make of each condition")
    verb.add_argument("--workers", type=int, help="processes (default: all cores)")
    verb.add_argument("--cluster", metavar="ADDRESS", help="a Dask scheduler instead of this machine's cores")
    verb.add_argument("--strict", action="store_true", help="stop at the first bad row")

    def run(arguments: argparse.Namespace) -> None:
        from llmft.data_verbs import prepare_command

        prepare_command(arguments)

    verb.set_defaults(run=run)


def add_deidentify(verbs: Verbs) -> None:
    """The verb ``deidentify``."""
    verb = verb_parser(
        verbs,
        "deidentify",
        "replace personal data by placeholders, row by row",
        "  llmft deidentify --input notes.jsonl --output clean.jsonl\n"
        "  llmft deidentify --input planted.jsonl --score planted.spans.jsonl",
    )
    verb.add_argument("--input", type=Path, required=True, help='JSONL of {"id", "text"[, "lang"][, "roster"]} or of dialogues')
    verb.add_argument("--output", type=Path, help="JSONL to write")
    verb.add_argument(
        "--score",
        type=Path,
        metavar="SPANS",
        help='measure recall and precision, all layers together and each alone: JSONL of {"id", "turn", "start", "end", "label"}',
    )

    def run(arguments: argparse.Namespace) -> None:
        from llmft.data_verbs import deidentify_command

        deidentify_command(arguments)

    verb.set_defaults(run=run)


def add_data(verbs: Verbs) -> None:
    """The verb ``data`` with verbs of its own."""
    verb = verb_parser(
        verbs,
        "data",
        "ask a prepared set, remove a person, sign off, label by hand",
        '  llmft data sql "SELECT specialty, count(*) FROM dialogues GROUP BY ALL" --set data/prepared/calls\n'
        "  llmft data erase --subject P-1042\n"
        "  llmft data sign audit.json --set data/prepared/calls\n"
        "  llmft data label --set data/prepared/calls --output tasks.json\n"
        "  llmft data label --set data/prepared/calls --import project-1-export.json",
    )
    actions = verb.add_subparsers(title="actions", required=True, metavar="ACTION")
    asked = actions.add_parser("sql", help="ask calls.duckdb a question, read-only")
    asked.add_argument("query", help="SQL; tables: dialogues, turns, evidence, labels, deidentification, lineage, doctors")
    asked.add_argument("--set", type=Path, default=Path("data/prepared/demo"), help="prepared folder (default: the demo's)")
    asked.add_argument("--csv", action="store_true", help="CSV instead of a table")
    erased = actions.add_parser("erase", help="remove a person or a call from every prepared set")
    erased.add_argument("--subject", help="the patient's key in the source")
    erased.add_argument("--id", help="one call's id")
    erased.add_argument("--prepared", type=Path, default=Path("data/prepared"), help="where the sets lie")
    signed = actions.add_parser("sign", help="put a signed audit sheet into the set's report")
    signed.add_argument("audit", type=Path, help="the JSON that audit.html gave")
    signed.add_argument("--set", type=Path, required=True, help="prepared folder")
    out = actions.add_parser("label", help="write a split for Label Studio or Argilla, or take people's labels back from them")
    out.add_argument("--set", type=Path, required=True, help="prepared folder")
    way = out.add_mutually_exclusive_group(required=True)
    way.add_argument("--output", type=Path, help="JSON to write, for people to label")
    way.add_argument("--import", type=Path, dest="answers", metavar="FILE", help="JSON that the tool exported, with labels")
    out.add_argument("--split", choices=("train", "validation", "test"), default="train", help="to write (default train)")
    out.add_argument("--form", choices=("label-studio", "argilla"), default="label-studio", help="of what is written")
    table = actions.add_parser("icd", help="import an ICD-10 table of your own (CSV of ATIH or SMT)")
    table.add_argument("file", type=Path)
    checked = actions.add_parser("protocols", help="check protocol files (YAML) of your own")
    checked.add_argument("files", nargs="+", type=Path)

    def run(arguments: argparse.Namespace) -> int:
        from llmft import data_verbs

        return int(getattr(data_verbs, f"{arguments.action}_command")(arguments) or 0)

    for name, action in actions.choices.items():
        action.set_defaults(run=run, action=name)
