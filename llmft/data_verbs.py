"""What the data verbs do once their arguments are read."""

from __future__ import annotations

import argparse
import atexit
import dataclasses
import gc
import json
import sys
from datetime import date
from pathlib import Path

from llmft.dialogue import read_dialogues, write_dialogues
from llmft.errors import DialogueError
from llmft.privacy import keep_private
from llmft.run import write_json, write_text


def prepare_command(arguments: argparse.Namespace) -> None:
    """``llmft prepare``."""
    from llmft.prepare.parts import without_collector

    atexit.register(_end_at_once)
    with without_collector():
        _prepare(arguments)


def _end_at_once() -> None:
    """Spare the end of the process a last look through all that is known, a fifth of a second."""
    if "duckdb" not in sys.modules:  # which complains of objects that are left
        gc.freeze()


def _prepare(arguments: argparse.Namespace) -> None:
    if arguments.audit is not None and arguments.audit < 1:
        raise DialogueError(f"--audit {arguments.audit}: too few; give at least 1 call to read")
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
        doctors=arguments.doctors, tokenizer=arguments.tokenizer,
    )  # fmt: skip
    if arguments.workers is not None:
        options = dataclasses.replace(options, workers=arguments.workers)
    report = prepare(arguments.sources, arguments.output, options)
    print_report(report, arguments.output)
    if arguments.audit:
        print(f"audit:  {write_sheet(arguments.output, arguments.audit, arguments.seed)} (open it, tick, sign)")


def synthesize_command(arguments: argparse.Namespace) -> None:
    """``llmft synthesize``."""
    from llmft.prepare.synthetic.corpus import write_corpus
    from llmft.prepare.synthetic.score import spans_path, write_planted
    from llmft.prepare.synthetic.synthesize import synthesize

    path, count, seed = arguments.output, arguments.count, arguments.seed
    if count < 1:
        raise DialogueError(f"--count {count}: too few; give at least 1")
    if arguments.corpus:
        print(f"{path}: {write_corpus(path, count, seed)} documents")
    elif arguments.personal_data:
        spans = write_planted(path, count, seed)
        print(f"{path}: {count} calls that name invented people\n{spans_path(path)}: {spans} pieces of personal data")
        print(f"measure with: llmft deidentify --input {path} --score {spans_path(path)}")
    else:
        print(f"{path}: {write_dialogues(path, synthesize(count, seed))} calls")


def deidentify_command(arguments: argparse.Namespace) -> None:
    """``llmft deidentify``."""
    from llmft.deidentify.files import deidentify_file

    if arguments.score:
        _print_score(arguments.input, arguments.score)
    if not arguments.output:
        if not arguments.score:
            raise DialogueError("nothing was asked for; give --output FILE to write, or --score SPANS to measure")
        return
    found = deidentify_file(arguments.input, arguments.output)
    replaced = ", ".join(f"{label} {count}" for label, count in sorted(found.labels.items())) or "nothing"
    print(f"{arguments.output}: {found.written} of {found.rows} rows, replaced: {replaced}")
    if found.quarantined:
        print(f"{found.quarantine_path}: {found.quarantined} rows set aside, with reasons")


def _print_score(calls: Path, spans: Path) -> None:
    from rich.console import Console

    from llmft.prepare.synthetic.score import read_known, score_table

    table = score_table(read_known(calls, spans))
    console = Console(highlight=False)
    console.width = max(console.width, 120)  # nine columns; a cut one says nothing
    console.print(table)
    print("A piece counts when all its letters and digits are covered; a layer's column is that layer alone.")


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
    from llmft.prepare.labels.labelling import argilla_settings, export_labelling, label_studio_config

    if arguments.answers:
        _import_labels(arguments.set, arguments.answers)
        return
    dialogues = read_dialogues(arguments.set / f"{arguments.split}.jsonl")
    print(f"{arguments.output}: {export_labelling(arguments.output, dialogues, arguments.form)} calls")
    if arguments.form == "label-studio":
        config = arguments.output.with_suffix(".xml")
        write_text(config, label_studio_config())
        print(f"{config}: the project's labelling interface")
    else:
        settings = arguments.output.with_suffix(".settings.json")
        write_json(settings, argilla_settings())
        print(f"{settings}: the dataset's settings, for rg.Settings.from_json")


def _import_labels(folder: Path, answers: Path) -> None:
    from llmft.prepare.merge_labels import describe, merge_labels

    merged = merge_labels(folder, answers)
    print("\n".join(describe(merged, folder)))
    quarantine = answers.with_suffix(".quarantine.jsonl")
    if merged.faults:
        write_text(quarantine, "".join(json.dumps(dataclasses.asdict(f), ensure_ascii=False) + "\n" for f in merged.faults))
        print(f"{quarantine}: {len(merged.faults)} items set aside, with reasons")
    else:
        quarantine.unlink(missing_ok=True)  # one of an earlier import would lie


def icd_command(arguments: argparse.Namespace) -> None:
    """``llmft data icd``."""
    from llmft.prepare.labels.icd_import import import_table

    table = import_table(arguments.file)
    print(f"{table.path}: {table.codes} codes; {table.skipped} rows left out: headings, repetitions, codes longer than R07.45")


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
