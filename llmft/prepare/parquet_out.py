"""Prepared dialogues as Parquet and back, exactly: columns that SQL and data frames can use.

Plain facts and turns are columns of their own type; what has no fixed type is JSON text.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator
from itertools import islice
from pathlib import Path
from typing import Any

from llmft.dialogue import SCHEMA_VERSION, Dialogue, Fault, parse_dialogue
from llmft.errors import DialogueError, MissingExtraError
from llmft.run import atomic_path

_BATCH_DIALOGUES = 1000
_MARK = b"llmft.dialogues"  # in the file's metadata: the version of the record
_PLAIN = ("schema_version", "id", "family_id", "lang", "channel", "source", "license", "collected_on", "split", "hash")
_PLAIN_TURN = ("speaker", "text", "i", "stage", "act", "start", "end")
_PLAIN_LABELS = (
    *("urgency", "specialty", "icd10_primary", "disposition"),
    *("annotators", "agreement", "corrected", "confidence", "rule_confidence"),
)
_LISTS = ("red_flags", "specialty_acceptable", "required_slots")  # of labels
_JSON = ("consent", "patient", "routing", "deid")
_JSON_LABELS = ("symptoms", "differential")


def write_parquet(path: Path, dialogues: Iterable[Dialogue]) -> int:
    """Write a whole file; returns how many dialogues it holds."""
    pa, parquet = _arrow()
    schema, remaining, count = _schema(pa), iter(dialogues), 0
    with atomic_path(path) as partial, parquet.ParquetWriter(partial, schema, compression="zstd") as writer:
        while batch := [_row(dialogue) for dialogue in islice(remaining, _BATCH_DIALOGUES)]:
            writer.write_table(pa.Table.from_pylist(batch, schema=schema))
            count += len(batch)
    return count


def is_prepared_parquet(path: Path) -> bool:
    """Whether :func:`write_parquet` made the file."""
    _, parquet = _arrow()
    try:
        return _MARK in (parquet.read_schema(path).metadata or {})
    except (OSError, ValueError):
        return False


def read_parquet(path: Path) -> Iterator[Dialogue | Fault]:
    """Each dialogue of a file that :func:`write_parquet` made; raises :class:`DialogueError` for another one."""
    if not is_prepared_parquet(path):
        raise DialogueError(f"{path} holds no prepared dialogues; read it as a table with: llmft prepare {path}")
    _, parquet = _arrow()
    number = 0
    try:
        for batch in parquet.ParquetFile(path).iter_batches(batch_size=_BATCH_DIALOGUES):
            for row in batch.to_pylist():
                number += 1
                yield _dialogue(row, path, number)
    except (OSError, ValueError):  # what pyarrow raises over damaged pages
        yield Fault(str(path), number + 1, "", "the file is damaged from here on")


def _row(dialogue: Dialogue) -> dict[str, Any]:
    record = dialogue.model_dump(mode="json")
    labels = record["labels"]
    return {
        **{name: record[name] for name in _PLAIN},
        "turns": [
            {**{name: turn[name] for name in (*_PLAIN_TURN, "asks")}, "evidence": _text(turn["evidence"])}
            for turn in record["turns"]
        ],
        "labels": labels
        and {
            **{name: labels[name] for name in (*_PLAIN_LABELS, *_LISTS)},
            **{name: _text(labels[name]) for name in _JSON_LABELS},
        },
        **{name: _text(record[name]) for name in _JSON},
    }


def _dialogue(row: dict[str, Any], path: Path, number: int) -> Dialogue | Fault:
    try:
        for turn in row["turns"]:
            turn["evidence"] = json.loads(turn["evidence"] or "[]")
        if row["labels"] is not None:
            row["labels"] |= {name: json.loads(row["labels"][name] or "[]") for name in _JSON_LABELS}
        row |= {name: json.loads(row[name] or "null") for name in _JSON}
        return parse_dialogue(json.dumps(row, ensure_ascii=False), str(path), number)
    except (KeyError, TypeError, ValueError):
        return Fault(str(path), number, "", "the row is not what write_parquet wrote")


def _text(value: Any) -> str | None:
    """JSON text, None for nothing and for an empty list."""
    return None if value is None or value == [] else json.dumps(value, ensure_ascii=False)


def _schema(pa: Any) -> Any:
    text, texts, number = pa.string(), pa.list_(pa.string()), pa.float64()
    types = {"i": pa.int64(), "start": number, "end": number, "annotators": pa.int64(), "corrected": pa.bool_()}
    types |= {"agreement": number, "rule_confidence": number}
    turn = [(name, types.get(name, text)) for name in _PLAIN_TURN] + [("asks", texts), ("evidence", text)]
    labels = [(name, types.get(name, text)) for name in _PLAIN_LABELS] + [(name, texts) for name in _LISTS]
    return pa.schema(
        [(name, text) for name in _PLAIN]
        + [("turns", pa.list_(pa.struct(turn))), ("labels", pa.struct([*labels, *((name, text) for name in _JSON_LABELS)]))]
        + [(name, text) for name in _JSON],
        metadata={_MARK: SCHEMA_VERSION.encode()},
    )


def _arrow() -> tuple[Any, Any]:
    try:
        import pyarrow
        from pyarrow import parquet
    except ImportError as error:
        raise MissingExtraError("pyarrow", "data") from error
    return pyarrow, parquet
