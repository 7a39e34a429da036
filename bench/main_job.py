"""Times the main job, stage by stage, and keeps the figures with the machine that they were measured on.

    .venv/bin/python bench/main_job.py                    # the demo: prepare, sft, export, verify, evaluate, chat
    .venv/bin/python bench/main_job.py recipes/demo-gptj.yaml

Writes bench/results/main-job-<recipe>.json: wall seconds and peak resident memory (MB) of each stage.
"""

from __future__ import annotations

import json
import os
import platform
import subprocess
import sys
import time
from datetime import UTC, datetime
from importlib import metadata
from pathlib import Path

LLMFT = str(Path(sys.executable).with_name("llmft"))
PACKAGES = ("torch", "transformers", "trl", "peft", "bitsandbytes", "llama-cpp-python", "gguf", "gpt4all")
HELP_RUNS = 5  # the median is kept


def measure(*arguments: str) -> dict[str, float | int]:
    """Run one verb; its exit code, wall seconds and peak memory."""
    started = time.perf_counter()
    process = subprocess.Popen([LLMFT, *arguments], stdin=subprocess.DEVNULL)
    _, status, usage = os.wait4(process.pid, 0)
    seconds = time.perf_counter() - started
    return {"exit": os.waitstatus_to_exitcode(status), "seconds": round(seconds, 2), "peak_mb": round(usage.ru_maxrss / 1024)}


def stages(recipe: str) -> dict[str, tuple[str, ...]]:
    """The verbs of the main job, in order."""
    name = Path(recipe).stem
    return {
        "synthesize": ("synthesize", "--count", "2000", "--seed", "11", "--output", "data/prepared/calls.jsonl"),
        "prepare": ("prepare", "data/prepared/calls.jsonl", "--output", "data/prepared/demo"),
        "sft": ("sft", recipe, "--force"),
        "export": ("export", recipe, "--force"),
        "verify": ("verify", recipe),
        "evaluate": ("evaluate", recipe),
        "chat --once": ("chat", f"export/{name}/{name}-Q4_0.gguf", "--once", "Bonjour, j'ai mal à la poitrine"),
    }


def machine() -> dict[str, object]:
    """What the figures depend on."""
    lines = Path("/proc/cpuinfo").read_text().splitlines()
    cpu = next((line.split(":")[1].strip() for line in lines if "model name" in line), "")
    return {
        "cpu": cpu,
        "cores": os.cpu_count(),
        "python": platform.python_version(),
        "versions": {package: metadata.version(package) for package in PACKAGES},
        "load_before": [round(load, 2) for load in os.getloadavg()],
        "date": datetime.now(UTC).date().isoformat(),
    }


def main() -> None:
    """Measure everything and write the result."""
    recipe = sys.argv[1] if len(sys.argv) > 1 else "recipes/demo-llama.yaml"
    result: dict[str, object] = {"machine": machine()}
    helps = sorted(float(measure("--help")["seconds"]) for _ in range(HELP_RUNS))
    result["--help median seconds"] = helps[HELP_RUNS // 2]
    measured = {stage: measure(*arguments) for stage, arguments in stages(recipe).items()}
    result["stages"] = measured
    result["total seconds"] = round(sum(float(stage["seconds"]) for stage in measured.values()), 1)
    path = Path("bench/results") / f"main-job-{Path(recipe).stem}.json"
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(result, indent=2) + "\n")
    print(json.dumps(result, indent=2))


if __name__ == "__main__":
    main()
