"""Verbs that train and measure."""

from __future__ import annotations

import argparse
from pathlib import Path

from llmft.cli.arguments import Verbs, recipe_arguments, verb_parser


def add_base(verbs: Verbs) -> None:
    """The verb ``base``."""
    verb = verb_parser(
        verbs,
        "base",
        "pretrain an embedded demonstration base (no medical model) from a corpus",
        "  llmft base llama --corpus data/corpus/corpus.jsonl --output data/base/llama",
    )
    verb.add_argument("family", choices=("llama", "gptj"), help="which of the twins")
    verb.add_argument("--corpus", type=Path, required=True, help="JSONL made by `llmft synthesize --corpus`")
    verb.add_argument("--output", type=Path, required=True, help="folder of the base")
    verb.add_argument("--start", type=Path, help="go on from this base instead of from nothing")
    verb.add_argument("--steps", type=int, default=7000, help="optimiser steps of 16 documents (default 7000)")
    verb.add_argument("--seed", type=int, default=1, help="seed of the weights and the data order (default 1)")

    def run(arguments: argparse.Namespace) -> None:
        from llmft.train.base import pretrain

        pretrain(
            arguments.family,
            arguments.corpus,
            arguments.output,
            steps=arguments.steps,
            start_dir=arguments.start,
            seed=arguments.seed,
        )

    verb.set_defaults(run=run)


def add_sft(verbs: Verbs) -> None:
    """The verb ``sft``."""
    verb = verb_parser(
        verbs,
        "sft",
        "fine-tune with QLoRA",
        "  llmft sft recipes/demo-llama.yaml\n  llmft sft recipes/demo-llama.yaml train.learning_rate=1e-3 name=faster\n"
        "  llmft sft recipes/llama-3.1-8b-qlora.yaml --resume",
    )
    recipe_arguments(verb)
    verb.add_argument("--resume", action="store_true", help="go on from the last whole checkpoint")
    verb.add_argument("--force", action="store_true", help="replace an earlier run of this name")

    def run(arguments: argparse.Namespace) -> None:
        from llmft.recipe import load_recipe
        from llmft.train.sft import sft

        adapter_dir = sft(load_recipe(arguments.recipe, arguments.overrides), resume=arguments.resume, force=arguments.force)
        print(f"adapter: {adapter_dir}\ncurve:   {adapter_dir.parent / 'plots' / 'loss.png'}")

    verb.set_defaults(run=run)


def add_evaluate(verbs: Verbs) -> None:
    """The verb ``evaluate``."""
    verb = verb_parser(
        verbs,
        "evaluate",
        "measure triage on the test split: base, adapter and each GGUF in one table",
        "  llmft evaluate recipes/demo-llama.yaml\n"
        "  llmft evaluate recipes/demo-llama.yaml --model adapter --model export/demo-llama/demo-llama-Q4_0.gguf",
    )
    recipe_arguments(verb)
    verb.add_argument("--model", action="append", default=[], help="base, adapter or FILE.gguf; may repeat (default: all)")

    def run(arguments: argparse.Namespace) -> None:
        from llmft.evaluate.stage import evaluate
        from llmft.recipe import load_recipe

        evaluate(load_recipe(arguments.recipe, arguments.overrides), arguments.model)

    verb.set_defaults(run=run)
