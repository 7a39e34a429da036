"""Measures how fast and in how much memory calls are prepared, and how both grow with their number.

    .venv/bin/python bench/prepare.py 10000                      # one core: about a minute
    .venv/bin/python bench/prepare.py 1000000 --kinds raw --forms "near-duplicates too"
    .venv/bin/python bench/prepare.py 100000 --kinds raw --workers 2
    .venv/bin/python bench/prepare.py                            # measures nothing: table and plot of what was measured

Each size is prepared from two kinds of input, each without and with the search for near-duplicates:

    labelled   our own records with their triage, as `llmft synthesize` writes them
    raw        a call centre's export as chat JSON: no language given, names, numbers and addresses of invented people in
               the words, whom they belong to in a roster that no two calls share, and every second call without label

A call has 12 turns or more. Calls are made by all cores, 1000 at a time, so that a million need no memory.

Writes bench/results/prepare.json after each run, in the end the table in docs/data.md and docs/images/prepare.png.
Started again, it goes on where it was stopped, also in the middle of the calls, and measures anew what was measured with
other code of the data stage, on another machine or with other versions. Until then such a figure stays, with a mark.
A million calls need 12 GB of disk in the current folder.
"""

from __future__ import annotations

import argparse
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
from collections.abc import Callable, Iterator
from datetime import UTC, datetime
from functools import partial
from importlib import metadata
from itertools import count as numbers
from itertools import islice
from multiprocessing import Pool
from pathlib import Path
from typing import Any

import llmft
from llmft.dialogue import Dialogue, as_line
from llmft.prepare.synthetic.plant import plant
from llmft.prepare.synthetic.synthesize import SPLIT_SHARE, Story, call, pick_family

LLMFT = str(Path(sys.executable).with_name("llmft"))
PACKAGES = ("duckdb", "numpy", "phonenumbers", "pydantic", "pydantic-core", "python-stdnum", "scipy", "xxhash")
CODE = ("prepare", "deidentify", "protocol", "knowledge", "dialogue.py", "remembered.py", "run.py")  # of llmft
RESULT, PLOT, PAGE = Path("bench/results/prepare.json"), Path("docs/images/prepare.png"), Path("docs/data.md")
TABLE = ("<!-- bench/prepare.py -->", "<!-- end -->")  # where it stands on the page
ROOM = Path("data/prepared/.bench")
SHARD = 1000  # calls made at once
LEAST_TURNS = 12  # of a call
FORMS = {"exact duplicates": ("--no-near-duplicates",), "near-duplicates too": ()}  # name ─▶ arguments
BARS = {"exact duplicates": 1000, "near-duplicates too": 400}  # dialogues a second on one core
BAR_MB = 1024
OLD = "†"  # marks a figure of other code


def labelled(call: Dialogue, number: int) -> str:
    """``call`` as a record of our own."""
    return as_line(call)


def raw(call: Dialogue, number: int) -> str:
    """``call`` as a call centre's export has it."""
    known = plant(call, random.Random(call.id))
    roles = {"patient": "user", "operator": "assistant"}
    texts = [text.partition("\n```json")[0] for text in known.texts]
    turns = [{"role": roles[turn.speaker], "content": text} for turn, text in zip(call.turns, texts, strict=True)]
    row: dict[str, Any] = {"id": call.id, "subject": f"patient {call.id}", "messages": turns}
    row["roster"] = {name: value for name, value in dataclasses.asdict(known.roster).items() if value}
    if number % 2 and call.labels:
        row["labels"] = call.labels.model_dump(include={"urgency", "specialty"})
    return json.dumps(row, ensure_ascii=False) + "\n"


KINDS: dict[str, Callable[[Dialogue, int], str]] = {"labelled": labelled, "raw": raw}


def long_calls(seed: int) -> Iterator[Dialogue]:
    """Calls of ``LEAST_TURNS`` turns or more, from a generator that leaves no question out."""
    rng = random.Random(seed)
    for number in numbers():
        split = rng.choices(list(SPLIT_SHARE), weights=list(SPLIT_SHARE.values()))[0]
        story = Story(rng, pick_family(rng, split), rng.choice(("fr", "fr", "en")), split)
        told = call(story, f"syn-{seed}-{number:05d}")
        if len(told.turns) >= LEAST_TURNS:
            yield told


def shard(kind: str, number: int) -> str:
    """``SHARD`` calls of a kind, one a line."""
    return "".join(KINDS[kind](told, place) for place, told in enumerate(islice(long_calls(number), SHARD)))


def make_calls(kind: str, count: int) -> Path:
    """A file of ``count`` calls, made thousand by thousand: what an earlier run has made of it is kept."""
    path = ROOM / f"{kind}-{count}.jsonl"
    if path.exists():
        return path
    partial_path = path.with_suffix(".partial")
    done = whole_shards(partial_path)
    with partial_path.open("a", encoding="utf-8") as file, Pool(len(os.sched_getaffinity(0))) as pool:
        for number, text in enumerate(pool.imap(partial(shard, kind), range(done, -(-count // SHARD))), start=done):
            file.writelines(text.splitlines(keepends=True)[: count - number * SHARD])
            file.flush()
    partial_path.replace(path)
    return path


def whole_shards(path: Path) -> int:
    """How many whole thousands of calls ``path`` holds; what follows them is cut off."""
    if not path.exists():
        return 0
    lines = place = end = 0
    with path.open("rb+") as file:
        for line in file:
            if not line.endswith(b"\n"):
                break
            lines, place = lines + 1, place + len(line)
            end = place if lines % SHARD == 0 else end
        file.truncate(end)
    return lines // SHARD


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
    environment = {**os.environ, "LLMFT_VAULT": str(ROOM / "vault"), "OMP_NUM_THREADS": "1"}
    process = subprocess.Popen(command, stdout=subprocess.DEVNULL, env=environment)

    def watch() -> None:
        nonlocal peak
        while not ended.wait(0.5):
            peak = max(peak, tree_memory_mb(process.pid))

    thread = threading.Thread(target=watch)
    thread.start()
    _, status, usage = os.wait4(process.pid, 0)  # with its children's time
    process.returncode = os.waitstatus_to_exitcode(status)
    seconds = time.perf_counter() - started
    ended.set()
    thread.join()
    if status:
        raise SystemExit(f"{' '.join(command)} ended with {process.returncode}")
    report = json.loads((output / "report.json").read_text("utf-8"))
    rows, cpu = report["rows_in"], usage.ru_utime + usage.ru_stime
    shutil.rmtree(output)
    return {
        "dialogues_a_second": round(rows / seconds),
        "dialogues_a_cpu_second": round(rows / cpu),
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
    code, root = hashlib.sha256(), Path(llmft.__file__).parent
    for path in sorted(path for name in CODE for path in (root / name, *(root / name).rglob("*"))):
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


def measured() -> list[dict[str, Any]]:
    """The runs so far, each with its kind, form, size, workers and conditions."""
    try:
        return list(json.loads(RESULT.read_text("utf-8"))["runs"])
    except (OSError, ValueError, KeyError):
        return []


def is_same(run: dict[str, Any], wanted: dict[str, Any]) -> bool:
    """Whether ``run`` is of the size, kind, form and number of workers that ``wanted`` names."""
    return all(run[name] == wanted[name] for name in ("dialogues", "kind", "form", "workers"))


def keep(run: dict[str, Any]) -> None:
    """Write ``run`` in the place of an earlier one of the same size, kind, form and workers."""
    runs = [*(other for other in measured() if not is_same(other, run)), run]
    runs.sort(key=lambda one: (one["workers"], one["kind"], one["dialogues"], one["form"]))
    RESULT.parent.mkdir(parents=True, exist_ok=True)
    RESULT.write_text(json.dumps({"runs": runs}, indent=1) + "\n", "utf-8")


def table(here: dict[str, object]) -> str:
    """What was measured, as Markdown; a mark where it was under other conditions than ``here``."""
    head = "| input | dialogues | duplicates searched | dialogues a second of one core | CPU ms | peak MB |"
    lines = [head, "|---|---:|---|---:|---:|---:|"]
    for run in measured():
        size = f"{run['dialogues']:,}".replace(",", "\u00a0") + ("" if run["conditions"] == here else OLD)
        many = f", {run['workers']} workers" if run["workers"] > 1 else ""
        figures = f"{run['dialogues_a_cpu_second']} | {run['cpu_ms_a_dialogue']:.2f} | {run['peak_mb']}"
        lines.append(f"| {run['kind']}{many} | {size} | {run['form']} | {figures} |")
    if any(run["conditions"] != here for run in measured()):
        lines += ["", f"{OLD} measured before the last change of the code, or on another machine."]
    return "\n".join(lines)


def publish(lines: str) -> None:
    """Put the table in its place on the page."""
    text = PAGE.read_text("utf-8")
    before, _, rest = text.partition(TABLE[0])
    _, end, after = rest.partition(TABLE[1])
    if not end:
        raise SystemExit(f"{PAGE} has no place for the table; put {TABLE[0]} and {TABLE[1]} where it belongs")
    PAGE.write_text(f"{before}{TABLE[0]}\n{lines}\n{end}{after}", "utf-8")


def draw() -> None:
    """Speed and memory against the number of calls, with their bars."""
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot

    figure, (speed, memory) = pyplot.subplots(1, 2, figsize=(10, 4), layout="constrained")
    colours = {"labelled": "tab:blue", "raw": "tab:orange"}
    styles = {"exact duplicates": "-", "near-duplicates too": "--"}
    runs = [run for run in measured() if run["workers"] == 1]
    for kind, form in sorted({(run["kind"], run["form"]) for run in runs}):
        mine = sorted((run for run in runs if (run["kind"], run["form"]) == (kind, form)), key=lambda run: run["dialogues"])
        sizes = [run["dialogues"] for run in mine]
        look = {"color": colours[kind], "linestyle": styles[form], "marker": "o", "label": f"{kind}, {form}"}
        speed.plot(sizes, [run["dialogues_a_cpu_second"] for run in mine], **look)
        memory.plot(sizes, [run["peak_mb"] for run in mine], **look)
    for form, bar in BARS.items():
        speed.axhline(bar, color="grey", linestyle=styles[form], linewidth=0.8)
    memory.axhline(BAR_MB, color="grey", linewidth=0.8)
    speed.set(xscale="log", xlabel="dialogues", title="dialogues a second of one core", ylim=(0, None))
    memory.set(xscale="log", xlabel="dialogues", title="peak memory, MB", ylim=(0, None))
    speed.legend(fontsize="small")
    PLOT.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(PLOT, dpi=110, metadata={"Software": None})


def main() -> None:
    """Measure what is not measured yet."""
    parser = argparse.ArgumentParser(description="how fast and in how much memory calls are prepared")
    parser.add_argument("sizes", nargs="*", type=int, help="numbers of dialogues, such as 10000 100000 1000000")
    parser.add_argument("--kinds", nargs="+", choices=sorted(KINDS), default=sorted(KINDS))
    parser.add_argument("--forms", nargs="+", choices=sorted(FORMS), default=list(FORMS), help="duplicates that are searched")
    parser.add_argument("--workers", type=int, default=1)
    chosen = parser.parse_args()
    here = conditions()
    if chosen.sizes:
        ROOM.mkdir(parents=True, exist_ok=True)
    for count in sorted(chosen.sizes):
        for kind in chosen.kinds:
            for form in chosen.forms:
                run = {"dialogues": count, "kind": kind, "form": form, "workers": chosen.workers, "conditions": here}
                if any(is_same(other, run) and other["conditions"] == here for other in measured()):
                    continue
                figures = measure(make_calls(kind, count), ("--workers", str(chosen.workers), *FORMS[form]))
                keep({**run, **figures})
                print(count, kind, form, json.dumps(figures), flush=True)
            (ROOM / f"{kind}-{count}.jsonl").unlink(missing_ok=True)
    if chosen.sizes:  # the room may be that of a run that goes on
        shutil.rmtree(ROOM, ignore_errors=True)
    draw()
    publish(table(here))
    print(table(here))


if __name__ == "__main__":
    main()
