"""The human check of de-identification: a sample to read, a sheet to sign, and what the signature proves.

A leak that nobody finds cannot be counted, so the sheet asks a person to read a random sample and gives the
share of calls that may still hold a leak: its exact upper bound.
"""

from __future__ import annotations

import dataclasses
import hashlib
import heapq
import json
from collections.abc import Collection, Iterator, Mapping
from pathlib import Path
from typing import Any, Literal

from pydantic import Field, ValidationError

from llmft.dialogue import Dialogue, Record, parse_dialogue
from llmft.errors import DialogueError
from llmft.prepare.reporting.counts import SPLITS
from llmft.prepare.reporting.page import write_reports
from llmft.prepare.reporting.report import Report, read_report
from llmft.proportion import upper_bound
from llmft.run import atomic_path, write_json

SHEET, SIGNED = "audit.html", "audit-signed.json"  # the latter outlives the report, which prepare writes anew


class Audit(Record):
    """A signed sheet, as the page writes it. No word of any call."""

    kind: Literal["llmft-audit"]
    set_sha256: str  # of the set that was read: fingerprint()
    seed: int
    sampled: int = Field(ge=1)
    reviewed: int = Field(ge=1)
    leaks: tuple[str, ...]  # ids of calls in which something personal was left
    wrong: tuple[str, ...]  # ids of calls in which something harmless was replaced
    signed_by: str = Field(min_length=1, max_length=200)
    signed_on: str = Field(pattern=r"^\d{4}-\d{2}-\d{2}$")
    leak_bound: float = Field(ge=0, le=1)  # share of calls with a leak, one-sided 95 %


def sample_dialogues(folder: Path, count: int, seed: int) -> list[Dialogue]:
    """``count`` calls of a prepared set, each as likely as any other; the same ones for the same set and seed.

    A line's rank is its keyed hash, so one pass in flat memory is enough and the order of lines plays no part.
    """
    key = str(seed).encode()
    ranked = ((hashlib.blake2b(line, key=key, digest_size=16).digest(), line) for line in _lines(folder))
    parsed = [parse_dialogue(line.decode(), folder.name, 0) for _, line in heapq.nsmallest(count, ranked)]
    return [dialogue for dialogue in parsed if isinstance(dialogue, Dialogue)]


def _lines(folder: Path) -> Iterator[bytes]:
    for split in SPLITS:
        try:
            with (folder / f"{split}.jsonl").open("rb") as file:
                yield from (line for line in file if line.strip())
        except OSError as error:
            reason = f"{folder} has no readable {split}.jsonl: {error.strerror}"
            raise DialogueError(f"{reason}; make the set with: llmft prepare SOURCE --output {folder}") from error


def fingerprint(files: Mapping[str, str]) -> str:
    """One hash for a whole set, from its report's ``files``: a signature holds for these bytes alone."""
    names = [f"{split}.jsonl" for split in SPLITS]
    return hashlib.sha256(json.dumps([[name, files.get(name)] for name in names]).encode()).hexdigest()


def write_sheet(folder: Path, count: int, seed: int) -> Path:
    """Write ``audit.html`` into a prepared set; returns its path."""
    from llmft.prepare.reporting.audit_sheet import sheet

    report = read_report(folder / "report.json")
    dialogues = sample_dialogues(folder, count, seed)
    if not dialogues:
        raise DialogueError(f"{folder} holds no dialogue to audit; prepare more with: llmft prepare")
    path = folder / SHEET
    with atomic_path(path) as partial:
        partial.write_text(sheet(folder.name, dialogues, fingerprint(report.files), seed, report.rows_out), encoding="utf-8")
    return path


def read_audit(path: Path) -> Audit:
    """A signed sheet; raises :class:`DialogueError` unless it is whole, consistent and rightly computed."""
    try:
        audit = Audit.model_validate_json(path.read_bytes())
    except OSError as error:
        raise DialogueError(f"{path} cannot be read: {error.strerror}; download it from {SHEET}") from error
    except ValidationError as error:
        field = ".".join(map(str, error.errors(include_input=False)[0]["loc"])) or "the JSON"
        raise DialogueError(f"{path} is no signed audit: {field} is not right; download it from {SHEET} again") from error
    most = max(len(set(audit.leaks)), len(set(audit.wrong)))
    repeated = len(set(audit.leaks)) < len(audit.leaks) or len(set(audit.wrong)) < len(audit.wrong)
    if repeated or most > audit.reviewed or audit.reviewed > audit.sampled:
        raise DialogueError(f"{path}: the numbers of calls sampled, read and ticked contradict each other; sign {SHEET} again")
    return audit.model_copy(update={"leak_bound": upper_bound(len(audit.leaks), audit.reviewed)})


def sign_off(folder: Path, audit_path: Path) -> Report:
    """Put a signed sheet into the set's report, page and card; it must have been signed for this very set."""
    audit, report = read_audit(audit_path), read_report(folder / "report.json")
    if audit.set_sha256 != fingerprint(report.files):
        raise DialogueError(
            f"{audit_path} was signed for another state of {folder}; make a new sheet with: llmft prepare --audit"
        )
    write_json(folder / SIGNED, audit.model_dump(mode="json"))
    signed = dataclasses.replace(report, audit=_for_report(audit))
    write_reports(folder, folder.name, signed)
    return signed


def audit_of(folder: Path, files: Mapping[str, str]) -> tuple[dict[str, Any] | None, tuple[str, ...]]:
    """The audit that was signed for the set of these ``files``; a warning instead where it was for another state of it."""
    audit = _signed(folder)
    if audit is None or audit.set_sha256 == fingerprint(files):
        return (_for_report(audit) if audit else None), ()
    return None, (
        f"the audit that {audit.signed_by} signed on {audit.signed_on} was of other calls than the set holds now "
        "and is left out; sign a new sheet: --audit 100",
    )


def forget_calls(folder: Path, ids: Collection[str], files: Mapping[str, str] | None) -> dict[str, Any] | None:
    """Take the names of erased calls out of the signed audit, and return it for the report.

    What was signed of the other calls still holds: where it held before, it now holds for ``files``; None where it did not.
    """
    audit = _signed(folder)
    if audit is None:
        return None
    left = {kind: tuple("erased" if name in ids else name for name in getattr(audit, kind)) for kind in ("leaks", "wrong")}
    state = audit.set_sha256 if files is None else fingerprint(files)
    changed = audit.model_copy(update={**left, "set_sha256": state})
    write_json(folder / SIGNED, changed.model_dump(mode="json"))
    return None if files is None else _for_report(changed)


def _signed(folder: Path) -> Audit | None:
    try:
        return Audit.model_validate_json((folder / SIGNED).read_bytes())
    except (OSError, ValidationError):  # none, or one that nobody signed so
        return None


def _for_report(audit: Audit) -> dict[str, Any]:
    return {**audit.model_dump(mode="json"), "wrong_bound": upper_bound(len(audit.wrong), audit.reviewed)}
