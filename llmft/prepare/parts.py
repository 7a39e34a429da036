"""Rows cleaned in chunks by many workers, kept as parts on disk: memory stays flat, and a kill costs one chunk.

.work/plan.json          what the parts were made of and how; another plan starts anew
.work/part-00000.jsonl   the good dialogues of a chunk, one a line
.work/part-00000.npy     their keys for duplicates and splits, one a row (``outcome.key_table``)
.work/part-00000.json    faults, counts and lineage, and the hashes of the other two; written last

Nothing is synced to the disk: a kill cannot harm a file that was written, and what a power cut harms the hashes tell.
"""

from __future__ import annotations

import gc
import json
import os
import shutil
import threading
import time
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import Executor, Future, ProcessPoolExecutor
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from io import BytesIO
from itertools import islice
from pathlib import Path
from typing import Any, TypeVar

import xxhash

from llmft.errors import DialogueError
from llmft.run import PARTIAL, disk_error, write_json

CHUNK_ROWS = 500
CONNECT_S = 10  # to reach a Dask scheduler
COLLECTED_CHUNKS = 8  # after so many the collector looks for cycles, at everything that is younger
AHEAD = 3  # chunks a worker that may wait, so that memory stays flat however fast the reader is
Row = TypeVar("Row")


@dataclass(frozen=True)
class Part:
    """What became of one chunk."""

    lines: tuple[str, ...]  # dialogues as JSONL
    keys: Any  # numpy structured array, one entry a line
    notes: dict[str, Any]  # JSON: faults, counts, lineage


class PartFolder:
    """The parts on disk."""

    def __init__(self, folder: Path) -> None:
        """``folder`` is made when the first part is written."""
        self.folder = folder

    def begin(self, plan: dict[str, Any]) -> None:
        """Keep the parts of an interrupted run of the same plan; drop those of any other."""
        path = self.folder / "plan.json"
        try:
            same = json.loads(path.read_text("utf-8")) == plan
        except (OSError, ValueError):
            same = False
        if not same:
            self.drop()
            write_json(path, plan)

    def has(self, number: int) -> bool:
        """Whether the part is whole."""
        try:
            expected = json.loads(self._path(number, "json").read_bytes())["hashes"]
            return all(_hash(self._path(number, suffix).read_bytes()) == known for suffix, known in expected.items())
        except (OSError, ValueError, KeyError):
            return False

    def write(self, number: int, part: Part) -> None:
        """Write a part; its notes come last and make it whole."""
        import numpy as np

        keys = BytesIO()
        np.save(keys, part.keys)
        pieces = {"jsonl": "".join(part.lines).encode(), "npy": keys.getvalue()}
        for suffix, piece in pieces.items():
            _write(self._path(number, suffix), piece)
        notes = {**part.notes, "hashes": {suffix: _hash(piece) for suffix, piece in pieces.items()}}
        _write(self._path(number, "json"), json.dumps(notes, ensure_ascii=False).encode())

    def lines(self, number: int) -> Iterator[str]:
        """The dialogues of a part."""
        with self._path(number, "jsonl").open(encoding="utf-8", newline="\n") as file:
            yield from file

    def keys(self, number: int) -> Any:
        """The keys of a part's dialogues."""
        import numpy as np

        return np.load(self._path(number, "npy"))

    def all_keys(self, parts: int) -> Any:
        """The keys of the dialogues of all parts, in memory once."""
        import numpy as np

        sizes = [len(np.load(self._path(number, "npy"), mmap_mode="r")) for number in range(parts)]
        whole = np.empty(sum(sizes), self.keys(0).dtype)
        ends = np.cumsum(sizes)
        for number, (size, end) in enumerate(zip(sizes, ends, strict=True)):
            whole[end - size : end] = self.keys(number)
        return whole

    def notes(self, number: int) -> dict[str, Any]:
        """Faults, counts and lineage of a part."""
        return dict(json.loads(self._path(number, "json").read_text("utf-8")))

    def drop(self) -> None:
        """Remove all parts, the plan first: killed in the middle, the next run must not trust what is left."""
        with suppress(NotADirectoryError):  # where nothing can be, nothing is left
            (self.folder / "plan.json").unlink(missing_ok=True)
        shutil.rmtree(self.folder, ignore_errors=True)

    def _path(self, number: int, suffix: str) -> Path:
        return self.folder / f"part-{number:05d}.{suffix}"


def make_parts(
    rows: Iterable[Row], clean: Callable[[Sequence[Row]], Part], folder: PartFolder, executor: Executor | None, workers: int
) -> int:
    """Clean ``rows`` chunk by chunk; returns the number of parts. Without an executor it happens here.

    Chunks are cut in the source's order, so any number of workers gives the same parts.
    """
    waiting: deque[tuple[int, Future[Part]]] = deque()
    number = 0
    for chunk in _chunks(rows):
        if folder.has(number):
            pass
        elif executor is None:
            folder.write(number, clean(chunk))
        else:
            waiting.append((number, executor.submit(clean, chunk)))
            if len(waiting) > AHEAD * workers:
                _finish(waiting, folder)
        number += 1
        if number % COLLECTED_CHUNKS == 0:
            gc.collect(1)  # the collector is off; what cycles a bad row left are young
    while waiting:
        _finish(waiting, folder)
    return number


@contextmanager
def without_collector() -> Iterator[None]:
    """Rows leave no cycles behind, and each search for some would look at the whole knowledge base: a tenth of the time."""
    was_on = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if was_on:
            gc.enable()


@contextmanager
def worker_pool(workers: int, cluster: str | None) -> Iterator[Executor | None]:
    """Processes on this machine, those of a Dask cluster at address ``cluster``, or none for one worker."""
    if cluster is not None:
        from distributed import Client

        try:
            scheduler = Client(cluster, timeout=CONNECT_S)
        except (OSError, ValueError) as error:
            wanted = "start one with: dask scheduler, give its address, or leave out --cluster"
            raise DialogueError(f"no Dask scheduler answers at {cluster}; {wanted}") from error
        with scheduler as client:
            yield client.get_executor(pure=False)
    elif workers > 1:
        with ProcessPoolExecutor(workers, initializer=_end_with, initargs=(os.getpid(),)) as pool:
            yield pool
    else:
        yield None


def _end_with(parent: int) -> None:
    """In a worker: end with the process that sends the chunks, which may be killed and say no goodbye."""

    def watch() -> None:
        while os.getppid() == parent:
            time.sleep(1)
        os._exit(1)

    threading.Thread(target=watch, daemon=True).start()


def _write(path: Path, content: bytes) -> None:
    partial = path.with_name(path.name + PARTIAL)
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        partial.write_bytes(content)
        partial.replace(path)
    except OSError as error:
        raise disk_error(path, error) from error


def _hash(content: bytes) -> str:
    return xxhash.xxh3_128_hexdigest(content)


def _finish(waiting: deque[tuple[int, Future[Part]]], folder: PartFolder) -> None:
    number, future = waiting.popleft()
    folder.write(number, future.result())


def _chunks(rows: Iterable[Row]) -> Iterator[list[Row]]:
    iterator = iter(rows)
    while chunk := list(islice(iterator, CHUNK_ROWS)):
        yield chunk
