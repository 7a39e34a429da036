"""Measures how fast and in how much memory calls are prepared, and how both grow with their number.

    .venv/bin/python bench/prepare.py 10000 100000 [1000000]     # each size: one core without near-duplicates, with, all cores

Writes bench/results/prepare.json after each run; started again, it goes on where it was stopped, unless the code, the
machine or a version is another. A million calls need 10 GB of disk beside the current folder's, and hours on few cores.

The calls are synthetic, 12 turns or more each, as a call centre's export has them: chat JSON without language, names,
numbers and addresses of invented people in their words and whom they belong to in the roster, every second call
without label. They are made by all cores, 1000 at a time, so that a million need no memory.
"""

from __future__ import annotations

import dataclasses
import hashlib
import json
import os
import platform
import random
import shutil
import subprocess
import sys
import threading
import time
from datetime import UTC, datetime
from importlib import metadata
from multiprocessing import Pool
from pathlib import Path

import llmft
from llmft.prepare.synthetic.plant import plant
from llmft.prepare.synthetic.synthesize import synthesize

LLMFT = str(Path(sys.executable).with_name("llmft"))
PACKAGES = ("duckdb", "numpy", "phonenumbers", "pydantic", "pydantic-core", "python-stdnum", "scipy", "xxhash")
RESULT = Path("bench/results/prepare.json")
ROOM = Path("data/prepared/.bench")
SHARD = 1000  # calls made at once
LEAST_TURNS = 12  # of a call
FORMS = {  # name ─▶ arguments
    "one core, exact duplicates alone": ("--workers", "1", "--no-near-duplicates"),
    "one core": ("--workers", "1"),
    "all cores": (),
}


def shard(number: int) -> str:
    """``SHARD`` calls as chat JSON, one a line."""
    lines: list[str] = []
    calls = (call for call in synthesize(4 * SHARD, number) if len(call.turns) >= LEAST_TURNS)
    for call in calls:
        if len(lines) == SHARD:
            break
        known = plant(call, random.Random(call.id))
        roles = {"patient": "user", "operator": "assistant"}
        texts = [text.partition("\n```json")[0] for text in known.texts]
        turns = [{"role": roles[turn.speaker], "content": text} for turn, text in zip(call.turns, texts, strict=True)]
        row = {"id": call.id, "subject": f"patient {call.id}", "messages": turns}
        row["roster"] = {name: value for name, value in dataclasses.asdict(known.roster).items() if value}
        if len(lines) % 2 and call.labels:
            row["labels"] = call.labels.model_dump(include={"urgency", "specialty"})
        lines.append(json.dumps(row, ensure_ascii=False) + "\n")
    assert len(lines) == SHARD, "too many short calls"
    return "".join(lines)


def make_calls(count: int) -> Path:
    """A file of ``count`` calls, rounded up to whole thousands."""
    path = ROOM / f"calls-{count}.jsonl"
    if path.exists():
        return path
    partial = path.with_suffix(".partial")
    with partial.open("w", encoding="utf-8") as file, Pool(len(os.sched_getaffinity(0))) as pool:
        for text in pool.imap(shard, range(-(-count // SHARD))):
            file.write(text)
    partial.replace(path)
    return path


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


def measure(source: Path, options: tuple[str, ...]) -> dict[str, object]:
    """Prepare ``source`` once."""
    output, peak, ended = ROOM / "set", 0.0, threading.Event()
    shutil.rmtree(output, ignore_errors=True)
    load, started = round(os.getloadavg()[0], 2), time.perf_counter()
    command = [LLMFT, "prepare", str(source), "--output", str(output), *options]
    environment = {**os.environ, "LLMFT_VAULT": str(ROOM / "vault")}
    process = subprocess.Popen(command, stdout=subprocess.DEVNULL, env=environment)

    def watch() -> None:
        nonlocal peak
        while not ended.wait(0.5):
            peak = max(peak, tree_memory_mb(process.pid))

    thread = threading.Thread(target=watch)
    thread.start()
    _, status, usage = os.wait4(process.pid, 0)
    seconds = time.perf_counter() - started
    ended.set()
    thread.join()
    if status:
        raise SystemExit(f"{' '.join(command)} ended with {os.waitstatus_to_exitcode(status)}")
    report = json.loads((output / "report.json").read_text("utf-8"))
    rows, cpu = report["rows_in"], usage.ru_utime + usage.ru_stime
    shutil.rmtree(output)
    return {
        "dialogues_a_second": round(rows / seconds),
        "cpu_ms_a_dialogue": round(cpu / rows * 1e3, 3),
        "seconds": round(seconds, 1),
        "peak_mb": round(peak),
        "turns_a_dialogue": round(sum(turns * n for turns, n in report["turns"]) / report["rows_out"], 1),
        **{name: report[name] for name in ("rows_in", "rows_out", "quarantined", "duplicates", "refused")},
        "load_before": load,
        "date": datetime.now(UTC).date().isoformat(),
    }


def conditions() -> dict[str, object]:
    """What the figures depend on: the machine, the versions, the code."""
    lines = Path("/proc/cpuinfo").read_text().splitlines()
    code = hashlib.sha256()
    for path in sorted(Path(llmft.__file__).parent.rglob("*")):
        if path.suffix in (".py", ".yaml"):
            code.update(path.read_bytes())
    return {
        "cpu": next((line.split(":")[1].strip() for line in lines if "model name" in line), ""),
        "cores": len(os.sched_getaffinity(0)),
        "memory_gb": round(os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / 1e9, 1),
        "python": platform.python_version(),
        "versions": {package: metadata.version(package) for package in PACKAGES},
        "code_sha256": code.hexdigest(),
    }


def main() -> None:
    """Measure what is not measured yet."""
    counts = [int(argument) for argument in sys.argv[1:]] or [10_000, 100_000]
    here: dict[str, object] = conditions()
    try:
        result = json.loads(RESULT.read_text("utf-8"))
    except (OSError, ValueError):
        result = {}
    if result.get("conditions") != here:
        result = {"conditions": here, "dialogues": {}}
    ROOM.mkdir(parents=True, exist_ok=True)
    for count in sorted(counts):
        figures = result["dialogues"].setdefault(str(count), {})
        for name, options in FORMS.items():
            if name in figures:
                continue
            figures[name] = measure(make_calls(count), options)
            RESULT.write_text(json.dumps(result, indent=2) + "\n", "utf-8")
            print(count, name, json.dumps(figures[name]), flush=True)
        (ROOM / f"calls-{count}.jsonl").unlink(missing_ok=True)
    shutil.rmtree(ROOM, ignore_errors=True)


if __name__ == "__main__":
    main()
