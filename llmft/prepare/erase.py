"""The right to erasure: a person leaves every prepared set, stays out, and what was trained on them is named.

The tombstone comes first and the lineage is cleaned last, so that a killed erasure is finished by doing it again.
"""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass
from datetime import date
from pathlib import Path
from typing import Any

from llmft.errors import DialogueError
from llmft.prepare.database import DATABASE, build_database
from llmft.prepare.lineage import LINEAGE, VERSIONS, add_tombstone, dialogue_key, read_lineage, read_versions, remember_version
from llmft.prepare.output import ANNOTATIONS
from llmft.prepare.reporting.audit import SHEET, SIGNED, forget_calls
from llmft.prepare.reporting.counts import SPLITS, Counts, facts
from llmft.prepare.reporting.page import write_reports
from llmft.prepare.reporting.report import read_report, recounted
from llmft.prepare.token_lengths import with_exact_tokens
from llmft.run import atomic_path, sha256
from llmft.vault import default_vault, open_vault, subject_key

SPLIT_FILES = tuple(f"{split}.jsonl" for split in SPLITS)
DUPLICATES, REPORT = "duplicates.jsonl", "report.json"
CLEANED = {
    *SPLIT_FILES,
    DUPLICATES,
    LINEAGE,
    VERSIONS,
    REPORT,
    "report.html",
    "DATA_CARD.md",
    DATABASE,
    SHEET,
    SIGNED,
    ANNOTATIONS,
}
WITHOUT_PERSONS = {"quarantine.jsonl", "refused.jsonl", "warnings.jsonl", "doctors.json"}  # they name rows of sources, not calls


@dataclass(frozen=True)
class Places:
    """Where sets, runs and exports lie, and the vault with salt and tombstones."""

    prepared: Path = Path("data/prepared")
    runs: Path = Path("runs")
    exports: Path = Path("export")
    vault: Path = dataclasses.field(default_factory=default_vault)


@dataclass(frozen=True)
class Erasure:
    """What was removed, and what a person has to look at."""

    rows: dict[str, int]  # set ─▶ calls removed
    runs: tuple[str, ...]  # trained on a file that held the person
    exports: tuple[str, ...]  # GGUF files made from those runs
    stand_ins: tuple[str, ...]  # calls that stayed while a near-identical one of the person was dropped as duplicate
    unknown_files: tuple[str, ...]  # in the touched sets, not written by prepare
    untraced: tuple[str, ...]  # sets without lineage, where nobody can be looked up


def erase(places: Places, *, subject: str | None = None, dialogue_id: str | None = None, day: date | None = None) -> Erasure:
    """Remove one subject's calls, or one call, from every set below ``places.prepared``.

    Raises :class:`DialogueError` unless exactly one of ``subject`` and ``dialogue_id`` is given.
    """
    if (subject is None) == (dialogue_id is None):
        raise DialogueError("an erasure needs one person or one call; give either --subject or --id")
    salt = open_vault(places.vault, create=False)
    key = subject_key(subject, salt) if subject is not None else dialogue_key(str(dialogue_id), salt)
    sets = sorted(path.parent for path in places.prepared.rglob("train.jsonl"))
    traced = {folder: _ids(folder, key, dialogue_id) for folder in sets if (folder / LINEAGE).is_file()}
    touched = {folder: ids for folder, ids in traced.items() if ids}
    today = (day or date.today()).isoformat()
    stone = add_tombstone(places.vault, key, today, [h for folder, ids in touched.items() for h in _hashes(folder, ids)])
    stand_ins = [name for folder, ids in touched.items() for name in _stand_ins(folder, ids)]
    rows = {str(folder): _clean(folder, ids, today) for folder, ids in touched.items()}
    runs = _trained_on(places.runs, set(stone.data_sha256))
    return Erasure(
        rows=rows,
        runs=tuple(map(str, runs)),
        exports=tuple(_made_from(places.exports, runs)),
        stand_ins=tuple(stand_ins),
        unknown_files=tuple(str(path) for folder in touched for path in _unknown(folder)),
        untraced=tuple(str(folder) for folder in sets if folder not in traced),
    )


def describe(erasure: Erasure) -> list[str]:
    """What happened and what is left to do, a sentence a line."""
    lines = [f"{count} calls removed from {folder}" for folder, count in erasure.rows.items()]
    lines = lines or ["found in no prepared set; the tombstone keeps it out of the next one"]
    lines += [f"{run} was trained on it: train it again" for run in erasure.runs]
    lines += [f"{file} was made from such a run: withdraw it" for file in erasure.exports]
    lines += [f"call {name} says nearly what a removed one said: read it, or erase it with --id" for name in erasure.stand_ins]
    lines += [f"{path} was not made by prepare: look whether it holds the person" for path in erasure.unknown_files]
    return lines + [f"{folder} has no lineage, so nobody can be found in it: prepare it again" for folder in erasure.untraced]


def _ids(folder: Path, key: str, dialogue_id: str | None) -> frozenset[str]:
    """The calls of ``folder`` that are meant."""
    origins = read_lineage(folder)
    if dialogue_id is not None:
        return frozenset(origin.id for origin in origins if origin.id == dialogue_id)
    return frozenset(origin.id for origin in origins if origin.subject_hash == key)


def _hashes(folder: Path, ids: Collection[str]) -> set[str]:
    """The files that hold or held the calls: those of today, and in older versions the files of the same names."""
    names = [name for name in SPLIT_FILES if any(record["id"] in ids for record, _ in _rows(folder / name))]
    older = {version[name] for version in read_versions(folder) for name in names if name in version}
    return older | {sha256(folder / name) for name in names}


def _rows(path: Path) -> Iterable[tuple[dict[str, Any], str]]:
    """Each line of a file of prepare, parsed and as it stands."""
    if path.is_file():
        with path.open(encoding="utf-8", newline="\n") as file:
            for line in file:
                yield json.loads(line), line


def _stand_ins(folder: Path, ids: Collection[str]) -> list[str]:
    dropped = (record for record, _ in _rows(folder / DUPLICATES) if record.get("id") in ids)
    return sorted({str(record["same_as"]) for record in dropped if record.get("same_as") and record["same_as"] not in ids})


def _clean(folder: Path, ids: Collection[str], day: str) -> int:
    """Rewrite what names the calls; returns how many dialogues left the splits."""
    gone = sum(_drop(folder / name, ids, ("id",)) for name in SPLIT_FILES)
    _drop(folder / DUPLICATES, ids, ("id", "same_as"))
    _drop(folder / ANNOTATIONS, ids, ("id",))
    sheet = folder / SHEET
    if sheet.is_file() and any(f'data-id="{name}"' in sheet.read_text("utf-8") for name in ids):
        sheet.unlink()
    files = {name: sha256(folder / name) for name in SPLIT_FILES}
    _report_again(folder, ids, files, day)
    remember_version(folder, files)
    if (folder / DATABASE).is_file():
        build_database(folder)
    _drop(folder / LINEAGE, ids, ("id",))
    return gone


def _drop(path: Path, ids: Collection[str], keys: tuple[str, ...]) -> int:
    """Rewrite ``path`` without the lines that name one of ``ids`` under one of ``keys``; returns how many there were."""
    gone = sum(any(record.get(key) in ids for key in keys) for record, _ in _rows(path))
    if gone:
        with atomic_path(path) as partial, partial.open("w", encoding="utf-8", newline="\n") as file:
            file.writelines(line for record, line in _rows(path) if not any(record.get(key) in ids for key in keys))
    return gone


def _report_again(folder: Path, ids: Collection[str], files: Mapping[str, str], day: str) -> None:
    report = read_report(folder / REPORT) if (folder / REPORT).is_file() else None
    audit = forget_calls(folder, ids, files if report is not None and report.audit is not None else None)
    if report is None:
        return
    kept = Counts()
    for split in SPLITS:
        for record, _ in _rows(folder / f"{split}.jsonl"):
            kept.keep(facts(record), split)
    changed = with_exact_tokens(recounted(report, kept, files={**report.files, **files}, day=day), report, folder)
    write_reports(folder, folder.name, dataclasses.replace(changed, audit=audit))


def _trained_on(runs: Path, hashes: Collection[str]) -> list[Path]:
    """The runs whose training or validation data had one of ``hashes``."""
    found = []
    for folder in sorted(path for path in runs.glob("*") if path.is_dir()):
        recorded = {**_json(folder / "data.json"), **_json(folder / "manifest.json").get("data_sha256", {})}
        if any(str(digest) in json.dumps(recorded) for digest in hashes):
            found.append(folder)
    return found


def _made_from(exports: Path, runs: Collection[Path]) -> list[str]:
    """The exported files whose adapter is that of one of ``runs``, by its bytes or by its place."""
    weights = {sha256(path) for run in runs if (path := run / "adapter" / "adapter_model.safetensors").is_file()}
    places = {(run / "adapter").resolve() for run in runs}
    found = []
    for manifest in sorted(exports.glob("*/manifest.json")):
        for name, entry in _json(manifest).get("files", {}).items():
            origin = entry.get("made_from", {})
            if origin.get("adapter_sha256") in weights or (origin.get("adapter") and Path(origin["adapter"]).resolve() in places):
                found.append(str(manifest.parent / name))
    return found


def _unknown(folder: Path) -> list[Path]:
    files = (path for path in folder.rglob("*") if path.is_file())
    return sorted(path for path in files if str(path.relative_to(folder)) not in CLEANED | WITHOUT_PERSONS)


def _json(path: Path) -> dict[str, Any]:
    try:
        value = json.loads(path.read_text("utf-8"))
    except (OSError, ValueError):
        return {}
    return value if isinstance(value, dict) else {}
