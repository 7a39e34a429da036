"""How far an export came, so that one that was killed goes on where it was.

A file is synced before the journal counts its tensors, so what the journal says survives a power cut too.
"""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Iterable, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path
from typing import BinaryIO

from llmft.run import PARTIAL

SYNC_BYTES = 256 << 20  # a kill loses at most this much work


def journal_path(path: Path) -> Path:
    """Beside the file that is being written."""
    return path.with_name(path.name + ".journal" + PARTIAL)


def identity(headers: Iterable[bytes], sources: Iterable[Path], choices: str) -> str:
    """What an unfinished file must have been made from to be continued: headers, sources by size and time, choices."""
    digest = hashlib.sha256(choices.encode())
    for header in headers:
        digest.update(header)
    for path in sources:
        stat = path.stat()
        digest.update(f"{path.resolve()} {stat.st_size} {stat.st_mtime_ns}\n".encode())
    return digest.hexdigest()


def finished_tensors(path: Path, wanted: str) -> int:
    """How many tensors lie whole in an unfinished export of the same ``wanted`` identity; 0 when there is none."""
    try:
        lines = path.read_text("utf-8").splitlines()
        if not lines or json.loads(lines[0]) != wanted:
            return 0
        counts = [json.loads(line) for line in lines[1:] if line.isdigit()]
    except (OSError, ValueError):
        return 0
    return int(counts[-1]) if counts else 0


@dataclass
class Journal:
    """Notes finished tensors from a thread of its own, because a sync takes longer than a tensor."""

    path: Path
    identity: str
    files: Sequence[BinaryIO]
    pool: ThreadPoolExecutor
    unsynced: int = 0
    running: Future[None] | None = field(default=None)

    def begin(self, finished: int) -> None:
        """Write what is known at the start."""
        self.path.write_text(f"{json.dumps(self.identity)}\n{finished}\n", "utf-8")

    def note(self, finished: int, written_bytes: int) -> None:
        """``finished`` tensors lie whole in the files, ``written_bytes`` since the last call."""
        self.unsynced += written_bytes
        if self.unsynced < SYNC_BYTES or (self.running is not None and not self.running.done()):
            return
        self.unsynced = 0
        for file in self.files:
            file.flush()
        self.running = self.pool.submit(self._record, finished)

    def _record(self, finished: int) -> None:
        for file in self.files:
            os.fsync(file.fileno())
        with self.path.open("a", encoding="utf-8") as journal:
            journal.write(f"{finished}\n")
