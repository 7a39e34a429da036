"""Where every row of a set came from, without saying of whom: keyed hashes, tombstones, and a set's versions.

lineage.jsonl    in a set: {"id", "source", "row", "sha256", "subject_hash"} a row, duplicates included
versions.jsonl   in a set: the hashes of its files, one line each time they changed
subject.salt     in the vault, outside every set: without it nobody can tell whose hash is whose
tombstones.jsonl in the vault: {"key", "date", "data_sha256"} a person or call that must not come back
"""

from __future__ import annotations

import dataclasses
import hmac
import json
import os
import re
import secrets
import unicodedata
from collections.abc import Collection, Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from llmft.deidentify.numbering import PEOPLE
from llmft.deidentify.stage import deidentify
from llmft.errors import DialogueError
from llmft.prepare.call import RawCall
from llmft.run import disk_error, write_text

LINEAGE, VERSIONS, SALT, TOMBSTONES = "lineage.jsonl", "versions.jsonl", "subject.salt", "tombstones.jsonl"


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


def default_vault() -> Path:
    """The folder for what must lie outside the sets: $LLMFT_VAULT, or the user's data folder."""
    home = os.environ.get("XDG_DATA_HOME") or Path.home() / ".local" / "share"
    return Path(os.environ.get("LLMFT_VAULT") or Path(home) / "llmft")


def open_vault(vault: Path, *, create: bool = True) -> bytes:
    """The vault's secret salt; made on first use, readable by its owner alone."""
    path = vault / SALT
    try:
        if create and not path.exists():
            vault.mkdir(parents=True, exist_ok=True)
            _write_secret(path, secrets.token_hex(32))
        text = path.read_text("ascii").strip()
    except FileNotFoundError as error:
        raise DialogueError(f"{path} is not there, so no subject can be looked up; give the folder that prepare used") from error
    except (OSError, UnicodeDecodeError) as error:
        raise DialogueError(f"{path} cannot be read; give another folder, or restore the file from its backup") from error
    if not re.fullmatch(r"[0-9a-f]{64}", text):
        raise DialogueError(f"{path} is damaged: it must hold 64 hexadecimal digits; restore it from its backup")
    return bytes.fromhex(text)


def _write_secret(path: Path, text: str) -> None:
    """Write once: of two processes that do so at the same time, one wins and both read the same."""
    partial = path.with_name(f"{path.name}.{os.getpid()}.partial")
    try:
        with os.fdopen(os.open(partial, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600), "w") as file:
            file.write(text + "\n")
            file.flush()
            os.fsync(file.fileno())
        os.link(partial, path)
    except FileExistsError:
        pass
    except OSError as error:
        raise disk_error(path, error) from error
    finally:
        partial.unlink(missing_ok=True)


def subject_key(subject: str, salt: bytes) -> str:
    """The keyed hash of a patient's key in the source; case, width and outer spaces play no part."""
    return _keyed(b"subject:", unicodedata.normalize("NFKC", subject).strip().casefold(), salt)


def dialogue_key(dialogue_id: str, salt: bytes) -> str:
    """The keyed hash of one call's id."""
    return _keyed(b"dialogue:", dialogue_id, salt)


def _keyed(kind: bytes, text: str, salt: bytes) -> str:
    return hmac.digest(salt, kind + text.encode("utf-8", "surrogatepass"), "sha256").hex()


def origin_of(call: RawCall, dialogue_id: str, salt: bytes) -> Origin:
    """Where ``dialogue_id`` came from."""
    said = "\x1f".join([f"{turn.speaker}\x1e{turn.text}" for turn in call.turns])
    subject = subject_key(call.subject, salt) if call.subject else None
    return Origin(dialogue_id, call.file, call.row, _keyed(b"said:", said, salt), subject)


def names_somebody(file: Path) -> bool:
    """Whether a source's file name reads like a person's: lineage and report hold it as it is, to find the row again."""
    said = re.sub(r"[\W_]+", " ", file.name.split(".")[0])
    return not PEOPLE.isdisjoint(deidentify((said,), "fr", layers=("context", "names")).counts)


def origin_line(origin: Origin) -> str:
    """One line of lineage.jsonl."""
    return json.dumps(vars(origin), ensure_ascii=False) + "\n"


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
