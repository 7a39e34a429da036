"""What the verbs' arguments have in common."""

from __future__ import annotations

import argparse
from pathlib import Path

DEMO = "recipes/demo-llama.yaml"
Verbs = argparse._SubParsersAction


def verb_parser(verbs: Verbs, name: str, summary: str, example: str) -> argparse.ArgumentParser:
    """A verb with its summary and examples."""
    verb: argparse.ArgumentParser = verbs.add_parser(
        name,
        help=summary,
        description=summary,
        epilog=f"examples:\n{example}",
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    verb.add_argument("--debug", action="store_true", default=argparse.SUPPRESS, help="show the traceback of an error")
    return verb


def take_config(arguments: argparse.Namespace) -> None:
    """``--config RECIPE`` as the recipe; what argparse has taken for one is then an override."""
    if getattr(arguments, "config", None) is not None:
        if arguments.recipe != Path(DEMO):
            arguments.overrides.insert(0, str(arguments.recipe))
        arguments.recipe = arguments.config


def recipe_arguments(verb: argparse.ArgumentParser) -> None:
    """The recipe and what overrides it."""
    verb.add_argument("recipe", nargs="?", default=DEMO, type=Path, help=f"recipe file (default {DEMO})")
    verb.add_argument("overrides", nargs="*", metavar="key=value", help="such as train.learning_rate=1e-4")
    verb.add_argument("--config", type=Path, metavar="RECIPE", help="the recipe file, named as accelerate's own examples do")
