"""Runs `prepare` in forked children of one process that has loaded everything once, and kills them with signal 9.

python kill_loop.py SOURCE FOLDER KILLS SEED [rename]

FOLDER/whole/out is an undisturbed run; FOLDER/k00/out and so on were killed, some of them twice, and run again.
Prints {"killed", "folders"}. With ``rename`` a child is killed instead of its n-th rename or removal of a file,
for n spread over all of them, otherwise at a random moment of its work.
"""

from __future__ import annotations

import json
import os
import random
import resource
import signal
import sys
import time
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path

from tiny_stage import options

from llmft.deidentify.stage import LAYERS
from llmft.dialogue import as_line
from llmft.prepare import parts
from llmft.prepare.record import CleanOptions, RecordLine, clean_row
from llmft.prepare.stage import prepare
from llmft.prepare.synthetic.score import planted_recall
from llmft.prepare.synthetic.synthesize import synthesize

parts.CHUNK_ROWS = 20
CHANGES = ("os.rename", "os.remove", "os.rmdir")


def run(source: Path, folder: Path, watch: Callable[[], None] = lambda: None) -> int:
    """Fork a child that prepares ``source``; returns its number."""
    child = os.fork()
    if child:
        return child
    code = 1
    try:
        watch()
        prepare([source], folder / "out", options(source.parent, near_duplicates=True))
        code = 0
    finally:
        os._exit(code)


def ended(child: int) -> int:
    """0, or minus the signal."""
    return os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])


def kill_at(place: int, told: Path) -> None:
    """Kill this process instead of its change number ``place`` to the folders; ``told`` gets their number."""
    count = 0

    def hook(event: str, _: object) -> None:
        nonlocal count
        if event in CHANGES:
            if count == place:
                os.kill(os.getpid(), signal.SIGKILL)
            count += 1
            if place < 0:
                told.write_text(str(count))

    sys.addaudithook(hook)


def warm_up() -> None:
    """Load what a run loads on its way, without starting a thread that a fork would lose."""
    import scipy.sparse.csgraph  # noqa: F401

    planted_recall(LAYERS)
    for call in synthesize(5, seed=1):
        clean_row(RecordLine("warm", 1, as_line(call)), CleanOptions())


def children_of(process: int) -> list[int]:
    """The processes that a process has started and not yet taken leave of."""
    try:
        return [int(child) for child in Path(f"/proc/{process}/task/{process}/children").read_text().split()]
    except (FileNotFoundError, ProcessLookupError):
        return []


def kill_after(child: int, cpu_s: float) -> bool:
    """Kill ``child`` once it and the processes of its own have worked ``cpu_s`` seconds; whether it came to that."""
    worked: dict[int, float] = {}
    while sum(worked.values()) < cpu_s:
        time.sleep(0.001)
        for process in (child, *children_of(child)):
            with suppress(OSError):  # it has ended, and what it had worked counts on
                worked[process] = time.clock_gettime((~process << 3) | 2)  # Linux's clock of another process's work
        if os.waitid(os.P_PID, child, os.WEXITED | os.WNOHANG | os.WNOWAIT):
            break
    os.kill(child, signal.SIGKILL)
    return ended(child) == -signal.SIGKILL


def main(source: Path, folder: Path, kills: int, seed: int, way: str = "time") -> None:
    """Kill and run again, until ``kills`` runs were really killed."""
    warm_up()
    rng, told = random.Random(seed), folder / "changes"
    assert ended(run(source, folder / "whole", lambda: kill_at(-1, told))) == 0
    used, changes = resource.getrusage(resource.RUSAGE_CHILDREN), int(told.read_text())
    work_s, killed, number = used.ru_utime + used.ru_stime, 0, 0
    while killed < kills and number < 3 * kills:
        home, place = folder / f"k{number:02}", number * changes // kills
        if way == "rename":
            killed += ended(run(source, home, lambda place=place: kill_at(place, told))) == -signal.SIGKILL
        for _ in range(0 if way == "rename" else 1 + number % 2):  # every second one is killed twice
            killed += kill_after(run(source, home), rng.uniform(0, work_s))
        assert ended(run(source, home)) == 0
        number += 1
    print(json.dumps({"killed": killed, "folders": number}))


if __name__ == "__main__":
    main(Path(sys.argv[1]), Path(sys.argv[2]), int(sys.argv[3]), int(sys.argv[4]), *sys.argv[5:])
