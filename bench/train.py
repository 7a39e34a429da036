"""Training speed: the same rows, the same real tokens, each candidate in a process of its own, one after the other.

    python bench/train.py --device cpu --base data/base/llama            the demonstration, against plain TRL
    python bench/train.py --device cuda --shape llama-3.1-8b             random weights of the real shape
    python bench/train.py --device cuda --shape gptj-6b tinyllama        dialogues of 200 to 1,500 tokens

Candidates: ``llmft`` (NF4), ``llmft-bf16``, ``trl`` (SFTConfig's defaults on messages, NF4), ``trl-bf16``, and ``unsloth``, which
needs older libraries than ours: ``--unsloth-python PATH`` names the Python of an environment of its own. Results go to
bench/results/train-<device>.json, and as a table to the .md beside it. Without a prepared set, calls are synthesised.
"""

from __future__ import annotations

import argparse
import itertools
import json
import os
import statistics
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from datetime import UTC, datetime
from importlib import metadata
from pathlib import Path
from typing import Any

from train_candidates import WARM_STEPS, measure

ROOT = Path(__file__).resolve().parents[1]
CANDIDATES = ("llmft", "llmft-bf16", "trl", "trl-bf16", "unsloth")
SHAPES = {  # name ─▶ configuration class and the numbers that differ from its defaults, and the template
    "llama-3.1-8b": (
        "LlamaConfig",
        {
            "hidden_size": 4096, "intermediate_size": 14336, "num_hidden_layers": 32, "num_attention_heads": 32,
            "num_key_value_heads": 8, "vocab_size": 128256, "max_position_embeddings": 8192,
        },
        "llama3",
    ),
    "tinyllama": (
        "LlamaConfig",
        {
            "hidden_size": 2048, "intermediate_size": 5632, "num_hidden_layers": 22, "num_attention_heads": 32,
            "num_key_value_heads": 4, "vocab_size": 32000, "max_position_embeddings": 2048,
        },
        "llama3",
    ),
    "gptj-6b": ("GPTJConfig", {"vocab_size": 50400}, "gptj"),
}  # fmt: skip
PACKAGES = ("llmft", "torch", "transformers", "trl", "peft", "bitsandbytes", "liger-kernel")
SPEEDS = {"tokens_s": "real tokens a second", "tokens_cpu_s": "a CPU second"}
SYNTHESISED = 400  # calls, where no prepared set is at hand
CALLS_JOINED = (1, 3, 1, 2, 5, 2, 1, 4)  # of about 300 tokens, for rows of 200 to 1,500 where a real shape is measured


def main() -> int:
    """Run every candidate and write what it reached."""
    arguments = parse()
    if arguments.candidate:
        print(json.dumps(measure(arguments)))
        return 0
    facts: dict[str, Any] = {
        "created": datetime.now(UTC).isoformat(timespec="seconds"),
        "machine": machine(arguments.device),
        "versions": {name: metadata.version(name) for name in PACKAGES if installed(name)},
        "settings": {name: getattr(arguments, name) for name in ("steps", "batch", "rank", "threads", "seed")},
        "not_measured": [] if arguments.unsloth_python else ["unsloth: no environment of its own was given"],
    }
    path = arguments.output or ROOT / f"bench/results/train-{arguments.device}.json"
    facts["results"] = earlier(path, facts)
    for shape in arguments.shape or ["demo"]:
        facts["results"][shape] = compare(arguments, shape)
        path.write_text(json.dumps(facts, indent=2) + "\n")  # after each one, for a lent machine may be called back
        path.with_suffix(".md").write_text(as_markdown(facts))
    print(f"written: {path} and {path.with_suffix('.md').name}")
    return int(any("error" in found for shape in facts["results"].values() for found in shape["candidates"].values()))


def earlier(path: Path, facts: dict[str, Any]) -> dict[str, Any]:
    """Results for other bases that were reached before, with the same versions, settings and device: they stay."""
    before = json.loads(path.read_text()) if path.is_file() else {}
    alike = all(before.get(name) == facts[name] for name in ("versions", "settings"))
    same_device = alike and before["machine"]["gpu"] == facts["machine"]["gpu"]
    results: dict[str, Any] = before["results"] if same_device else {}
    return results


def parse() -> argparse.Namespace:
    """The command line; the last two options are for the processes that this one starts."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--device", choices=("cpu", "cuda"), default="cpu")
    parser.add_argument("--base", type=Path, help="a base with weights (default: random ones of --shape)")
    parser.add_argument("--shape", nargs="*", choices=sorted(SHAPES), default=[], help="shapes to measure with random weights")
    parser.add_argument("--data", type=Path, default=ROOT / "data/prepared/demo", help="prepared set whose rows are trained on")
    parser.add_argument("--candidates", nargs="*", default=list(CANDIDATES), choices=CANDIDATES)
    parser.add_argument("--unsloth-python", type=Path, help="Python of an environment that has unsloth")
    parser.add_argument("--steps", type=int, default=30, help=f"timed steps, after {WARM_STEPS} that are not")
    parser.add_argument("--batch", type=int, default=8, help="dialogues a step, TRL's default")
    parser.add_argument("--rank", type=int, default=16)
    parser.add_argument("--threads", type=int, default=0)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--output", type=Path)
    parser.add_argument("--candidate", choices=CANDIDATES, help=argparse.SUPPRESS)
    parser.add_argument("--folder", type=Path, help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if not arguments.candidate and bool(arguments.base) == bool(arguments.shape):
        parser.error("give either --base or --shape")
    return arguments


def machine(device: str) -> dict[str, Any]:
    """Processor, cores, load and GPU."""
    import torch

    lines = Path("/proc/cpuinfo").read_text().splitlines()
    cpu = next((line.split(":")[1].strip() for line in lines if "model name" in line), "")
    gpu = torch.cuda.get_device_name(0) if device == "cuda" else None
    return {"cpu": cpu, "cores": os.cpu_count(), "gpu": gpu, "cuda": torch.version.cuda, "load": round(os.getloadavg()[0], 1)}


def installed(package: str) -> bool:
    try:
        metadata.version(package)
    except metadata.PackageNotFoundError:
        return False
    return True


def compare(arguments: argparse.Namespace, shape: str) -> dict[str, Any]:
    """All candidates on one base, each in a process of its own."""
    found: dict[str, Any] = {}
    with tempfile.TemporaryDirectory() as folder:
        base = arguments.base or random_base(shape, Path(folder) / "base")
        rows = write_rows(arguments, base, Path(folder))
        for candidate in arguments.candidates:
            python = arguments.unsloth_python if candidate == "unsloth" else sys.executable
            if python is not None:
                found[candidate] = run_candidate(arguments, candidate, str(python), base, folder)
                print(f"{shape:14} {candidate:12} {json.dumps(found[candidate])}", flush=True)
    return {"rows": rows, "candidates": found, "times_faster": ratios(found)}


def run_candidate(arguments: argparse.Namespace, candidate: str, python: str, base: Path, folder: str) -> dict[str, Any]:
    """What a process of its own measures; its last words where it fails."""
    command = [python, __file__, "--candidate", candidate, "--folder", folder, "--base", str(base)]
    for name in ("device", "steps", "batch", "rank", "threads", "seed"):
        command += [f"--{name}", str(getattr(arguments, name))]
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}  # for an environment in which llmft is not installed
    done = subprocess.run(command, capture_output=True, text=True, check=False, env=environment)
    if done.returncode == 0:
        result: dict[str, Any] = json.loads(done.stdout.splitlines()[-1])
        return result
    print(done.stderr, file=sys.stderr)
    return {"error": (done.stderr.strip().splitlines() or [f"exit status {done.returncode}"])[-1]}


def ratios(found: dict[str, Any]) -> dict[str, float]:
    """How many times as fast as TRL we are, by the clock and, on a busy machine fairer, by the processor's time."""
    pairs = [(ours, theirs, speed) for ours, theirs in (("llmft", "trl"), ("llmft-bf16", "trl-bf16")) for speed in SPEEDS]
    speeds = {pair: [found.get(name, {}).get(pair[2]) for name in pair[:2]] for pair in pairs}
    return {f"{a} over {b}, {speed}": round(x / y, 2) for (a, b, speed), (x, y) in speeds.items() if x and y}


def as_markdown(facts: dict[str, Any]) -> str:
    """The results as tables, one a base."""
    where = facts["machine"]["gpu"] or f"{facts['machine']['cpu']}, {facts['machine']['cores']} cores"
    versions = ", ".join(f"{name} {version}" for name, version in facts["versions"].items())
    lines = ["# Training speed", "", f"{where}; {facts['created']}; {versions}."]
    lines += [f"Not measured: {'; '.join(facts['not_measured'])}."] if facts["not_measured"] else []
    head = ["", *SPEEDS.values(), "peak GB", "MFU", "loss", "gradient norm, median"]
    for shape, result in facts["results"].items():
        rows = result["rows"]
        lines += ["", f"## {shape}: {facts['settings']['batch']} rows of {rows['mean_tokens']:.0f} tokens a step", ""]
        lines += ["| " + " | ".join(head) + " |", "|---" * len(head) + "|"]
        lines += [f"| {name} | {' | '.join(cells(found))} |" for name, found in result["candidates"].items()]
        lines += ["", *(f"- {name}: {times:.2f}" for name, times in result["times_faster"].items())]
    return "\n".join(lines) + "\n"


def cells(found: dict[str, Any]) -> list[str]:
    """One candidate's figures in the order of the table's head."""
    if "error" in found:
        return [f"failed: {found['error']}", *[""] * 5]
    mfu = "" if found["mfu"] is None else f"{found['mfu']:.1%}"
    loss = f"{found['loss']['first']:.3f} to {found['loss']['last']:.3f}"
    return [
        *(f"{found[speed]:,.0f}" for speed in SPEEDS),
        f"{found['peak_gb']:.2f}",
        mfu,
        loss,
        f"{found['grad_norm']['median']:.3f}",
    ]


def random_base(shape: str, folder: Path) -> Path:
    """A base of a real shape with random weights, and the demonstration's tokenizer; the ids are within every vocabulary."""
    import torch
    import transformers

    kind, numbers, template = SHAPES[shape]
    tokenizer = transformers.AutoTokenizer.from_pretrained(ROOT / "data/base" / ("gptj" if template == "gptj" else "llama"))
    config = getattr(transformers, kind)(**numbers, bos_token_id=tokenizer.bos_token_id, eos_token_id=tokenizer.eos_token_id)
    torch.manual_seed(1)
    with torch.device("cuda" if torch.cuda.is_available() else "cpu"):
        model = transformers.AutoModelForCausalLM.from_config(config, dtype=torch.bfloat16)
    model.save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    del model
    torch.cuda.empty_cache()  # the candidates need the room
    return folder


def write_rows(arguments: argparse.Namespace, base: Path, folder: Path) -> dict[str, float]:
    """The rows in both forms: a prepared set for us, messages for TRL. Returns what they hold."""
    from transformers import AutoTokenizer

    from llmft.dialogue import write_dialogues
    from llmft.prompt import encode, to_messages

    count = (arguments.steps + WARM_STEPS) * arguments.batch
    calls = read_calls(arguments.data)
    joined = itertools.cycle([1] if arguments.base else CALLS_JOINED)
    dialogues = [long_call(list(itertools.islice(calls, next(joined))), f"d{number}") for number in range(count)]
    system = "Assistant de triage d'un centre d'appels médical."
    tokenizer = AutoTokenizer.from_pretrained(base)
    lengths = [len(encode(dialogue, tokenizer, system).input_ids) for dialogue in dialogues]
    write_dialogues(folder / "prepared/train.jsonl", dialogues)
    write_dialogues(folder / "prepared/validation.jsonl", dialogues[:1])
    messages = [json.dumps({"messages": to_messages(dialogue, system)}) + "\n" for dialogue in dialogues]
    (folder / "messages.jsonl").write_text("".join(messages))
    return {"rows": count, "tokens": sum(lengths), "mean_tokens": statistics.fmean(lengths), "longest_tokens": max(lengths)}


def read_calls(folder: Path) -> Iterator[Any]:
    """Training calls without end: those of a prepared set, or where there is none synthetic ones."""
    from llmft.dialogue import read_dialogues
    from llmft.prepare.synthetic.synthesize import synthesize

    path = folder / "train.jsonl"
    known = (
        read_dialogues(path) if path.is_file() else [call for call in synthesize(SYNTHESISED, seed=1) if call.split == "train"]
    )
    return itertools.cycle(known)


def long_call(calls: list[Any], name: str) -> Any:
    """Calls one after the other, as one that is as long as all of them."""
    turns = tuple(turn for call in calls for turn in call.turns)
    return calls[0].model_copy(update={"id": name, "turns": turns})


if __name__ == "__main__":
    sys.exit(main())
