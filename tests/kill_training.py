"""Trains in forked children of one process that has loaded everything once, and kills them with signal 9.

python kill_training.py RECIPE FOLDER KILLS

FOLDER/whole is an undisturbed run; FOLDER/k0 and so on were killed after a random share of its work, and resumed.
Prints {"killed", "after_s", "work_s"}.
"""

from __future__ import annotations

import json
import os
import random
import resource
import shutil
import sys
from pathlib import Path

from llmft.privacy import keep_private

keep_private()

import peft  # noqa: E402, F401
import trl  # noqa: E402
from kill_loop import ended, kill_after  # noqa: E402
from torch.utils import tensorboard  # noqa: E402, F401
from transformers import AutoModelForCausalLM  # noqa: E402, F401

from llmft.recipe import load_recipe  # noqa: E402
from llmft.train.sft import sft  # noqa: E402

assert trl.SFTTrainer  # the lazy part of the import


def run(recipe_path: Path, folder: Path, *, resume: bool = False) -> int:
    """Fork a child that trains in ``folder``; returns its number."""
    child = os.fork()
    if child:
        return child
    code = 1
    try:
        folder.mkdir(exist_ok=True)
        os.chdir(folder)
        sys.stdout = sys.stderr
        sft(load_recipe(recipe_path), resume=resume)
        code = 0
    finally:
        os._exit(code)


def main(recipe_path: Path, folder: Path, kills: int) -> None:
    """Train undisturbed, then kill and resume ``kills`` times."""
    assert ended(run(recipe_path, folder / "whole")) == 0
    used = resource.getrusage(resource.RUSAGE_CHILDREN)
    work_s, killed, moments = used.ru_utime + used.ru_stime, 0, []
    for number in range(kills):
        home, latest = folder / f"k{number}", work_s
        moments.append(random.uniform(0, latest))
        while not kill_after(run(recipe_path, home), moments[-1]):  # it was done sooner than the first one
            shutil.rmtree(home)
            latest = moments.pop()
            moments.append(random.uniform(0, latest))
        killed += 1
        assert ended(run(recipe_path, home, resume=True)) == 0
    print(json.dumps({"killed": killed, "after_s": moments, "work_s": work_s}))


if __name__ == "__main__":
    main(Path(sys.argv[1]), Path(sys.argv[2]), int(sys.argv[3]))
