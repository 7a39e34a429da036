"""Where rows come from: files of a dozen forms, folders, globs, DDXPlus, a dataset of the hub.

The form is guessed from the name and the first rows, shown in the report, and may be said instead.
A reader yields a call, a line of our own record, or a fault for every row, and never stops at a bad one.
"""

from __future__ import annotations

import glob
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field, replace
from itertools import islice
from pathlib import Path

from llmft.dialogue import Dialogue, Fault, Split, as_line
from llmft.errors import DialogueError
from llmft.prepare.extras import DOCTORS, FOLDS
from llmft.prepare.output import ANNOTATIONS, OUTPUTS
from llmft.prepare.parquet_out import is_prepared_parquet, read_parquet
from llmft.prepare.readers.chats import is_chat, read_chats
from llmft.prepare.readers.ddxplus import CONDITIONS, EVIDENCES
from llmft.prepare.readers.ddxplus_calls import ddxplus_calls
from llmft.prepare.readers.ddxplus_patients import is_patients_file, read_ddxplus_patients
from llmft.prepare.readers.hub import (
    folder_splits,
    hub_splits,
    is_dataset_folder,
    is_hub_name,
    map_rows,
    open_rows,
    our_splits,
    read_rows,
)
from llmft.prepare.readers.json_rows import json_rows
from llmft.prepare.readers.mapping import Mapping, guess_mapping, no_words, override, parse_columns, shown
from llmft.prepare.readers.speech import is_speech, read_speech
from llmft.prepare.readers.subtitles import read_subtitles
from llmft.prepare.readers.table_rows import OLD_WORKBOOK, TableForm, describe_form, recognise_table
from llmft.prepare.readers.tables import read_table
from llmft.prepare.readers.transcripts import guess_layout, read_text_file
from llmft.prepare.record import RecordLine, Row
from llmft.prepare.splits import SPLITS
from llmft.text_files.text_source import guess_encoding, text_lines

FORMATS = ("auto", "jsonl", "chats", "speech", "table", "text", "subtitles", "ddxplus", "patients", "dataset", "parquet", "hub")
SUFFIXES = {
    **dict.fromkeys((".csv", ".tsv", ".csv.gz", ".tsv.gz", ".xlsx", ".xlsm", ".xls"), "table"),
    **dict.fromkeys((".srt", ".vtt"), "subtitles"),
    ".txt": "text",
}
JSON_SUFFIXES = (".jsonl", ".ndjson", ".json", ".jsonl.gz", ".ndjson.gz", ".json.gz")
LEFT_BEHIND = {*OUTPUTS, "versions.jsonl", FOLDS, DOCTORS, ANNOTATIONS, "audit-signed.json"}  # by prepare
NOT_CALLS = LEFT_BEHIND - {f"{split}.jsonl" for split in SPLITS}
OF_A_SET = {"report.html", "DATA_CARD.md", "calls.duckdb", "audit.html"}
SNIFFED_ROWS, SHOWN_FILES = 20, 10


@dataclass(frozen=True)
class ReadOptions:
    """What the user says instead of letting it be guessed."""

    file_format: str = "auto"
    columns: str | None = None  # "transcript=Texte,urgency=Niveau", or a YAML file
    separator: str | None = None  # of CSV
    encoding: str | None = None
    sheet: str | None = None  # of XLSX
    seed: int = 1  # of DDXPlus's calls
    count: int | None = None  # DDXPlus: calls a condition


@dataclass(frozen=True)
class Source:
    """One file, one folder of a known form, or one name of the hub."""

    name: str
    file_format: str
    guessed: tuple[str, ...] = ()  # what was guessed, in words
    table: tuple[TableForm, Mapping] | None = field(default=None, compare=False)
    columns: Mapping | None = field(default=None, compare=False)  # of a dataset; None: its rows are chats
    split: Split | None = None  # that its rows keep
    problem: str = ""  # why nothing of it can be read

    @property
    def path(self) -> Path:
        """The file or folder."""
        return Path(self.name)

    @property
    def files(self) -> tuple[Path, ...]:
        """The files that are read; none for the hub."""
        if self.file_format == "hub":
            return ()
        if self.file_format == "ddxplus":
            return tuple(file for file in (self.path / CONDITIONS, self.path / EVIDENCES) if file.is_file())
        if self.path.is_dir():
            return tuple(sorted(path for path in self.path.rglob("*") if path.is_file()))
        return (self.path,)


def find_sources(places: Sequence[str | Path], options: ReadOptions | None = None) -> list[Source]:
    """Every source that ``places`` name, each once, sorted within a folder or glob.

    Raises :class:`DialogueError` for a place that is missing, holds nothing to read or is of no known form.
    """
    options = options or ReadOptions()
    if options.file_format not in FORMATS:
        raise DialogueError(f"format {options.file_format!r} is not one of {', '.join(FORMATS)}; choose one of them")
    if not places:
        raise DialogueError("no source was given; name a file, a folder or a glob of dialogues")
    sources: dict[str, Source] = {}
    for place in places:
        if is_hub_name(str(place)):
            sources |= {source.name: source for source in _datasets(hub_splits(str(place)), "hub", options)}
            continue
        for path in _expanded(Path(place)):
            for source in _sources_at(path, options):
                sources.setdefault(str(source.path.resolve()), source)
    found = list(sources.values())
    if all(source.problem for source in found):
        raise DialogueError(f"{found[0].name}: {found[0].problem}")
    return found


def read_source(source: Source, options: ReadOptions) -> Iterator[Row]:
    """Each row of ``source``."""
    path = source.path
    if source.problem:
        yield Fault(source.name, 1, "", source.problem)
        return
    match source.file_format:
        case "jsonl":
            yield from _record_lines(path, options.encoding)
        case "ddxplus":
            yield from _records(ddxplus_calls(path, options.seed, options.count), source.name)
        case "parquet":
            yield from _records(read_parquet(path), source.name)
        case "table" if source.table is not None:
            form, mapping = source.table
            yield from read_table(path, mapping, form=form)
        case "chats":
            yield from read_chats(path, options.encoding)
        case "speech":
            yield from read_speech(path, options.encoding)
        case "text":
            yield from read_text_file(path, guess_layout(path, options.encoding))
        case "subtitles":
            yield from read_subtitles(path, options.encoding)
        case "patients":
            yield from read_ddxplus_patients(path, options.seed)
        case "dataset" | "hub":
            for row in read_rows(open_rows(source.name), source.name, source.columns):
                yield row if isinstance(row, Fault) or source.split is None else replace(row, split=source.split)


def _record_lines(path: Path, encoding: str | None) -> Iterator[Row]:
    for line in text_lines(path, encoding or guess_encoding(path), newline="\n"):
        if line.reason:
            yield Fault(str(path), line.number, "", line.reason)
        elif line.text.strip():
            yield RecordLine(str(path), line.number, line.text)


def _records(dialogues: Iterator[Dialogue | Fault], name: str) -> Iterator[Row]:
    """Dialogues that a reader made, as lines of the record; faults stand."""
    for number, parsed in enumerate(dialogues, start=1):
        yield parsed if isinstance(parsed, Fault) else RecordLine(name, number, as_line(parsed))


def _expanded(place: Path) -> list[Path]:
    if place.exists():
        return [place]
    found = [Path(match) for match in sorted(glob.glob(str(place), recursive=True))]  # noqa: PTH207 - an absolute pattern too
    if not found:
        raise DialogueError(f"{place} does not exist; name a file, a folder or a glob of dialogues")
    return found


def _sources_at(path: Path, options: ReadOptions) -> list[Source]:
    if path.name in (CONDITIONS, EVIDENCES) and path.is_file():
        path = path.parent  # the two files belong together
    guessed = options.file_format == "auto"
    is_ddxplus = (path / CONDITIONS).exists() or (path / EVIDENCES).exists()
    if options.file_format == "ddxplus" or guessed and is_ddxplus:
        patients = [p for p in sorted(path.glob("*")) if guessed and p.suffix in (".csv", ".zip") and is_patients_file(p)]
        found = [Source(str(p), "patients", (f"{p}: format patients",)) for p in patients]
        return found or [_of_form(path, "ddxplus", options)]
    if path.is_dir() and (options.file_format == "dataset" or is_dataset_folder(path)):
        return _datasets([str(folder) for folder in folder_splits(path)], "dataset", options)
    if path.is_dir():
        files = [file for file in sorted(path.rglob("*")) if file.is_file() and _may_hold_calls(file, path)]
        if not files:
            raise DialogueError(f"folder {path} holds no file of a known form; name the folder that holds the calls")
        found = [_of_form(file, _form_of(file) if guessed else options.file_format, options) for file in files]
        return [replace(found[0], guessed=(*found[0].guessed, *_passed_over(path))), *found[1:]]
    return [_of_form(path, _form_of(path) if guessed else options.file_format, options)]


def _of_form(path: Path, file_format: str, options: ReadOptions) -> Source:
    guessed: tuple[str, ...] = (f"{path}: format {file_format}",) if options.file_format == "auto" else ()
    if file_format == "text":
        guessed += (f"{path}: {guess_layout(path, options.encoding)}",)
    if file_format != "table":
        return Source(str(path), file_format, guessed)
    form = recognise_table(path, encoding=options.encoding, separator=options.separator, sheet=options.sheet)
    mapping = guess_mapping(form.header, [row.cells for row in form.sample])
    if options.columns:
        mapping = override(mapping, parse_columns(options.columns))
    lines = tuple(f"{path}: {line}" for line in ("; ".join(describe_form(form)), shown(mapping)))
    problem = OLD_WORKBOOK if form.kind == "xls" else no_words(mapping) if mapping.form == "unknown" else ""
    if problem and form.other_sheets:
        problem += f"; or another sheet with --sheet: {', '.join(form.other_sheets)}"
    return Source(str(path), "table", (*guessed, *lines), (form, mapping), problem=problem)


def _datasets(names: Sequence[str], file_format: str, options: ReadOptions) -> list[Source]:
    """The splits of one dataset, each a source."""
    columns = parse_columns(options.columns) if options.columns else None
    called = {name: name.rpartition(":")[2] if file_format == "hub" else Path(name).name for name in names}
    ours = our_splits(list(called.values())) if len(names) > 1 else {}
    sources = []
    for name, split in called.items():
        mapping, lines = map_rows(open_rows(name), name, columns)
        if len(names) > 1:
            lines.insert(0, f"its rows stay in {ours[split]}" if ours else "its rows are split anew")
        guessed = tuple(f"{name}: {line}" for line in (f"format {file_format}", *lines))
        sources.append(Source(name, file_format, guessed, columns=mapping, split=ours.get(split)))
    return sources


def _passed_over(folder: Path) -> list[str]:
    """What lies in a folder and is of no known form, in a line; what prepare leaves beside a set goes without saying."""
    files = (file for file in sorted(folder.rglob("*")) if file.is_file() and not _is_hidden(file, folder))
    names = [str(file.relative_to(folder)) for file in files if not _is_known(file) and file.name not in OF_A_SET]
    more = f" and {len(names) - SHOWN_FILES} more" if len(names) > SHOWN_FILES else ""
    return [f"{folder}: not read, of no known form: {', '.join(names[:SHOWN_FILES])}{more}"] if names else []


def _may_hold_calls(file: Path, folder: Path) -> bool:
    name = file.name.lower()
    return _is_known(file) and not _is_hidden(file, folder) and name not in NOT_CALLS and not name.startswith("report.")


def _is_known(file: Path) -> bool:
    return file.name.lower().endswith((*SUFFIXES, ".parquet", *JSON_SUFFIXES))


def _is_hidden(file: Path, folder: Path) -> bool:
    return any(part.startswith(".") for part in file.relative_to(folder).parts)


def _form_of(path: Path) -> str:
    """The form of a file, from its name and its first rows; raises :class:`DialogueError` when none fits."""
    name, suffix = path.name.lower(), path.suffix.lower()
    if suffix in (".csv", ".zip") and is_patients_file(path):
        return "patients"
    for ending, file_format in SUFFIXES.items():
        if name.endswith(ending):
            return file_format
    if suffix == ".parquet":
        return "parquet" if is_prepared_parquet(path) else "table"
    if name.endswith(JSON_SUFFIXES):
        return _json_form(path)
    known = " ".join((*SUFFIXES, ".parquet", *JSON_SUFFIXES))
    raise DialogueError(f"{path}: {suffix or 'its name'} is no known form; llmft reads {known}, or say what it is with --format")


def _json_form(path: Path) -> str:
    values = [row.value for row in islice(json_rows(path), SNIFFED_ROWS) if not isinstance(row, Fault)]
    if any(isinstance(value, dict) and "schema_version" in value for value in values):
        return "jsonl"
    if any(is_speech(value) for value in values):
        return "speech"
    return "chats" if any(is_chat(value) or isinstance(value, dict) and "transcript" in value for value in values) else "jsonl"
