"""The model that a GGUF must equal: base with its unmerged adapters in transformers, float32, in a child process."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

import numpy as np

from llmft.export.proof.mapped import is_larger_than_memory, wake_while_used

ANSWER_TOKENS = 32  # greedy tokens after each dialogue: enough for one flaw to move the whole rest
MAPPED_TOKENS, MAPPED_DIALOGUES = 4, 2  # of a model larger than memory, whose every token reads the whole file
WHOLE, MAPPED = "whole in memory", "mapped from its files, one layer at a time"


def read_reference(work_dir: Path) -> dict[str, Any]:
    """What :func:`compute` found, as the verifying process left it for the other checks."""
    facts: dict[str, Any] = json.loads((work_dir / "reference.json").read_text(encoding="utf-8"))
    return facts


def compute(job: dict[str, Any], work_dir: Path, _: Path) -> dict[str, Any]:
    """Texts, token ids, greedy answers and loss; writes ``logits-<i>.npy`` (positions, vocabulary)."""
    import torch
    from transformers import AutoTokenizer

    torch.set_num_threads(job["threads"])
    tokenizer: Any = AutoTokenizer.from_pretrained(job["tokenizer"])
    is_mapped = is_larger_than_memory(Path(job["base"])) if job["mapped"] is None else job["mapped"]
    model = _load(job, is_mapped)
    rows = []
    for number, dialogue in enumerate(job["dialogues"][: MAPPED_DIALOGUES if is_mapped else None]):
        text = tokenizer.apply_chat_template(dialogue, tokenize=False, add_generation_prompt=True)
        ids = _ids(tokenizer, text)
        answer, rivals = _greedy(model, ids, tokenizer.eos_token_id, MAPPED_TOKENS if is_mapped else ANSWER_TOKENS)
        logits = _logits(model, ids + answer)
        np.save(work_dir / f"logits-{number}.npy", logits.numpy())
        rows.append({"text": text, "ids": ids, "answer": answer, "rivals": rivals})
    calls = _calls(job["calls"][: MAPPED_DIALOGUES if is_mapped else None], tokenizer)
    return {
        "rows": rows,
        "lines": [_ids(tokenizer, job["line_start"] + line) for line in job["lines"]],
        "calls": calls,
        "loss": _loss(model, calls),
        "eos_token": tokenizer.eos_token,
        "bos_token": tokenizer.bos_token,
        "mode": MAPPED if is_mapped else WHOLE,
        "answer_tokens": MAPPED_TOKENS if is_mapped else ANSWER_TOKENS,
    }


def _load(job: dict[str, Any], is_mapped: bool) -> Any:
    import torch
    from transformers import AutoModelForCausalLM

    model: Any = AutoModelForCausalLM.from_pretrained(job["base"], dtype="auto" if is_mapped else torch.float32)
    if job["adapters"]:
        sys.modules["bitsandbytes"] = None  # type: ignore[assignment]  # not needed, and a second of PEFT's import
        from llmft.export.adapters.attached import attach

        model = attach(model, [Path(folder) for folder in job["adapters"]], job["shares"])
    if is_mapped:
        wake_while_used(model)
    return model.eval()


def _ids(tokenizer: Any, text: str) -> list[int]:
    ids: list[int] = tokenizer(text, add_special_tokens=False)["input_ids"]
    return ids


def _calls(dialogues: list[Any], tokenizer: Any) -> list[dict[str, list[int]]]:
    """Whole calls as training reads them: token ids, and the labels of the operator's words.

    None where the template closes no answer, as some that are published: what the operator's words are is then not known.
    """
    from llmft.errors import PromptError
    from llmft.prompt import encode_messages

    try:
        rows = [encode_messages(dialogue, tokenizer) for dialogue in dialogues]
    except PromptError:
        return []
    return [{"ids": ids, "labels": labels} for ids, labels in rows]


def _logits(model: Any, ids: list[int]) -> Any:
    """Of every position, as float32 (positions, vocabulary)."""
    import torch

    with torch.inference_mode():
        return model(torch.tensor([ids])).logits[0].float()


def _loss(model: Any, calls: list[dict[str, list[int]]]) -> float | None:
    """Mean loss a label in nats; None without calls."""
    import torch

    total, count = 0.0, 0
    for call in calls:
        labels = torch.tensor(call["labels"][1:])
        total += torch.nn.functional.cross_entropy(_logits(model, call["ids"])[:-1], labels, reduction="sum").item()
        count += int((labels >= 0).sum())
    return total / count if count else None


def _greedy(model: Any, ids: list[int], eos_id: int, limit: int) -> tuple[list[int], list[tuple[int, float]]]:
    """The likeliest tokens one by one, and for each its nearest rival and how far behind that was in logits."""
    import torch

    answer: list[int] = []
    rivals: list[tuple[int, float]] = []
    inputs, cache = torch.tensor([ids]), None
    with torch.inference_mode():
        while len(answer) < limit:
            output = model(inputs, past_key_values=cache, use_cache=True)
            best = output.logits[0, -1].topk(2)
            token, rival = best.indices.tolist()
            rivals.append((rival, (best.values[0] - best.values[1]).item()))
            if token == eos_id:
                break
            answer.append(token)
            inputs, cache = torch.tensor([[token]]), output.past_key_values
    return answer, rivals
