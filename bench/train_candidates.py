"""What bench/train.py compares: a trainer of each tool on the same rows, and the clock that times its steps.

Runs in a process of its own, which may be the Python of another environment: only what a tool needs is imported.
"""

from __future__ import annotations

import argparse
import json
import resource
import statistics
import time
from typing import Any

WARM_STEPS = 2  # not timed


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
        if type(module).__name__ in ("Linear", "Linear4bit") and ".lora_" not in name and not hasattr(module, "base_layer")
    )
    attention = 3 * 2 * attended * shape.num_attention_heads * head_width * shape.num_hidden_layers
    return 4.0 * base + 6.0 * adapter + attention


def peak_flops() -> float:
    """The GPU's bfloat16 peak, from its data sheet."""
    from llmft.train.fitting.devices import device_here

    return device_here().flops
