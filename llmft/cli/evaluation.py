"""Verbs that say what a model is worth."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import TYPE_CHECKING

from llmft.cli.arguments import DEMO, Verbs, recipe_arguments, verb_parser

if TYPE_CHECKING:
    from llmft.recipe import Recipe

POLICY = Path("recipes/gate.yaml")


def refresh_card(recipe: Recipe) -> None:
    """The figures and the gate's verdict on the model card that export has written."""
    from llmft.gate_result import card_section, put_on_card

    section = card_section([path.name for path in recipe.exported], recipe.run.evaluation_dir)
    put_on_card(recipe.export_dir / "MODEL_CARD.md", section)


def add_evaluate(verbs: Verbs) -> None:
    """The verb ``evaluate``."""
    verb = verb_parser(
        verbs,
        "evaluate",
        "measure triage on the test split: base, adapter, each GGUF, the rules and simpler rivals; a table and a page",
        "  llmft evaluate recipes/demo-llama.yaml\n"
        "  llmft evaluate recipes/demo-llama.yaml --model adapter --model export/demo-llama/demo-llama-Q4_0.gguf\n"
        "  llmft evaluate recipes/demo-llama.yaml --quick\n"
        "  llmft evaluate recipes/demo-llama.yaml --model adapter --swaps 50\n"
        "  llmft evaluate recipes/demo-llama.yaml --model adapter --simulate 100 --privacy\n"
        "  llmft evaluate recipes/demo-llama.yaml --model export/demo-llama/demo-llama-Q4_0.gguf+grammar\n"
        "  llmft evaluate recipes/demo-llama.yaml --model http://127.0.0.1:8080/v1",
    )
    recipe_arguments(verb)
    verb.add_argument(
        "--model", action="append", default=[], help="base, adapter, FILE.gguf, FILE.gguf+grammar or URL; may repeat"
    )
    verb.add_argument("--quick", action="store_true", help="leave out the validation calls: no calibration, half the time")
    verb.add_argument("--simulate", type=int, default=0, metavar="CALLS", help="first let simulated patients hold so many calls")
    verb.add_argument("--perplexity", action="store_true", help="first measure perplexity, and divergence from the adapter")
    verb.add_argument("--privacy", action="store_true", help="first attack the models: canaries, repeated text, membership")
    verb.add_argument(
        "--swaps", type=int, default=0, metavar="CALLS", help="also ask so many calls again with another age, sex and name"
    )

    def run(arguments: argparse.Namespace) -> None:
        from llmft.evaluate.stage import evaluate
        from llmft.recipe import load_recipe

        recipe = load_recipe(arguments.recipe, arguments.overrides)
        if arguments.simulate > 0:
            from llmft.evaluate.conversation.stage import simulate

            simulate(recipe, arguments.model, arguments.simulate)
        if arguments.perplexity:
            from llmft.evaluate.language_model import language_quality

            language_quality(recipe, arguments.model)
        if arguments.privacy:
            from llmft.evaluate.privacy.stage import attack_models

            attack_models(recipe, arguments.model)
        evaluate(recipe, arguments.model, swaps=arguments.swaps, calibrate=not arguments.quick)
        refresh_card(recipe)
        print(f"page:    {recipe.run.evaluation_dir / 'report.html'}\nfigures: {recipe.run.evaluation_dir / 'metrics.json'}")

    verb.set_defaults(run=run)


def add_explain(verbs: Verbs) -> None:
    """The verb ``explain``."""
    verb = verb_parser(
        verbs,
        "explain",
        "show which of the patient's words drove urgency and specialty, and the nearest training calls, on a page",
        "  llmft explain recipes/demo-llama.yaml --call syn-11-00017\n"
        "  llmft explain export/demo-llama/demo-llama-Q4_0.gguf --call syn-11-00017 --recipe recipes/demo-llama.yaml",
    )
    verb.add_argument("source", nargs="?", default=Path(DEMO), type=Path, help=f"a recipe, or a GGUF (default {DEMO})")
    verb.add_argument("--call", required=True, metavar="ID", help="a call of the prepared set")
    verb.add_argument("--model", default="adapter", help="with a recipe: base, adapter or FILE.gguf (default adapter)")
    verb.add_argument("--recipe", type=Path, default=Path(DEMO), help=f"with a GGUF: the recipe whose calls are meant ({DEMO})")
    verb.add_argument("--output", type=Path, metavar="FILE", help="the page (default: in the run's evaluation/)")

    def run(arguments: argparse.Namespace) -> None:
        from llmft.evaluate.explain.stage import explain
        from llmft.recipe import load_recipe

        is_file = arguments.source.suffix == ".gguf"
        recipe = load_recipe(arguments.recipe if is_file else arguments.source)
        model = str(arguments.source) if is_file else arguments.model
        print(f"page: {explain(recipe, model, arguments.call, arguments.output)}")

    verb.set_defaults(run=run)


def add_gate(verbs: Verbs) -> None:
    """The verb ``gate``."""
    verb = verb_parser(
        verbs,
        "gate",
        "judge the evaluated models by a policy; 1 when one falls short, and export and serve then refuse it",
        "  llmft gate recipes/demo-llama.yaml --policy recipes/gate.yaml\n"
        "  llmft gate recipes/demo-llama.yaml --model demo-llama-Q4_0.gguf --in-use runs/demo-llama-before",
    )
    verb.add_argument("recipe", nargs="?", default=DEMO, type=Path, help=f"recipe file (default {DEMO})")
    verb.add_argument("overrides", nargs="*", metavar="key=value", help="such as name=faster")
    verb.add_argument("--policy", type=Path, default=POLICY, help=f"what is asked of a model (default {POLICY})")
    verb.add_argument(
        "--model", action="append", default=[], help="a name in metrics.json; may repeat (default: all but the base)"
    )
    verb.add_argument("--in-use", type=Path, metavar="RUN", help="run folder of the version in use, to compare with")

    def run(arguments: argparse.Namespace) -> int:
        from llmft.evaluate.gate import gate
        from llmft.recipe import load_recipe

        recipe = load_recipe(arguments.recipe, arguments.overrides)
        judged = gate(recipe, arguments.policy, arguments.model, arguments.in_use)
        refresh_card(recipe)
        for name, found in judged.items():
            print(f"{name}{' beside the rules' if found.beside_rules else ''}: {'passed' if found.passed else 'falls short'}")
            for sentence in found.short:
                print(f"  {sentence}")
        return 0 if all(found.passed for found in judged.values()) else 1

    verb.set_defaults(run=run)


def add_encoder(verbs: Verbs) -> None:
    """The verb ``encoder``."""
    verb = verb_parser(
        verbs,
        "encoder",
        "train an encoder classifier (BERT, CamemBERT …) of urgency and specialty, as a rival of the fine-tuned model",
        "  llmft encoder recipes/encoders/camembert.yaml\n"
        "  llmft encoder recipes/encoders/drbert.yaml && llmft evaluate recipes/demo-llama.yaml",
    )
    verb.add_argument("recipe", type=Path, help="recipe file, such as recipes/encoders/camembert.yaml")

    def run(arguments: argparse.Namespace) -> None:
        from llmft.evaluate.rivals.encoder_recipe import EncoderRecipe, read_strict
        from llmft.evaluate.rivals.encoder_training import train_encoder

        recipe = read_strict(arguments.recipe, EncoderRecipe)
        for field, scores in train_encoder(recipe)["validation"].items():
            print(f"{field}: " + ", ".join(f"{name} {scores[name]:.3f}" for name in ("accuracy", "precision", "recall", "f1")))
        print(f"encoder: {recipe.folder}")

    verb.set_defaults(run=run)
