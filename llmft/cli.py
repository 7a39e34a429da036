"""The command line: one verb a stage; a stage is imported only when its verb runs."""

from __future__ import annotations

import argparse
import re
import sys
from collections.abc import Sequence
from pathlib import Path

from llmft import __version__
from llmft.errors import LlmftError, MissingExtraError

DEMO = "recipes/demo-llama.yaml"
MODULES = {  # extra ─▶ the modules that it installs
    "train": "torch transformers trl peft bitsandbytes datasets accelerate matplotlib safetensors tokenizers",
    "export": "gguf numpy llama_cpp threadpoolctl",
    "gpt4all": "gpt4all",
    "evaluate": "sklearn scipy",
}
EXTRAS = {module: extra for extra, modules in MODULES.items() for module in modules.split()}


def main(argv: Sequence[str] | None = None) -> int:
    """Run one verb; 0 when it succeeded, 1 for an error of the user's, 130 for Ctrl-C."""
    arguments = _parse(argv)
    try:
        return int(arguments.run(arguments) or 0)
    except LlmftError as error:
        if arguments.debug:
            raise
        print(f"llmft: {error}", file=sys.stderr)
        return 1
    except ModuleNotFoundError as error:
        module = (error.name or "").partition(".")[0]
        if arguments.debug or module not in EXTRAS:
            raise
        print(f"llmft: {MissingExtraError(module, EXTRAS[module])}", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        print("\nllmft: stopped; files are whole, and `llmft sft … --resume` goes on where it was", file=sys.stderr)
        return 130


def _parse(argv: Sequence[str] | None) -> argparse.Namespace:
    """The arguments; ``key=value`` may also stand after an option, where argparse alone would not take it."""
    top = parser()
    arguments, rest = top.parse_known_args(argv)
    if rest and not (hasattr(arguments, "overrides") and all(re.match(r"[\w.]+=", text) for text in rest)):
        top.error(f"unrecognized arguments: {' '.join(rest)}")
    if rest:
        arguments.overrides += rest
    return arguments


def parser() -> argparse.ArgumentParser:
    """All verbs with their arguments."""
    top = argparse.ArgumentParser(
        prog="llmft",
        description="From patient/operator calls to a private triage assistant. Decision support, not a medical device.",
        epilog="Each verb has examples: llmft VERB --help",
    )
    top.add_argument("--version", action="version", version=__version__)
    top.add_argument("--debug", action="store_true", help="show the traceback of an error")
    verbs = top.add_subparsers(title="verbs", required=True, metavar="VERB")
    for add in (_synthesize, _prepare, _base, _sft, _evaluate, _export, _verify, _install_gpt4all, _chat):
        add(verbs)
    return top


def _verb(verbs: argparse._SubParsersAction, name: str, summary: str, example: str) -> argparse.ArgumentParser:
    verb: argparse.ArgumentParser = verbs.add_parser(
        name,
        help=summary,
        description=summary,
        epilog=f"examples:\n{example}",
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    verb.add_argument("--debug", action="store_true", default=argparse.SUPPRESS, help="show the traceback of an error")
    return verb


def _recipe_arguments(verb: argparse.ArgumentParser) -> None:
    verb.add_argument("recipe", nargs="?", default=DEMO, type=Path, help=f"recipe file (default {DEMO})")
    verb.add_argument("overrides", nargs="*", metavar="key=value", help="such as train.learning_rate=1e-4")


def _synthesize(verbs: argparse._SubParsersAction) -> None:
    verb = _verb(
        verbs,
        "synthesize",
        "make calls, or pretraining text, from the bundled knowledge base",
        "  llmft synthesize --count 3000 --seed 11 --output calls.jsonl\n"
        "  llmft synthesize --corpus --count 60000 --output data/corpus/corpus.jsonl",
    )
    verb.add_argument("--output", type=Path, required=True, help="JSONL file to write")
    verb.add_argument("--count", type=int, default=300, help="calls or documents (default 300)")
    verb.add_argument("--seed", type=int, default=1, help="the same seed makes the same file (default 1)")
    verb.add_argument("--corpus", action="store_true", help="text for pretraining the embedded base instead of calls")

    def run(arguments: argparse.Namespace) -> None:
        if arguments.corpus:
            from llmft.prepare.corpus import write_corpus

            written = write_corpus(arguments.output, arguments.count, arguments.seed)
        else:
            from llmft.dialogue import write_dialogues
            from llmft.prepare.synthesize import synthesize

            written = write_dialogues(arguments.output, synthesize(arguments.count, arguments.seed))
        print(f"{arguments.output}: {written} lines")

    verb.set_defaults(run=run)


def _prepare(verbs: argparse._SubParsersAction) -> None:
    verb = _verb(
        verbs,
        "prepare",
        "read calls, set bad rows aside, split without leaks",
        "  llmft prepare data/sample/calls.jsonl --output data/prepared/sample\n"
        "  llmft prepare --format ddxplus ddxplus/ --output data/prepared/ddxplus",
    )
    verb.add_argument("sources", nargs="+", type=Path, metavar="SOURCE", help="files, folders or globs")
    verb.add_argument("--output", type=Path, required=True, help="folder for train, validation and test.jsonl")
    formats = ("auto", "jsonl", "ddxplus")
    verb.add_argument("--format", default="auto", choices=formats, help="what the sources are (default auto)")
    verb.add_argument("--seed", type=int, default=1, help="seed of the split (default 1)")
    verb.add_argument("--count", type=int, help="DDXPlus: calls to make of each condition")
    verb.add_argument("--strict", action="store_true", help="stop at the first bad row")

    def run(arguments: argparse.Namespace) -> None:
        from llmft.prepare.stage import prepare, print_report

        report = prepare(
            arguments.sources,
            arguments.output,
            file_format=arguments.format,
            seed=arguments.seed,
            strict=arguments.strict,
            count=arguments.count,
        )
        print_report(report, arguments.output)

    verb.set_defaults(run=run)


def _base(verbs: argparse._SubParsersAction) -> None:
    verb = _verb(
        verbs,
        "base",
        "pretrain an embedded demonstration base (no medical model) from a corpus",
        "  llmft base llama --corpus data/corpus/corpus.jsonl --output data/base/llama",
    )
    verb.add_argument("family", choices=("llama", "gptj"), help="which of the twins")
    verb.add_argument("--corpus", type=Path, required=True, help="JSONL made by `llmft synthesize --corpus`")
    verb.add_argument("--output", type=Path, required=True, help="folder of the base")
    verb.add_argument("--steps", type=int, default=1500, help="optimiser steps of 32 documents (default 1500)")
    verb.add_argument("--seed", type=int, default=1, help="seed of the weights and the data order (default 1)")

    def run(arguments: argparse.Namespace) -> None:
        from llmft.train.base import pretrain

        pretrain(arguments.family, arguments.corpus, arguments.output, steps=arguments.steps, seed=arguments.seed)

    verb.set_defaults(run=run)


def _sft(verbs: argparse._SubParsersAction) -> None:
    verb = _verb(
        verbs,
        "sft",
        "fine-tune with QLoRA",
        "  llmft sft recipes/demo-llama.yaml\n  llmft sft recipes/demo-llama.yaml train.learning_rate=1e-3 name=faster\n"
        "  llmft sft recipes/llama-3.1-8b-qlora.yaml --resume",
    )
    _recipe_arguments(verb)
    verb.add_argument("--resume", action="store_true", help="go on from the last whole checkpoint")
    verb.add_argument("--force", action="store_true", help="replace an earlier run of this name")

    def run(arguments: argparse.Namespace) -> None:
        from llmft.recipe import load_recipe
        from llmft.train.sft import sft

        adapter_dir = sft(load_recipe(arguments.recipe, arguments.overrides), resume=arguments.resume, force=arguments.force)
        print(f"adapter: {adapter_dir}\ncurve:   {adapter_dir.parent / 'plots' / 'loss.png'}")

    verb.set_defaults(run=run)


def _evaluate(verbs: argparse._SubParsersAction) -> None:
    verb = _verb(
        verbs,
        "evaluate",
        "measure triage on the test split: base, adapter and each GGUF in one table",
        "  llmft evaluate recipes/demo-llama.yaml\n"
        "  llmft evaluate recipes/demo-llama.yaml --model adapter --model export/demo-llama/demo-llama-Q4_0.gguf",
    )
    _recipe_arguments(verb)
    verb.add_argument("--model", action="append", default=[], help="base, adapter or FILE.gguf; may repeat (default: all)")

    def run(arguments: argparse.Namespace) -> None:
        from llmft.evaluate.stage import evaluate
        from llmft.recipe import load_recipe

        evaluate(load_recipe(arguments.recipe, arguments.overrides), arguments.model)

    verb.set_defaults(run=run)


def _export(verbs: argparse._SubParsersAction) -> None:
    verb = _verb(
        verbs,
        "export",
        "merge base and adapter and write GGUF files in one pass",
        "  llmft export recipes/demo-llama.yaml --quant Q4_0,Q4_K_M\n"
        "  llmft export --base DIR --adapter DIR --output model.gguf --quant Q4_0",
    )
    _recipe_arguments(verb)
    verb.add_argument("--quant", help="comma-separated: F16, Q8_0, Q4_0, Q4_K_M (default: the recipe's)")
    verb.add_argument("--base", type=Path, help="base folder, for any PEFT adapter without a recipe")
    verb.add_argument("--adapter", type=Path, help="adapter folder; none: the base alone")
    verb.add_argument("--output", type=Path, help="GGUF file to write, with --base")
    verb.add_argument("--force", action="store_true", help="replace files that exist")

    def run(arguments: argparse.Namespace) -> None:
        from llmft.verbs import export_command

        export_command(arguments)

    verb.set_defaults(run=run)


def _verify(verbs: argparse._SubParsersAction) -> None:
    verb = _verb(
        verbs,
        "verify",
        "prove that a GGUF is the model that was trained: same tokens, same logits, same words, stops",
        "  llmft verify recipes/demo-llama.yaml\n  llmft verify model.gguf --base DIR --adapter DIR --json",
    )
    source = f"a GGUF, or a recipe for all of its files (default {DEMO})"
    verb.add_argument("file", nargs="?", default=Path(DEMO), type=Path, help=source)
    verb.add_argument("--base", type=Path, help="base folder (default: the recipe's)")
    verb.add_argument("--adapter", type=Path, help="adapter folder (default: the run's)")
    verb.add_argument("--json", action="store_true", help="print verify.json instead of a table")

    def run(arguments: argparse.Namespace) -> int:
        from llmft.verbs import verify_command

        return verify_command(arguments)

    verb.set_defaults(run=run)


def _install_gpt4all(verbs: argparse._SubParsersAction) -> None:
    verb = _verb(
        verbs,
        "install-gpt4all",
        "copy a GGUF into GPT4All desktop's models folder",
        "  llmft install-gpt4all export/demo-llama/demo-llama-Q4_0.gguf\n  llmft install-gpt4all model.gguf --dry-run",
    )
    verb.add_argument("file", type=Path, help="the GGUF")
    verb.add_argument("--models-dir", type=Path, help="another models folder than the desktop's own")
    verb.add_argument("--dry-run", action="store_true", help="say what would be done")
    verb.add_argument("--force", action="store_true", help="replace a file of this name")

    def run(arguments: argparse.Namespace) -> None:
        from llmft.export.gpt4all import install

        print(install(arguments.file, arguments.models_dir, dry_run=arguments.dry_run, force=arguments.force))

    verb.set_defaults(run=run)


def _chat(verbs: argparse._SubParsersAction) -> None:
    verb = _verb(
        verbs,
        "chat",
        "chat with a GGUF in the terminal",
        '  llmft chat export/demo-llama/demo-llama-Q4_0.gguf\n  llmft chat model.gguf --once "J\'ai mal à la poitrine"',
    )
    verb.add_argument("file", type=Path, help="the GGUF")
    verb.add_argument("--once", metavar="TEXT", help="answer TEXT and leave: a smoke test")
    verb.add_argument("--system", help="system message (default: the recipes' own)")
    verb.add_argument("--threads", type=int, help="CPU threads (default: the physical cores)")

    def run(arguments: argparse.Namespace) -> int:
        from llmft.chat import chat

        return chat(arguments.file, once=arguments.once, system=arguments.system, threads=arguments.threads)

    verb.set_defaults(run=run)


if __name__ == "__main__":
    sys.exit(main())
