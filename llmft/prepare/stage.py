"""The stage `prepare`: what call centres have in, a private, labelled, honestly split set out.

    train.jsonl  validation.jsonl  test.jsonl    the dialogues, each with its split
    quarantine.jsonl                             {"file", "line", "field", "reason"} a bad row, never its words
    duplicates.jsonl  refused.jsonl              sound rows that were left out, and why
    warnings.jsonl                               rows that went out although something in them does not fit
    lineage.jsonl                                where each row came from, as keyed hashes
    calls.duckdb                                 all of it as a database
    report.html  DATA_CARD.md  report.json       the last one written last: where it stands, the set is whole

The same sources and options give the same bytes, with any number of workers and after any kill.
"""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field, replace
from datetime import date
from functools import partial
from pathlib import Path
from typing import Any

from llmft import knowledge
from llmft.deidentify.stage import deidentify
from llmft.dialogue import Fault
from llmft.doctors.roster_file import Doctor
from llmft.errors import DialogueError, DiskError
from llmft.prepare.chunk import ChunkOptions, clean_chunk
from llmft.prepare.database import build_database
from llmft.prepare.extras import FOLDS, roster_of, write_doctors, write_folds, write_parquets
from llmft.prepare.labels.agreement import agreement
from llmft.prepare.labels.icd_import import table_path
from llmft.prepare.lineage import names_somebody, read_tombstones, remember_version
from llmft.prepare.merge_labels import with_peoples_labels
from llmft.prepare.outcome import decide
from llmft.prepare.output import OUTPUTS, write_set
from llmft.prepare.parts import PartFolder, make_parts, without_collector, worker_pool
from llmft.prepare.readers.mapping import parse_columns
from llmft.prepare.readers.roles_shown import with_roles_shown
from llmft.prepare.readers.sources import ReadOptions, Source, find_sources, read_source
from llmft.prepare.record import CleanOptions, Row
from llmft.prepare.reporting.audit import audit_of
from llmft.prepare.reporting.page import write_reports
from llmft.prepare.reporting.report import Report, make_report
from llmft.prepare.splits import SPLITS
from llmft.prepare.synthetic.score import planted_recall
from llmft.prepare.token_lengths import open_counter, token_lengths
from llmft.run import disk_error, require_space, sha256
from llmft.vault import default_vault, open_vault

REPORT = "report.json"
WORK = ".work"
KNOWLEDGE = Path(knowledge.__file__).parent


@dataclass(frozen=True)
class PrepareOptions:
    """How a set is made."""

    read: ReadOptions = ReadOptions()
    clean: CleanOptions = CleanOptions()
    seed: int = 1  # of the splits
    strict: bool = False  # stop at the first bad row
    near_duplicates: bool = True
    recent_from: date | None = None  # calls from this day on are the test set
    workers: int = field(default_factory=lambda: len(os.sched_getaffinity(0)))
    cluster: str | None = None  # address of a Dask scheduler
    vault: Path = field(default_factory=default_vault)  # the salt and the tombstones
    folds: int | None = None  # for cross-validation
    parquet: bool = False
    doctors: Path | None = None  # a roster, for the database
    tokenizer: str | None = None  # a recipe, or a folder with a tokenizer: count lengths in tokens instead of estimating them


def prepare(places: Sequence[str | Path], output_dir: Path, options: PrepareOptions | None = None) -> Report:
    """Make a set in ``output_dir`` from ``places``: files, folders, globs, or a hub dataset.

    Raises :class:`DialogueError` when a source is missing, when nothing usable is left, and with
    ``strict`` at the first bad row.
    """
    with without_collector():
        return _prepared(places, output_dir, options or PrepareOptions())


def _prepared(places: Sequence[str | Path], output_dir: Path, options: PrepareOptions) -> Report:
    doctors = _checked(options)
    sources = with_roles_shown(find_sources(places, options.read), options.read, options.clean.roles)
    _check_output(sources, output_dir)
    salt = open_vault(options.vault)
    stones = frozenset(read_tombstones(options.vault))
    chunk = ChunkOptions(replace(options.clean, salt=salt), salt, stones, options.near_duplicates, options.strict)
    hashes = {str(file): _hash(file) for source in sources for file in source.files}
    folder = PartFolder(output_dir / WORK)
    require_space(output_dir, 3 * sum(file.stat().st_size for source in sources for file in source.files))
    folder.begin(_plan(hashes, chunk, options))
    try:
        with worker_pool(options.workers, options.cluster) as executor:
            rows = _progress(_rows(sources, options.read))
            parts = make_parts(rows, partial(clean_chunk, chunk), folder, executor, options.workers)
        _check_usable(folder, parts)
    except DialogueError:  # the sources must change, and with them the parts: nobody's words stay behind
        folder.drop()
        raise
    report = with_peoples_labels(output_dir, _finish(folder, parts, output_dir, sources, hashes, doctors, options))
    folder.drop()
    return report


def _checked(options: PrepareOptions) -> tuple[Doctor, ...]:
    """The roster's doctors; what is wrong with the options is told before the first row is read."""
    deidentify(("",), "fr", layers=options.clean.layers, external=options.clean.recogniser)  # tells of unknown layers
    least = {"--folds": (options.folds, 2), "--workers": (options.workers, 1), "--seed": (options.seed, 0)}
    for name, (value, lowest) in {**least, "--count": (options.read.count, 1)}.items():
        if value is not None and value < lowest:
            raise DialogueError(f"{name} {value}: too few; give at least {lowest}, or leave the option out")
    if options.tokenizer:
        open_counter(options.tokenizer)
    return roster_of(options.doctors) if options.doctors else ()


def _finish(
    folder: PartFolder, parts: int, output_dir: Path, sources: Sequence[Source], hashes: dict[str, str],
    doctors: Sequence[Doctor], options: PrepareOptions,
) -> Report:  # fmt: skip
    """From whole parts to the whole set."""
    # The keys of all rows are in memory until all is decided, and no longer.
    outcome = decide(folder.all_keys(parts), seed=options.seed, recent_from=options.recent_from, near=options.near_duplicates)
    try:
        (output_dir / REPORT).unlink(missing_ok=True)  # the set is not whole from here on
    except OSError as error:
        raise disk_error(output_dir / REPORT, error) from error
    counts, families = write_set(folder, parts, outcome, output_dir)
    files = {name: sha256(output_dir / name) for name in OUTPUTS}
    remember_version(output_dir, files)
    if options.doctors:
        write_doctors(doctors, output_dir)
    if options.parquet:
        write_parquets(output_dir)
    if options.folds:
        write_folds(output_dir, outcome, options.folds, options.seed)
    build_database(output_dir)
    audit, unsigned = audit_of(output_dir, files)
    report = make_report(
        counts,
        seed=options.seed,
        split_by=outcome.split_by,
        families=families,
        files=files,
        sources=[
            {"path": source.name, "format": source.file_format, "sha256": {f.name: hashes[str(f)] for f in source.files}}
            for source in sources
        ],
        leaks=outcome.leaks,
        guessed=[line for source in sources for line in source.guessed],
        recall=planted_recall(options.clean.layers),
        warnings=(*outcome.warnings, *_conflict_warning(int((outcome.conflicts > 0).sum())), *_name_warning(sources), *unsigned),
        agreement=agreement(counts.pairs()),
        audit=audit,
        recent_from=outcome.assignment.recent_from,
        tokens=token_lengths([output_dir / f"{s}.jsonl" for s in SPLITS], options.tokenizer) if options.tokenizer else None,
    )
    write_reports(output_dir, output_dir.name, report)
    return report


def _hash(file: Path) -> str:
    try:
        return sha256(file)
    except OSError as error:
        raise DialogueError(f"{file} cannot be read: {error.strerror}; make it readable, or leave it out") from error


def _plan(hashes: dict[str, str], chunk: ChunkOptions, options: PrepareOptions) -> dict[str, Any]:
    """Everything that the parts depend on."""
    import hashlib

    from llmft import __version__

    stones = hashlib.sha256("".join(sorted(chunk.tombstones)).encode()).hexdigest()
    return {
        "version": __version__,
        "sources": hashes,
        "read": repr(options.read),
        "columns": parse_columns(options.read.columns) if options.read.columns else {},  # of a file too, which may change
        "knowledge": knowledge_hash(),
        "clean": repr(options.clean),
        "near_duplicates": options.near_duplicates,
        "strict": options.strict,
        "salt": hashlib.sha256(chunk.salt).hexdigest(),
        "tombstones": stones,
    }


def knowledge_hash(folder: Path = KNOWLEDGE) -> str:
    """One hash of what names and labels are known by: our knowledge files, and the ICD-10 table that the user imported."""
    import hashlib

    digest = hashlib.sha256()
    files = (path for path in sorted(folder.rglob("*")) if path.is_file() and path.suffix not in (".py", ".pyc"))
    for path in (*files, *filter(Path.is_file, [table_path()])):
        digest.update(f"{path.name}:{_hash(path)};".encode())
    return digest.hexdigest()


def _rows(sources: Sequence[Source], options: ReadOptions) -> Iterator[Row]:
    for source in sources:
        yield from read_source(source, options)


def _progress(rows: Iterator[Row]) -> Iterator[Row]:
    """``rows`` with a bar on standard error, where somebody sees it."""
    from rich.console import Console
    from rich.progress import track

    console = Console(stderr=True)
    yield from track(rows, "preparing", None, console=console, disable=not console.is_terminal, transient=True)


def _check_output(sources: Sequence[Source], output_dir: Path) -> None:
    if output_dir.exists() and not output_dir.is_dir():
        raise DiskError(f"{output_dir} is a file; choose a folder for the prepared set")
    ours = {(output_dir / name).resolve() for name in (*OUTPUTS, FOLDS, *(f"{split}.parquet" for split in SPLITS))}
    overwritten = next((file for source in sources for file in source.files if file.resolve() in ours), None)
    if overwritten is not None:
        raise DialogueError(f"{overwritten} is a source and would be overwritten; choose another folder with --output")


def _check_usable(folder: PartFolder, parts: int) -> None:
    if any(len(folder.keys(number)) for number in range(parts)):
        return
    faults = [Fault(*fault) for number in range(parts) for fault in folder.notes(number)["faults"]]
    refused = sum(len(folder.notes(number)["refused"]) for number in range(parts))
    rows = len(faults) + refused
    first = f"; the first fault: {faults[0]}" if faults else "; see data/README.md for what a row must hold"
    raise DialogueError(f"no usable call in {rows} row{'' if rows == 1 else 's'}{first}")


def _conflict_warning(count: int) -> tuple[str, ...]:
    if not count:
        return ()
    return (f"{count} calls are labelled otherwise than a nearly identical call (see duplicates.jsonl); decide which is right",)


def _name_warning(sources: Sequence[Source]) -> tuple[str, ...]:
    count = sum(names_somebody(file) for source in sources for file in source.files)
    if not count:
        return ()
    return (f"source files named like people: {count}; lineage and report hold file names as they are, so rename the files",)
