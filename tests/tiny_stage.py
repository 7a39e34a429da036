"""Rows for the stage `prepare`: words that mean nothing, so that no two calls are alike and no rule reads them."""

from __future__ import annotations

import dataclasses
import json
import random
from pathlib import Path
from typing import Any

from llmft.dialogue import read_dialogues
from llmft.prepare.database import DATABASE
from llmft.prepare.record import CleanOptions
from llmft.prepare.splits import SPLITS
from llmft.prepare.stage import PrepareOptions

SECRET = "zorglub9371"
SYLLABLES = [consonant + vowel for consonant in "bdklmrstv" for vowel in "aeo"]
SPLIT_FILES = [f"{split}.jsonl" for split in SPLITS]
JSON_FILES = [*SPLIT_FILES, "quarantine.jsonl", "duplicates.jsonl", "refused.jsonl", "warnings.jsonl", "lineage.jsonl"]
FILES = sorted([*JSON_FILES, "DATA_CARD.md", "calls.duckdb", "report.html", "report.json", "versions.jsonl"])


def nonsense(seed: int, words: int = 12) -> str:
    """Words of three syllables, others for every seed."""
    rng = random.Random(seed)
    return " ".join("".join(rng.choices(SYLLABLES, k=3)) for _ in range(words))


def record(number: int, family: str | None = None, **changes: Any) -> dict[str, Any]:
    """A row of our own record."""
    turns = [{"speaker": "patient", "text": f"{SECRET} {nonsense(number)}"}, {"speaker": "operator", "text": "Oui."}]
    row = {"schema_version": "1", "id": f"c{number}", "family_id": family or f"f{number}", "lang": "fr", "turns": turns}
    return {**row, **changes}


def chat(number: int, **changes: Any) -> dict[str, Any]:
    """The same as a chat, which may name a patient, a date and a roster."""
    said = {"user": f"{SECRET} {nonsense(number)}", "assistant": "Oui."}
    messages = [{"role": role, "content": text} for role, text in said.items()]
    return {"id": f"c{number}", "lang": "fr", "messages": messages, **changes}


def write_rows(path: Path, rows: list[Any]) -> Path:
    """Rows as JSON lines; texts stand as they are."""
    path.parent.mkdir(parents=True, exist_ok=True)
    lines = [row if isinstance(row, str) else json.dumps(row, ensure_ascii=False) for row in rows]
    path.write_text("".join(f"{line}\n" for line in lines), "utf-8")
    return path


def options(folder: Path, **changes: Any) -> PrepareOptions:
    """One process, a vault below ``folder``, and near-identical calls let be; ``clean`` takes a dictionary."""
    clean = CleanOptions(**changes.pop("clean", {}))
    return PrepareOptions(**{"vault": folder / "vault", "workers": 1, "near_duplicates": False, "clean": clean, **changes})


def contents(folder: Path) -> dict[str, object]:
    """Name ─▶ what a file of a set holds: its bytes, of the database its tables."""
    files = {str(path.relative_to(folder)): path for path in sorted(folder.rglob("*")) if path.is_file()}
    return {name: tables(path) if name == DATABASE else path.read_bytes() for name, path in files.items()}


def tables(path: Path) -> dict[str, list[Any]]:
    """All rows of a database in the order in which they stand."""
    import duckdb

    with duckdb.connect(str(path), read_only=True, config={"threads": 1}) as connection:
        names = [name for (name,) in connection.execute("SHOW TABLES").fetchall()]
        return {name: connection.execute(f"SELECT * FROM {name}").fetchall() for name in names}


def splits_of(folder: Path) -> dict[str, str]:
    """Dialogue id ─▶ the split whose file holds it."""
    return {dialogue.id: split for split in SPLITS for dialogue in read_dialogues(folder / f"{split}.jsonl")}


def lines_of(path: Path) -> list[dict[str, Any]]:
    """A file of JSON lines."""
    return [json.loads(line) for line in path.read_text("utf-8").splitlines()]


def changed(given: PrepareOptions, **changes: Any) -> PrepareOptions:
    """The same options but for ``changes``."""
    return dataclasses.replace(given, **changes)
