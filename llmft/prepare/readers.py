"""Where rows come from: files, folders and globs of our record as JSONL, or a DDXPlus folder.

A reader yields a dialogue or a fault for every row, in the source's order, and never stops at a bad one.
"""

from __future__ import annotations

import glob
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Literal

from llmft.dialogue import Dialogue, Fault, scan_dialogues
from llmft.errors import DialogueError
from llmft.prepare.ddxplus import CONDITIONS, EVIDENCES
from llmft.prepare.ddxplus_calls import ddxplus_calls

FORMATS = ("auto", "jsonl", "ddxplus")
NOT_CALLS = ("quarantine.jsonl",)  # what `prepare` itself leaves in a folder


@dataclass(frozen=True)
class Source:
    """One file of JSONL, or one DDXPlus folder."""

    path: Path
    file_format: Literal["jsonl", "ddxplus"]
    guessed: bool

    @property
    def files(self) -> tuple[Path, ...]:
        """The files that are read."""
        return (self.path,) if self.file_format == "jsonl" else (self.path / CONDITIONS, self.path / EVIDENCES)


def find_sources(places: Sequence[Path], file_format: str = "auto") -> list[Source]:
    """Every source that ``places`` name, each once, sorted within a folder or glob.

    Raises :class:`DialogueError` for a place that is missing or holds nothing to read.
    """
    if file_format not in FORMATS:
        raise DialogueError(f"format {file_format!r} is not one of {', '.join(FORMATS)}; choose one of them")
    if not places:
        raise DialogueError("no source was given; name a file, a folder or a glob of dialogues")
    sources: dict[Path, Source] = {}
    for place in places:
        for path in _expanded(place):
            for source in _sources_at(path, file_format):
                sources.setdefault(source.path.resolve(), source)
    return list(sources.values())


def read_source(source: Source, seed: int, count: int | None) -> Iterator[Dialogue | Fault]:
    """Each row of ``source``; ``seed`` and ``count`` (calls a condition) are DDXPlus's."""
    if source.file_format == "ddxplus":
        yield from ddxplus_calls(source.path, seed, count)
        return
    for parsed in scan_dialogues(source.path):
        yield replace(parsed, file=str(source.path)) if isinstance(parsed, Fault) else parsed


def line_numbers(path: Path) -> Iterator[int]:
    """The number of each line that is not blank: one a row of :func:`read_source`."""
    with path.open(encoding="utf-8", errors="surrogateescape", newline="\n") as file:
        yield from (number for number, line in enumerate(file, start=1) if line.strip())


def _expanded(place: Path) -> list[Path]:
    if place.exists():
        return [place]
    found = [Path(match) for match in sorted(glob.glob(str(place), recursive=True))]  # noqa: PTH207 - an absolute pattern too
    if not found:
        raise DialogueError(f"{place} does not exist; name a file, a folder or a glob of dialogues")
    return found


def _sources_at(path: Path, file_format: str) -> list[Source]:
    guessed = file_format == "auto"
    if path.name in (CONDITIONS, EVIDENCES) and path.is_file():
        path = path.parent  # the two files belong together
    is_ddxplus = (path / CONDITIONS).exists() or (path / EVIDENCES).exists()
    if file_format == "ddxplus" or guessed and is_ddxplus:
        return [Source(path, "ddxplus", guessed)]
    if path.is_dir():
        files = [file for file in sorted(path.rglob("*.jsonl")) if file.is_file() and file.name not in NOT_CALLS]
        if not files:
            raise DialogueError(f"folder {path} holds no .jsonl file; name the folder that holds the dialogues")
        return [Source(file, "jsonl", guessed) for file in files]
    if guessed and path.suffix != ".jsonl":
        raise DialogueError(
            f"{path}: a {path.suffix or 'nameless'} file is no known format; say --format jsonl if it holds our record"
        )
    return [Source(path, "jsonl", guessed)]
