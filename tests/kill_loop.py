"""Runs `prepare` in forked children of one process that has loaded everything once, and kills them with signal 9.

python kill_loop.py SOURCE FOLDER KILLS SEED [rename]

FOLDER/whole/out is an undisturbed run; FOLDER/k00/out and so on were killed, some of them twice, and run again.
Each kill prints one line of JSON: {"folder", "killed", "at"}. With ``rename`` a child is killed instead of
its n-th rename or removal of a file, for n spread over all of them.
"""

from __future__ import annotations

import json
import os
import random
import signal
import sys
import time
from collections.abc import Callable
from pathlib import Path

from tiny_stage import options

from llmft.deidentify.stage import LAYERS
from llmft.prepare import parts
from llmft.prepare.recall import planted_recall
from llmft.prepare.stage import prepare

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


def main(source: Path, folder: Path, kills: int, seed: int, way: str = "time") -> None:
    """Kill and run again."""
    planted_recall(LAYERS)  # half a second that no child needs to spend
    rng, told = random.Random(seed), folder / "changes"
    began = time.monotonic()
    assert ended(run(source, folder / "whole", lambda: kill_at(-1, told))) == 0
    duration, changes = time.monotonic() - began, int(told.read_text())
    for number in range(kills):
        home = folder / f"k{number:02}"
        if way == "rename":
            place = number * changes // kills
            code = ended(run(source, home, lambda place=place: kill_at(place, told)))
            print(json.dumps({"folder": home.name, "killed": code == -signal.SIGKILL, "at": place}))
        for _ in range(0 if way == "rename" else 1 + number % 2):  # every second one is killed twice
            moment = rng.uniform(0, duration)
            child = run(source, home)
            time.sleep(moment)
            os.kill(child, signal.SIGKILL)
            print(json.dumps({"folder": home.name, "killed": ended(child) == -signal.SIGKILL, "at": moment / duration}))
        assert ended(run(source, home)) == 0


if __name__ == "__main__":
    main(Path(sys.argv[1]), Path(sys.argv[2]), int(sys.argv[3]), int(sys.argv[4]), *sys.argv[5:])
