"""Measures how fast and in how much memory calls are prepared, and how both grow.

    .venv/bin/python bench/prepare.py 10000 100000 [1000000]     # one worker, then all cores

Writes bench/results/prepare.json: dialogues a second and peak memory (MB, workers included) of the whole
stage, with and without the search for near-duplicates. The calls are synthetic, about 11 turns each.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tempfile
import threading
import time
from pathlib import Path

from main_job import LLMFT, machine

FORMS = {  # name ─▶ arguments
    "one core, exact duplicates alone": ("--workers", "1", "--no-near-duplicates"),
    "one core": ("--workers", "1"),
    "all cores": (),
}


def tree_memory_mb(pid: int) -> float:
    """Proportional set size of a process and its children: shared pages count once."""
    total = 0.0
    for place in Path("/proc").glob("[0-9]*"):
        try:
            stat = (place / "stat").read_text().rsplit(") ", 1)[1].split()
            if place.name == str(pid) or stat[1] == str(pid):
                rollup = (place / "smaps_rollup").read_text()
                total += next(int(line.split()[1]) for line in rollup.splitlines() if line.startswith("Pss:")) / 1024
        except (OSError, IndexError, StopIteration):
            continue
    return total


def measure(source: Path, output: Path, options: tuple[str, ...]) -> dict[str, float]:
    peak = 0.0
    started = time.perf_counter()
    command = [LLMFT, "prepare", str(source), "--output", str(output), *options]
    process = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    watching = threading.Event()

    def watch() -> None:
        nonlocal peak
        while not watching.wait(0.25):
            peak = max(peak, tree_memory_mb(process.pid))

    thread = threading.Thread(target=watch)
    thread.start()
    _, status, usage = os.wait4(process.pid, 0)
    watching.set()
    thread.join()
    seconds = time.perf_counter() - started
    report = json.loads((output / "report.json").read_text())
    return {
        "exit": os.waitstatus_to_exitcode(status),
        "seconds": round(seconds, 1),
        "cpu_seconds": round(usage.ru_utime + usage.ru_stime, 1),
        "dialogues_a_second": round(report["rows_in"] / seconds),
        "rows_out": report["rows_out"],
        "peak_mb": round(peak),
    }


def main() -> None:
    counts = [int(argument) for argument in sys.argv[1:]] or [10_000, 100_000]
    results: dict[str, object] = {"machine": machine(), "sets": {}}
    path = Path("bench/results/prepare.json")
    with tempfile.TemporaryDirectory(dir=".") as folder:
        for count in counts:
            source = Path(folder) / f"calls-{count}.jsonl"
            subprocess.run([LLMFT, "synthesize", "--count", str(count), "--seed", "3", "--output", str(source)], check=True)
            figures = {name: measure(source, Path(folder) / "set", options) for name, options in FORMS.items()}
            results["sets"][str(count)] = figures  # type: ignore[index]
            path.write_text(json.dumps(results, indent=2) + "\n")
            print(count, json.dumps(figures, indent=2), flush=True)
            source.unlink()


if __name__ == "__main__":
    main()
