"""Answers to test calls: parallel sequences beside one-by-one ``Llama.create_chat_completion``, on the same cores.

    .venv/bin/python bench/evaluate.py                                    # 200 calls on the demonstration's Q4_0
    .venv/bin/python bench/evaluate.py FILE.gguf --calls 50 --threads 2 --slots 24

Both read the same prompts and stop at the same ends; temperature 0. One by one runs as it comes, with llama-cpp-python's
own thread counts and its own prefix cache. Run it on an otherwise idle machine. Writes bench/results/evaluate.json: calls
a second, wall and CPU seconds, and how many answers are the same, letter by letter and in what they decide.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import time
from collections.abc import Callable
from datetime import UTC, datetime
from importlib import metadata
from pathlib import Path
from typing import Any

import llama_cpp

from llmft.dialogue import read_triage
from llmft.engine.side_by_side import open_side_by_side
from llmft.engine.triage_grammar import triage_grammar
from llmft.evaluate.candidates import trained_answers
from llmft.evaluate.predict import read_test_calls
from llmft.prompt import Message, to_messages
from llmft.recipe import load_recipe

RESULTS = Path(__file__).parent / "results"
MAX_NEW_TOKENS = 320


def timed(ask: Callable[[], list[str]], calls: int) -> tuple[dict[str, float], list[str]]:
    """Seconds of ``ask``, and the answers."""
    wall, cpu = time.perf_counter(), time.process_time()
    texts = ask()
    wall_s, cpu_s = time.perf_counter() - wall, time.process_time() - cpu
    return {"wall_s": round(wall_s, 3), "cpu_s": round(cpu_s, 3), "calls_per_s": round(calls / wall_s, 3)}, texts


def one_by_one(file: Path, chats: list[list[Message]], context_tokens: int) -> tuple[dict[str, float], list[str]]:
    """llama-cpp-python's own chat completion."""
    llama = llama_cpp.Llama(str(file), n_ctx=context_tokens, verbose=False)

    def ask() -> list[str]:
        found: list[Any] = [llama.create_chat_completion(chat, temperature=0.0, max_tokens=MAX_NEW_TOKENS) for chat in chats]  # type: ignore[arg-type]
        return [str(answer["choices"][0]["message"]["content"]).strip() for answer in found]

    result = timed(ask, len(chats))
    llama.close()
    return result


def together(
    file: Path,
    chats: list[list[Message]],
    train_file: Path,
    context_tokens: int,
    slots: int,
    threads: int,
    grammar: str | None = None,
) -> tuple[dict[str, float], list[str]]:
    """The engine of ``llmft evaluate``; learning to guess from training answers counts as asking."""
    engine = open_side_by_side(file, context_tokens=context_tokens, slots=slots, threads=threads, grammar=grammar)

    def ask() -> list[str]:
        engine.teach(trained_answers(train_file))
        found = dict(engine.answers(chats, MAX_NEW_TOKENS))
        return [found[index].text for index in range(len(chats))]

    result = timed(ask, len(chats))
    engine.close()
    return result


def agreement(texts: list[str], reference: list[str]) -> dict[str, float]:
    """Shares of answers that are the same text, decide the same, and hold a valid block."""
    pairs = list(zip(texts, reference, strict=True))
    triages = [(read_triage(text), read_triage(other)) for text, other in pairs]
    same = [a is not None and b is not None and (a.urgency, a.specialty) == (b.urgency, b.specialty) for a, b in triages]
    count = len(pairs)
    return {
        "same_text": sum(a == b for a, b in pairs) / count,
        "same_urgency_and_specialty": sum(same) / count,
        "valid_blocks": sum(a is not None for a, _ in triages) / count,
    }


def main() -> None:
    """Measure, print, write."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("file", nargs="?", type=Path, default=Path("export/demo-llama/demo-llama-Q4_0.gguf"))
    parser.add_argument("--recipe", type=Path, default=Path("recipes/demo-llama.yaml"))
    parser.add_argument("--calls", type=int, default=200)
    parser.add_argument("--slots", type=int, help="answers at once (default: the recipe's evaluate.batch_dialogues)")
    parser.add_argument("--threads", type=int, default=os.cpu_count() or 2)
    parser.add_argument("--output", type=Path, default=RESULTS / "evaluate.json")
    arguments = parser.parse_args()
    recipe = load_recipe(arguments.recipe)
    train_file, test_file = (Path(recipe.data.folder) / name for name in ("train.jsonl", "test.jsonl"))
    calls = read_test_calls(test_file, arguments.calls)
    chats = [to_messages(call, recipe.data.system)[:-1] for call in calls]
    context, slots = recipe.export.context_tokens, arguments.slots or recipe.evaluate.batch_dialogues
    alone, reference = one_by_one(arguments.file, chats, context)
    parallel, texts = together(arguments.file, chats, train_file, context, slots, arguments.threads)
    held, held_texts = together(arguments.file, chats, train_file, context, slots, arguments.threads, triage_grammar())
    report = {
        "created": datetime.now(UTC).isoformat(timespec="seconds"),
        "machine": {"processor": platform.machine(), "cores": os.cpu_count()},
        "versions": {name: metadata.version(name) for name in ("llmft", "llama-cpp-python")},
        "file": arguments.file.name,
        "calls": len(calls),
        "slots": slots,
        "threads": arguments.threads,
        "create_chat_completion": alone,
        "parallel": {**parallel, **agreement(texts, reference)},
        "parallel_with_grammar": {**held, **agreement(held_texts, reference)},
        "speed_up": {
            "wall": round(alone["wall_s"] / parallel["wall_s"], 2),
            "cpu": round(alone["cpu_s"] / parallel["cpu_s"], 2),
            "wall_with_grammar": round(alone["wall_s"] / held["wall_s"], 2),
        },
    }
    print(json.dumps(report, indent=2))
    arguments.output.write_text(json.dumps(report, indent=2) + "\n", "utf-8")


if __name__ == "__main__":
    main()
