"""The model that a GGUF must equal: base with its unmerged adapter in transformers, float32, in a child process."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

import numpy as np

ANSWER_TOKENS = 32  # greedy tokens after each dialogue: enough for one flaw to move the whole rest


def compute(job: dict[str, Any], work_dir: Path) -> None:
    """Write ``reference.json`` (token ids, greedy answers) and ``logits-<i>.npy`` (positions, vocabulary)."""
    import torch
    from transformers import AutoTokenizer

    torch.set_num_threads(job["threads"])
    tokenizer: Any = AutoTokenizer.from_pretrained(job["tokenizer"])
    model = _load(job)
    rows = []
    for number, dialogue in enumerate(job["dialogues"]):
        text = tokenizer.apply_chat_template(dialogue, tokenize=False, add_generation_prompt=True)
        ids = tokenizer(text, add_special_tokens=False)["input_ids"]
        answer, rivals = _greedy(model, ids, tokenizer.eos_token_id)
        with torch.inference_mode():
            logits = model(torch.tensor([ids + answer])).logits[0]  # (positions, vocabulary)
        np.save(work_dir / f"logits-{number}.npy", logits.float().numpy())
        rows.append({"ids": ids, "answer": answer, "rivals": rivals})
    facts = {"rows": rows, "eos_token": tokenizer.eos_token, "bos_token": tokenizer.bos_token}
    (work_dir / "reference.json").write_text(json.dumps(facts), encoding="utf-8")


def _load(job: dict[str, Any]) -> Any:
    import torch
    from transformers import AutoModelForCausalLM

    model: Any = AutoModelForCausalLM.from_pretrained(job["base"], dtype=torch.float32)
    if job["adapter"] is not None:
        sys.modules["bitsandbytes"] = None  # type: ignore[assignment]  # not needed, and a second of PEFT's import
        from peft import PeftModel

        model = PeftModel.from_pretrained(model, job["adapter"])
    return model.eval()


def _greedy(model: Any, ids: list[int], eos_id: int) -> tuple[list[int], list[tuple[int, float]]]:
    """The likeliest tokens one by one, and for each its nearest rival and how far behind that was in logits."""
    import torch

    answer: list[int] = []
    rivals: list[tuple[int, float]] = []
    inputs, cache = torch.tensor([ids]), None
    with torch.inference_mode():
        while len(answer) < ANSWER_TOKENS:
            output = model(inputs, past_key_values=cache, use_cache=True)
            best = output.logits[0, -1].topk(2)
            token, rival = best.indices.tolist()
            rivals.append((rival, (best.values[0] - best.values[1]).item()))
            if token == eos_id:
                break
            answer.append(token)
            inputs, cache = torch.tensor([[token]]), output.past_key_values
    return answer, rivals
