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


def add_preview(verbs: Verbs) -> None:
    """The verb ``preview``."""
    verb = verb_parser(
        verbs,
        "preview",
        "show what a training would read and learn: rows with the trained tokens marked, lengths, what is too long",
        "  llmft preview recipes/demo-llama.yaml\n"
        "  llmft preview recipes/llama-3.1-8b-qlora.yaml train.max_tokens=1024 --rows 5 --html preview.html",
    )
    recipe_arguments(verb)
    verb.add_argument("--split", default="train", choices=("train", "validation", "test"), help="whose rows (default train)")
    verb.add_argument("--rows", type=int, default=3, help="how many rows to show, evenly taken (default 3)")
    verb.add_argument("--html", type=Path, metavar="FILE", help="also write a page; it holds words of the calls")

    def run(arguments: argparse.Namespace) -> None:
        from llmft.recipe import load_recipe
        from llmft.train.preview import preview

        recipe = load_recipe(arguments.recipe, arguments.overrides)
        preview(recipe, split=arguments.split, count=arguments.rows, html_path=arguments.html)

    verb.set_defaults(run=run)


def add_plan(verbs: Verbs) -> None:
    """The verb ``plan``."""
    verb = verb_parser(
        verbs,
        "plan",
        "predict memory and time of a step and choose the fastest settings that fit, from the base's configuration alone",
        "  llmft plan recipes/gptj-6b-qlora.yaml --gpu rtx-4090\n"
        "  llmft plan recipes/llama-3.1-8b-qlora.yaml --memory 24GB --json\n"
        "  llmft sft recipes/llama-3.1-8b-qlora.yaml train.fit=auto",
    )
    recipe_arguments(verb)
    verb.add_argument("--gpu", help="plan for this GPU, such as rtx-4090, a100-80gb or h200 (default: this machine's)")
    verb.add_argument("--memory", metavar="SIZE", help="memory to keep within, such as 24GB")
    verb.add_argument("--json", action="store_true", help="all candidates, in bytes and seconds")

    def run(arguments: argparse.Namespace) -> None:
        import json

        from llmft.privacy import keep_private
        from llmft.recipe import load_recipe
        from llmft.train.fitting.fit import plan_recipe, wanted_device
        from llmft.train.fitting.report import as_json, print_plan

        recipe = load_recipe(arguments.recipe, arguments.overrides)
        keep_private(hub_allowed=not recipe.base_is_folder)
        plan = plan_recipe(recipe, wanted_device(arguments.gpu, arguments.memory))
        if arguments.json:
            print(json.dumps(as_json(plan), indent=2))
        else:
            print_plan(plan)

    verb.set_defaults(run=run)


def add_sft(verbs: Verbs) -> None:
    """The verb ``sft``."""
    verb = verb_parser(
        verbs,
        "sft",
        "fine-tune with QLoRA",
        "  llmft sft recipes/demo-llama.yaml\n  llmft sft recipes/demo-llama.yaml train.learning_rate=1e-3 name=faster\n"
        "  llmft sft recipes/llama-3.1-8b-qlora.yaml --resume\n"
        "  llmft sft recipes/llama-3.1-8b-qlora.yaml train.keep=best train.best_by=triage_success train.patience=3\n"
        "  llmft sft recipes/demo-llama.yaml name=next data.folder=data/prepared/next train.corrected_repeats=24",
    )
    recipe_arguments(verb)
    verb.add_argument("--resume", action="store_true", help="go on from the last whole checkpoint")
    verb.add_argument("--force", action="store_true", help="replace an earlier run of this name")

    def run(arguments: argparse.Namespace) -> None:
        from llmft.recipe import load_recipe
        from llmft.train.processes import main_process
        from llmft.train.sft import sft
        from llmft.verbs import require_desktop_tokenizer, triage_judge

        recipe = load_recipe(arguments.recipe, arguments.overrides)
        require_desktop_tokenizer(recipe)
        adapter_dir = sft(recipe, resume=arguments.resume, force=arguments.force, judge=triage_judge(recipe))
        if main_process():
            print(f"adapter: {adapter_dir}\ncurve:   {adapter_dir.parent / 'plots' / 'loss.png'}")

    verb.set_defaults(run=run)


def add_search(verbs: Verbs) -> None:
    """The verb ``search``."""
    verb = verb_parser(
        verbs,
        "search",
        "try the recipe's search.ranges, lowest validation loss wins; a rerun goes on",
        "  llmft search recipes/demo-llama.yaml search.trials=12 \\\n"
        "      'search.ranges={train.learning_rate: {low: 1e-3, high: 1e-2, log: true}, lora.rank: {choices: [8, 32]}}'",
    )
    recipe_arguments(verb)

    def run(arguments: argparse.Namespace) -> None:
        from llmft.recipe import load_recipe
        from llmft.train.search import search
        from llmft.verbs import triage_judge

        recipe = load_recipe(arguments.recipe, arguments.overrides)
        folder = search(recipe, triage_judge(recipe))
        print(f"report: {folder / 'report.md'}\nbest:   {folder / 'best.yaml'}")

    verb.set_defaults(run=run)


def add_crossval(verbs: Verbs) -> None:
    """The verb ``crossval``."""
    verb = verb_parser(
        verbs,
        "crossval",
        "train and measure on each fold of `prepare --folds`: every metric with its interval; a rerun goes on",
        "  llmft crossval recipes/demo-llama.yaml\n  llmft crossval recipes/demo-llama.yaml --loss-only",
    )
    recipe_arguments(verb)
    verb.add_argument("--loss-only", action="store_true", help="measure the validation loss alone, and let nothing be answered")

    def run(arguments: argparse.Namespace) -> None:
        from llmft.verbs import crossval_command

        crossval_command(arguments)

    verb.set_defaults(run=run)


def add_prefer(verbs: Verbs) -> None:
    """The verb ``prefer``."""
    verb = verb_parser(
        verbs,
        "prefer",
        "go on from the SFT adapter with judged answers: corrected ones (DPO) or thumbs (KTO)",
        "  llmft prefer recipes/demo-llama.yaml prefer.file=judged.jsonl\n"
        "  llmft prefer recipes/demo-llama.yaml prefer.file=judged.jsonl prefer.method=kto\n"
        "  llmft export recipes/demo-llama.yaml name=demo-llama-preferred",
    )
    recipe_arguments(verb)
    verb.add_argument("--resume", action="store_true", help="go on from the last whole checkpoint")
    verb.add_argument("--force", action="store_true", help="replace an earlier run of this name")

    def run(arguments: argparse.Namespace) -> None:
        from llmft.recipe import load_recipe
        from llmft.train.preference import prefer

        adapter_dir = prefer(load_recipe(arguments.recipe, arguments.overrides), resume=arguments.resume, force=arguments.force)
        print(f"adapter: {adapter_dir}")

    verb.set_defaults(run=run)
