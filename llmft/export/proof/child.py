"""One check in a process of its own: what crashes there becomes a sentence here."""

from __future__ import annotations

import hashlib
import json
import os
import signal
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import llmft


class ChildFailure(Exception):
    """A check gave no answer; the message says why, in one sentence."""


@dataclass(frozen=True)
class Child:
    """Where checks find their input and leave their result, and how long each may take."""

    work_dir: Path
    gguf_path: Path
    threads: int
    time_limit_s: float

    def run(self, check: str, gguf_path: Path | None = None) -> Any:
        """Run one check of :mod:`llmft.export.proof.runtimes` and return what it found; ChildFailure without a result.

        What was found of the same file for the same questions is not computed again.
        """
        path = gguf_path or self.gguf_path
        result_path = self._result_path(check, path)
        if result_path.is_file():
            return json.loads(result_path.read_text(encoding="utf-8"))
        command = [sys.executable, "-m", "llmft.export.proof.runtimes", check, *map(str, (self.work_dir, path, result_path))]
        try:
            done = subprocess.run(
                command,
                env=self._environment(),
                stdin=subprocess.DEVNULL,
                stdout=subprocess.DEVNULL,
                stderr=subprocess.PIPE,
                timeout=self.time_limit_s,
                check=False,
            )
        except subprocess.TimeoutExpired as error:
            raise ChildFailure(f"{check} gave no answer within {self.time_limit_s:g} seconds") from error
        if done.returncode != 0 or not result_path.is_file():
            last_words = _last_words(done.stderr.decode(errors="replace"))
            raise ChildFailure(f"{check} {_how_it_ended(done.returncode)}: {last_words}")
        return json.loads(result_path.read_text(encoding="utf-8"))

    def _result_path(self, check: str, gguf_path: Path) -> Path:
        file = gguf_path.stat()
        questions = (self.work_dir / "job.json").read_bytes() + repr(
            (check, str(gguf_path), file.st_mtime_ns, file.st_size)
        ).encode()
        return self.work_dir / f"{check}-{hashlib.sha256(questions).hexdigest()[:16]}.json"

    def _environment(self) -> dict[str, str]:
        """No network, as many threads as allowed, and this llmft rather than another."""
        root = str(Path(llmft.__file__).parents[1])
        paths = os.pathsep.join(filter(None, (root, os.environ.get("PYTHONPATH"))))
        offline = {"HF_HUB_OFFLINE": "1", "TRANSFORMERS_OFFLINE": "1", "HF_HUB_DISABLE_TELEMETRY": "1"}
        return {**os.environ, **offline, "PYTHONPATH": paths, "OMP_NUM_THREADS": str(self.threads)}


def _how_it_ended(code: int) -> str:
    if code >= 0:
        return "failed"
    try:
        return f"was ended by {signal.Signals(-code).name}"
    except ValueError:
        return f"was ended by signal {-code}"


def _last_words(stderr: str) -> str:
    """The last line that is not a frame of a debugger's stack, which llama.cpp prints after an assertion."""
    lines = [line.strip() for line in stderr.splitlines() if line.strip()]
    spoken = [line for line in lines if not line.startswith(("#", "[", "warning:", "This", "0x"))]
    return (spoken or lines or ["it said nothing"])[-1][:300]
