"""Which model is in service: taken only when it passed the gate, and given back for the one before in one step."""

from __future__ import annotations

from pathlib import Path
from typing import NamedTuple

from sqlalchemy import Connection, insert, select

from llmft.engine.gguf_header import read_gguf_header
from llmft.errors import ConflictError, NotStoredError, StoreError
from llmft.gate_result import judgement_of
from llmft.run import sha256
from llmft.serve.store.database import Store, now
from llmft.serve.store.journal import append, lock
from llmft.serve.store.tables import models


class ModelVersion(NamedTuple):
    """A model that was taken into service."""

    number: int
    path: Path
    sha256: str
    gate: str  # passed, overridden
    back_to: int | None  # the number that was returned to, when this was a step back
    created: str


def use_model(store: Store, path: Path, by: str, *, gate_dir: Path | None = None, despite_gate: bool = False) -> ModelVersion:
    """Take a GGUF into service; the gate's result lies beside it, or in ``gate_dir``.

    Raises :class:`StoreError` unless this very file has passed; ``despite_gate`` takes it all the same, and the journal tells.
    """
    read_gguf_header(path)
    digest = sha256(path)
    fault = _gate_fault(path, gate_dir)
    if fault and not despite_gate:
        raise StoreError(f"{fault}; judge it with: llmft evaluate, or take it all the same with --despite-gate")
    return _take(store, path.absolute(), digest, "overridden" if fault else "passed", None, by)


def roll_back(store: Store, by: str) -> ModelVersion:
    """Return to the model that was in service before; raises :class:`StoreError` when there is none, or its file has changed."""
    with store.reading() as connection:
        taken = _in_force(_rows(connection))
    if len(taken) < 2:
        raise NotStoredError("no model was in service before this one; take one with: llmft models use FILE")
    last = taken[-2]
    if not last.path.is_file() or sha256(last.path) != last.sha256:
        raise StoreError(
            f"{last.path} is gone or was changed since it was in service; put the file of SHA-256 {last.sha256} back there"
        )
    return _take(store, last.path, last.sha256, last.gate, last.number, by, after=taken[-1].number)


def active_model(store: Store) -> ModelVersion | None:
    """The model in service; None before the first."""
    with store.reading() as connection:
        taken = _in_force(_rows(connection))
    return taken[-1] if taken else None


def require_unchanged(model: ModelVersion) -> None:
    """Raise :class:`StoreError` unless the file is the one that was taken into service."""
    if not model.path.is_file() or sha256(model.path) != model.sha256:
        raise StoreError(f"{model.path} is gone or was changed since it was taken into service; see: llmft models list")


def list_models(store: Store) -> list[ModelVersion]:
    """Every change of model, the oldest first."""
    with store.reading() as connection:
        return _rows(connection)


def _in_force(rows: list[ModelVersion]) -> list[ModelVersion]:
    """What would be returned to, step by step; the last is in service."""
    taken: list[ModelVersion] = []
    for row in rows:
        if row.back_to is None:
            taken.append(row)
        else:
            taken = [earlier for earlier in taken if earlier.number <= row.back_to]
    return taken


def _take(
    store: Store, path: Path, digest: str, gate: str, back_to: int | None, by: str, after: int | None = None
) -> ModelVersion:
    with store.writing() as connection:
        lock(connection)
        if after is not None and _in_force(_rows(connection))[-1].number != after:
            raise ConflictError("somebody changed the model a moment ago; look with llmft models list, then try again")
        append(connection, "model", {"model": digest, "gate": gate, "back_to": back_to, "by": by})
        row = {"path": str(path), "sha256": digest, "gate": gate, "back_to": back_to, "created": now()}
        connection.execute(insert(models).values(**row))
        return _rows(connection)[-1]


def _rows(connection: Connection) -> list[ModelVersion]:
    return [
        ModelVersion(row.number, Path(row.path), row.sha256, row.gate, row.back_to, row.created)
        for row in connection.execute(select(models).order_by(models.c.number))
    ]


def _gate_fault(path: Path, gate_dir: Path | None) -> str | None:
    """Why this file has not passed the gate; None when it has."""
    judged = judgement_of(path, [gate_dir] if gate_dir else [])
    if judged is None:
        return f"{path} was not judged by the gate, or is not the very file that was"
    return None if judged.passed else f"{path} failed its gate ({'; '.join(judged.short)})"
