"""Where every row of a set came from, without saying of whom: keyed hashes, tombstones, and a set's versions.

lineage.jsonl    in a set: {"id", "source", "row", "sha256", "subject_hash"} a row, duplicates included
versions.jsonl   in a set: the hashes of its files, one line each time they changed
subject.salt     in the vault, outside every set: without it nobody can tell whose hash is whose
tombstones.jsonl in the vault: {"key", "date", "data_sha256"} a person or call that must not come back
"""

from __future__ import annotations

import dataclasses
import json
import re
from collections.abc import Collection, Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from llmft.deidentify.numbering import PEOPLE
from llmft.deidentify.stage import deidentify
from llmft.errors import DialogueError
from llmft.prepare.call import RawCall
from llmft.run import write_text
from llmft.vault import keyed, subject_key

_ENCODER = json.JSONEncoder(ensure_ascii=False)
LINEAGE, VERSIONS, TOMBSTONES = "lineage.jsonl", "versions.jsonl", "tombstones.jsonl"


@dataclass(frozen=True)
class Origin:
    """One row's way into the set."""

    id: str
    source: str
    row: int
    sha256: str  # keyed, of what was said in the source; two sources that say the same have the same
    subject_hash: str | None  # keyed; None: the source names no subject


@dataclass(frozen=True)
class Tombstone:
    """Somebody, or one call, that was erased: a keyed hash and a date."""

    key: str
    date: str
    data_sha256: tuple[str, ...]  # files that held it, so that what was trained on them can be found later


def dialogue_key(dialogue_id: str, salt: bytes) -> str:
    """The keyed hash of one call's id."""
    return keyed(b"dialogue:", dialogue_id, salt)


def origin_of(call: RawCall, dialogue_id: str, salt: bytes) -> Origin:
    """Where ``dialogue_id`` came from."""
    said = "\x1f".join([f"{turn.speaker}\x1e{turn.text}" for turn in call.turns])
    subject = subject_key(call.subject, salt) if call.subject else None
    return Origin(dialogue_id, call.file, call.row, keyed(b"said:", said, salt), subject)


def names_somebody(file: Path) -> bool:
    """Whether a source's file name reads like a person's: lineage and report hold it as it is, to find the row again."""
    said = re.sub(r"[\W_]+", " ", file.name.split(".")[0])
    return not PEOPLE.isdisjoint(deidentify((said,), "fr", layers=("context", "names")).counts)


def origin_line(origin: Origin) -> str:
    """One line of lineage.jsonl."""
    return _ENCODER.encode(vars(origin)) + "\n"


def read_lineage(folder: Path) -> Iterator[Origin]:
    """The rows of a set's lineage.jsonl; raises :class:`DialogueError` where one is damaged."""
    for number, record in _records(folder / LINEAGE):
        try:
            yield Origin(**record)
        except TypeError as error:
            raise DialogueError(f"{folder / LINEAGE}:{number}: not a row of lineage; run llmft prepare again") from error


def read_tombstones(vault: Path) -> dict[str, Tombstone]:
    """Key ─▶ tombstone; empty when nobody was erased."""
    if not (vault / TOMBSTONES).is_file():
        return {}
    found = {}
    for number, record in _records(vault / TOMBSTONES):
        try:
            stone = Tombstone(record["key"], record["date"], tuple(record["data_sha256"]))
        except (KeyError, TypeError) as error:
            raise DialogueError(f"{vault / TOMBSTONES}:{number}: not a tombstone; restore the file from its backup") from error
        found[stone.key] = stone
    return found


def add_tombstone(vault: Path, key: str, day: str, data_sha256: Iterable[str]) -> Tombstone:
    """Leave a tombstone, or add files to the one that stands."""
    stones = read_tombstones(vault)
    before = stones.get(key, Tombstone(key, day, ()))
    stone = Tombstone(key, before.date, tuple(sorted({*before.data_sha256, *data_sha256})))
    stones[key] = stone
    write_text(vault / TOMBSTONES, "".join(json.dumps(dataclasses.asdict(s)) + "\n" for s in stones.values()))
    return stone


def is_erased(subject: str | None, dialogue_id: str, salt: bytes, tombstones: Collection[str]) -> bool:
    """Whether a row of this subject, or with this id, must be left out; ``tombstones`` are their keys."""
    if not tombstones:
        return False
    return dialogue_key(dialogue_id, salt) in tombstones or (subject is not None and subject_key(subject, salt) in tombstones)


def remember_version(folder: Path, files: Mapping[str, str]) -> None:
    """Note the hashes of a set's files, once a change; a set that is prepared again keeps its older versions."""
    versions = read_versions(folder)
    if not versions or versions[-1] != dict(files):
        lines = [*versions, dict(files)]
        write_text(folder / VERSIONS, "".join(json.dumps(line, sort_keys=True) + "\n" for line in lines))


def read_versions(folder: Path) -> list[dict[str, str]]:
    """The hashes of a set's files, oldest first."""
    return [record for _, record in _records(folder / VERSIONS)] if (folder / VERSIONS).is_file() else []


def _records(path: Path) -> Iterator[tuple[int, dict[str, Any]]]:
    try:
        with path.open(encoding="utf-8") as file:
            for number, line in enumerate(file, start=1):
                record = json.loads(line)
                if not isinstance(record, dict):
                    raise ValueError
                yield number, record
    except OSError as error:
        raise DialogueError(f"{path} cannot be read: {error.strerror}; make it with: llmft prepare") from error
    except ValueError as error:
        raise DialogueError(f"{path} is damaged; restore it from its backup, or run llmft prepare again") from error
