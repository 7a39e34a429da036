"""What the data verbs do once their arguments are read."""

from __future__ import annotations

import argparse
import dataclasses
import sys
from datetime import date

from llmft.dialogue import read_dialogues
from llmft.errors import DialogueError
from llmft.privacy import keep_private
from llmft.run import write_text


def prepare_command(arguments: argparse.Namespace) -> None:
    """``llmft prepare``."""
    keep_private(hub_allowed=any(str(source).startswith("hub:") for source in arguments.sources))
    from llmft.deidentify.stage import LAYERS
    from llmft.prepare.readers.sources import ReadOptions
    from llmft.prepare.record import CleanOptions
    from llmft.prepare.reporting.audit import write_sheet
    from llmft.prepare.stage import PrepareOptions, prepare
    from llmft.prepare.summary import print_report

    read = ReadOptions(
        file_format=arguments.format, columns=arguments.columns, separator=arguments.separator, encoding=arguments.encoding,
        sheet=arguments.sheet, seed=arguments.seed, count=arguments.count,
    )  # fmt: skip
    clean = CleanOptions(
        layers=tuple(arguments.layers.split(",")) if arguments.layers else LAYERS,
        weak_labels=not arguments.no_weak_labels,
        latest=date.today(),
        roles=_roles(arguments.roles),
    )
    options = PrepareOptions(
        read=read, clean=clean, seed=arguments.seed, strict=arguments.strict, near_duplicates=not arguments.no_near_duplicates,
        recent_from=_day(arguments.recent_from), cluster=arguments.cluster, folds=arguments.folds, parquet=arguments.parquet,
        doctors=arguments.doctors,
    )  # fmt: skip
    if arguments.workers:
        options = dataclasses.replace(options, workers=arguments.workers)
    report = prepare(arguments.sources, arguments.output, options)
    print_report(report, arguments.output)
    if arguments.audit:
        print(f"audit:  {write_sheet(arguments.output, arguments.audit, arguments.seed)} (open it, tick, sign)")


def deidentify_command(arguments: argparse.Namespace) -> None:
    """``llmft deidentify``."""
    from llmft.deidentify.files import deidentify_file

    found = deidentify_file(arguments.input, arguments.output)
    replaced = ", ".join(f"{label} {count}" for label, count in sorted(found.labels.items())) or "nothing"
    print(f"{arguments.output}: {found.written} of {found.rows} rows, replaced: {replaced}")
    if found.quarantined:
        print(f"{found.quarantine_path}: {found.quarantined} rows set aside, with reasons")


def sql_command(arguments: argparse.Namespace) -> None:
    """``llmft data sql``."""
    from llmft.prepare.database import DATABASE, print_answer, query

    print_answer(query(arguments.set / DATABASE, arguments.query), as_csv=arguments.csv)


def erase_command(arguments: argparse.Namespace) -> None:
    """``llmft data erase``."""
    from llmft.prepare.erase import Places, describe, erase

    found = erase(Places(prepared=arguments.prepared), subject=arguments.subject, dialogue_id=arguments.id)
    print("\n".join(describe(found)))


def sign_command(arguments: argparse.Namespace) -> None:
    """``llmft data sign``."""
    from llmft.prepare.reporting.audit import sign_off

    report = sign_off(arguments.set, arguments.audit)
    bound = (report.audit or {})["leak_bound"]
    print(f"signed; with 95 % confidence at most {bound:.1%} of the calls hold a leak")


def label_command(arguments: argparse.Namespace) -> None:
    """``llmft data label``."""
    from llmft.prepare.labels.labelling import export_labelling, label_studio_config

    dialogues = read_dialogues(arguments.set / f"{arguments.split}.jsonl")
    print(f"{arguments.output}: {export_labelling(arguments.output, dialogues, arguments.form)} calls")
    if arguments.form == "label-studio":
        config = arguments.output.with_suffix(".xml")
        write_text(config, label_studio_config())
        print(f"{config}: the project's labelling interface")


def icd_command(arguments: argparse.Namespace) -> None:
    """``llmft data icd``."""
    from llmft.prepare.labels.icd_import import import_table

    table = import_table(arguments.file)
    print(f"{table.path}: {table.codes} codes, {table.skipped} rows without one")


def protocols_command(arguments: argparse.Namespace) -> int:
    """``llmft data protocols``."""
    from llmft.prepare.readers.protocol_files import read_protocol_files

    found, faults = read_protocol_files(arguments.files)
    for fault in faults:
        print(f"llmft: {fault}", file=sys.stderr)
    print(f"{len(found)} protocols are whole, {len(faults)} faults")
    return 1 if faults else 0


def _roles(text: str | None) -> dict[str, str] | None:
    """SPEAKER_00=operator,… as a dictionary."""
    if not text:
        return None
    pairs = [part.partition("=") for part in text.split(",")]
    wrong = next((name for name, _, role in pairs if role not in ("patient", "operator", "system")), None)
    if wrong is not None:
        raise DialogueError(f"--roles: {wrong!r} has no role; write NAME=patient, NAME=operator or NAME=system")
    return {name.strip(): role for name, _, role in pairs}


def _day(text: str | None) -> date | None:
    try:
        return date.fromisoformat(text) if text else None
    except ValueError:
        raise DialogueError(f"--recent-from {text}: not a day; write it as 2026-09-01") from None
