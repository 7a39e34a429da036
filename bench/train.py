"""Training speed: the same rows, the same real tokens, each candidate in a process of its own, one after the other.

    python bench/train.py --device cpu --base data/base/llama            the demonstration, against plain TRL
    python bench/train.py --device cuda --shape llama-3.1-8b             random weights of the real shape
    python bench/train.py --device cuda --shape gptj-6b tinyllama        dialogues of 200 to 1,500 tokens

Candidates: ``llmft`` (NF4), ``llmft-bf16``, ``trl`` (SFTConfig's defaults on messages, NF4), ``trl-bf16``, and ``unsloth``, which
needs older libraries than ours: ``--unsloth-python PATH`` names the Python of an environment of its own.
"""

from __future__ import annotations

import argparse
import itertools
import json
import os
import platform
import resource
import statistics
import subprocess
import sys
import tempfile
import time
from datetime import UTC, datetime
from importlib import metadata
from pathlib import Path
from typing import Any

ROOT = Path(__file__).parent.parent
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
WARM_STEPS = 2  # not timed
CALLS_JOINED = (1, 3, 1, 2, 5, 2, 1, 4)  # of about 300 tokens, for rows of 200 to 1,500 where a real shape is measured


def main() -> int:
    """Run every candidate and write what it reached."""
    arguments = parse()
    if arguments.candidate:
        print(json.dumps(measure(arguments)))
        return 0
    results = {shape: compare(arguments, shape) for shape in arguments.shape or ["demo"]}
    facts = {
        "created": datetime.now(UTC).isoformat(timespec="seconds"),
        "machine": {
            "processor": platform.processor() or platform.machine(),
            "cores": os.cpu_count(),
            "device": arguments.device,
            "load": os.getloadavg()[0],
        },
        "versions": {name: metadata.version(name) for name in PACKAGES if installed(name)},
        "settings": {name: getattr(arguments, name) for name in ("steps", "batch", "rank", "threads", "seed")},
        "not_measured": [] if arguments.unsloth_python else ["unsloth: no environment of its own was given"],
        "results": results,
    }
    path = arguments.output or ROOT / f"bench/results/train-{arguments.device}.json"
    path.write_text(json.dumps(facts, indent=2) + "\n")
    print(f"written: {path}")
    return 0


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


def installed(package: str) -> bool:
    try:
        metadata.version(package)
    except metadata.PackageNotFoundError:
        return False
    return True


def compare(arguments: argparse.Namespace, shape: str) -> dict[str, Any]:
    """All candidates on one base, each in a process of its own."""
    results: dict[str, Any] = {}
    with tempfile.TemporaryDirectory() as folder:
        base = arguments.base or random_base(shape, Path(folder) / "base")
        rows = write_rows(arguments, base, Path(folder))
        for candidate in arguments.candidates:
            python = arguments.unsloth_python if candidate == "unsloth" else sys.executable
            if python is None:
                continue
            command = [str(python), __file__, "--candidate", candidate, "--folder", folder, "--base", str(base)]
            for name in ("device", "steps", "batch", "rank", "threads", "seed"):
                command += [f"--{name}", str(getattr(arguments, name))]
            done = subprocess.run(command, capture_output=True, text=True, check=False)
            results[candidate] = (
                json.loads(done.stdout.splitlines()[-1]) if done.returncode == 0 else {"error": done.stderr[-600:]}
            )
            print(f"{shape:14} {candidate:12} {json.dumps(results[candidate])}", flush=True)
    for ours, theirs in (("llmft", "trl"), ("llmft-bf16", "trl-bf16")):
        for speed in ("tokens_s", "tokens_cpu_s"):  # the clock's, and on a busy machine the processor's
            pair = [results.get(name, {}).get(speed) for name in (ours, theirs)]
            if all(pair):
                results[f"{ours} over {theirs}, {speed}"] = round(pair[0] / pair[1], 2)
    return {"rows": rows, **results}


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
    return folder


def write_rows(arguments: argparse.Namespace, base: Path, folder: Path) -> dict[str, float]:
    """The rows in both forms: a prepared set for us, messages for TRL. Returns what they hold."""
    from transformers import AutoTokenizer

    from llmft.dialogue import read_dialogues, write_dialogues
    from llmft.prompt import encode, to_messages

    count = (arguments.steps + WARM_STEPS) * arguments.batch
    calls = itertools.cycle(read_dialogues(arguments.data / "train.jsonl"))
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


def long_call(calls: list[Any], name: str) -> Any:
    """Calls one after the other, as one that is as long as all of them."""
    turns = tuple(turn for call in calls for turn in call.turns)
    return calls[0].model_copy(update={"id": name, "turns": turns})


def measure(arguments: argparse.Namespace) -> dict[str, Any]:
    """Train one candidate and time its steps; runs in a process of its own."""
    from llmft.privacy import keep_private

    keep_private()
    import torch

    if arguments.threads:
        torch.set_num_threads(arguments.threads)
    clock = Clock()
    makers = {"llmft": our_trainer, "trl": trl_trainer, "unsloth": unsloth_trainer}
    trainer = makers[arguments.candidate.removesuffix("-bf16")](arguments)
    trainer.add_callback(clock.callback())
    clock.count_tokens(trainer)
    trainer.train()
    return clock.result(trainer, arguments)


def our_trainer(arguments: argparse.Namespace) -> Any:
    """The trainer that ``llmft sft`` makes."""
    from llmft.recipe import load_recipe
    from llmft.train import sft
    from llmft.train.model import load_tokenizer
    from llmft.train.rows import encode_rows, read_split

    folder, quantization = arguments.folder, "none" if arguments.candidate.endswith("bf16") else "nf4"
    family = "gptj" if "GPTJ" in (arguments.base / "config.json").read_text() else "llama3"
    recipe_path = folder / "recipe.yaml"
    train = {
        "quantization": quantization, "packing": arguments.device == "cuda", "batch_dialogues": arguments.batch,
        "max_tokens": 4096, "seed": arguments.seed, "validate_every": 10**6, "save_every": 10**6, "threads": arguments.threads,
        "learning_rate": 2e-4,
    }  # fmt: skip
    recipe = {
        "name": arguments.candidate, "base": str(arguments.base), "template": family, "runs": str(folder / "runs"),
        "data": {"folder": str(folder / "prepared")}, "lora": {"rank": arguments.rank, "alpha": 2 * arguments.rank},
        "train": train,
    }  # fmt: skip
    recipe_path.write_text(json.dumps(recipe))
    loaded = load_recipe(recipe_path)
    tokenizer = load_tokenizer(loaded)
    splits = {split: encode_rows(read_split(loaded, split), tokenizer, loaded) for split in ("train", "validation")}
    sft.set_threads_and_seed(loaded)
    return sft._trainer(loaded, tokenizer, splits, sft._order(loaded, splits["train"]))


def trl_trainer(arguments: argparse.Namespace) -> Any:
    """TRL as its documentation has it: messages, SFTConfig's defaults, LoRA on all linear layers, 4 bit or bfloat16."""
    import torch
    from datasets import load_dataset
    from peft import LoraConfig
    from transformers import AutoModelForCausalLM, AutoTokenizer, BitsAndBytesConfig
    from trl import SFTConfig, SFTTrainer

    four_bits = BitsAndBytesConfig(
        load_in_4bit=True, bnb_4bit_quant_type="nf4", bnb_4bit_use_double_quant=True, bnb_4bit_compute_dtype=torch.bfloat16
    )
    model = AutoModelForCausalLM.from_pretrained(
        arguments.base,
        dtype=torch.bfloat16,
        device_map={"": arguments.device},
        quantization_config=None if arguments.candidate.endswith("bf16") else four_bits,
    )
    config = SFTConfig(
        output_dir=str(arguments.folder / arguments.candidate),
        per_device_train_batch_size=arguments.batch,
        learning_rate=2e-4,
        seed=arguments.seed,
        use_cpu=arguments.device == "cpu",
        report_to=[],
        save_strategy="no",
        logging_steps=1,
        num_train_epochs=1,
        max_length=4096,  # not the default of 1,024, which would cut rows that we train whole
    )
    return SFTTrainer(
        model=model,
        args=config,
        train_dataset=load_dataset("json", data_files=str(arguments.folder / "messages.jsonl"), split="train"),
        processing_class=AutoTokenizer.from_pretrained(arguments.base),
        peft_config=LoraConfig(
            r=arguments.rank, lora_alpha=2 * arguments.rank, target_modules="all-linear", task_type="CAUSAL_LM"
        ),
    )


def unsloth_trainer(arguments: argparse.Namespace) -> Any:
    """Unsloth as its notebooks have it: 4 bit, its own checkpointing, all linear layers, the chats as text."""
    from unsloth import FastLanguageModel  # isort: skip  # it patches what is imported after it
    from datasets import load_dataset
    from trl import SFTConfig, SFTTrainer

    model, tokenizer = FastLanguageModel.from_pretrained(str(arguments.base), max_seq_length=4096, load_in_4bit=True)
    model = FastLanguageModel.get_peft_model(
        model,
        r=arguments.rank,
        lora_alpha=2 * arguments.rank,
        lora_dropout=0,
        target_modules=["q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj"],
        use_gradient_checkpointing="unsloth",
        random_state=arguments.seed,
    )
    rows = load_dataset("json", data_files=str(arguments.folder / "messages.jsonl"), split="train")
    rows = rows.map(lambda row: {"text": tokenizer.apply_chat_template(row["messages"], tokenize=False)})
    config = SFTConfig(
        output_dir=str(arguments.folder / "unsloth"),
        per_device_train_batch_size=arguments.batch,
        learning_rate=2e-4,
        seed=arguments.seed,
        report_to=[],
        save_strategy="no",
        logging_steps=1,
        num_train_epochs=1,
        dataset_text_field="text",
    )
    return SFTTrainer(model=model, args=config, train_dataset=rows, processing_class=tokenizer)


class Clock:
    """Wall and CPU time of each step, and the real tokens that its batches hold."""

    def __init__(self) -> None:
        self.steps: list[tuple[float, float, int]] = []  # wall seconds, CPU seconds, real tokens
        self.tokens = 0
        self.squares = 0
        self.peak = 0

    def callback(self) -> Any:
        from transformers import TrainerCallback

        clock = self

        class Steps(TrainerCallback):
            def on_step_begin(self, args: Any, state: Any, control: Any, **_: Any) -> None:
                clock.began = (synchronised(), time.process_time(), clock.tokens)

            def on_step_end(self, args: Any, state: Any, control: Any, **_: Any) -> None:
                wall, cpu, tokens = clock.began
                clock.steps.append((synchronised() - wall, time.process_time() - cpu, clock.tokens - tokens))

        return Steps()

    def count_tokens(self, trainer: Any) -> None:
        """Count what is no padding, as each batch is computed."""
        import torch

        original = trainer.training_step

        def counted(model: Any, inputs: Any, *others: Any, **named: Any) -> Any:
            mask, positions = inputs.get("attention_mask"), inputs.get("position_ids")
            if mask is not None:
                lengths = mask.sum(1)
            else:  # laid end to end: the positions start anew with each row
                begins = (positions.flatten() == 0).nonzero().flatten()
                lengths = torch.cat([begins, begins.new_tensor([positions.numel()])]).diff()
            self.tokens += int(lengths.sum())
            self.squares += int((lengths.long() ** 2).sum())
            return original(model, inputs, *others, **named)

        trainer.training_step = counted

    def result(self, trainer: Any, arguments: argparse.Namespace) -> dict[str, Any]:
        """Speed over all timed steps, memory, and the course, without which a speed means nothing."""
        import torch

        timed = self.steps[WARM_STEPS:]
        wall, cpu, tokens = (sum(step[part] for step in timed) for part in range(3))
        log = [entry for entry in trainer.state.log_history if "loss" in entry]
        norms = [float(entry["grad_norm"]) for entry in log]
        assert all(norm > 0 for norm in norms), "a run without gradients is no result"
        gpu = arguments.device == "cuda"
        peak = torch.cuda.max_memory_allocated() if gpu else resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024
        flops = flops_a_token(trainer.model, self.squares / self.tokens) * tokens
        return {
            "tokens_s": round(tokens / wall, 1),
            "tokens_cpu_s": round(tokens / cpu, 1),
            "peak_gb": round(peak / 1e9, 2),
            "tokens": tokens,
            "steps": len(timed),
            "mfu": round(flops / wall / peak_flops(), 4) if gpu else None,
            "loss": {"first": float(log[0]["loss"]), "last": float(log[-1]["loss"])},
            "grad_norm": {"first": norms[0], "last": norms[-1], "median": statistics.median(norms)},
            "device": torch.cuda.get_device_name(0) if gpu else "cpu",
            "threads": torch.get_num_threads(),
        }


def synchronised() -> float:
    """The clock, once the GPU has done what it was told."""
    import torch

    if torch.cuda.is_available():
        torch.cuda.synchronize()
    return time.perf_counter()


def flops_a_token(model: Any, attended: float) -> float:
    """4 N for a frozen base (forward, and the gradient of the inputs), 6 for the adapter, causal attention at 3 times forward.

    N counts the linear layers and the head; ``attended`` is the mean length of the row that a token stands in.
    """
    shape = model.config.get_text_config()
    width = shape.hidden_size
    head_width = getattr(shape, "head_dim", None) or width // shape.num_attention_heads
    adapter = sum(parameter.numel() for parameter in model.parameters() if parameter.requires_grad)
    base = sum(
        module.in_features * module.out_features
        for name, module in model.named_modules()
        if type(module).__name__ in ("Linear", "Linear4bit") and ".lora_" not in name and "in_features" in vars(module)
    )
    attention = 3 * 2 * attended * shape.num_attention_heads * head_width * shape.num_hidden_layers
    return 4.0 * base + 6.0 * adapter + attention


def peak_flops() -> float:
    """The GPU's bfloat16 peak, from its data sheet."""
    from llmft.train.fitting.devices import device_here

    return device_here().flops


if __name__ == "__main__":
    sys.exit(main())
