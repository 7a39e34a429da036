"""The two verbs that take a recipe or bare folders: what to export, what to verify, and where it lies."""

from __future__ import annotations

import argparse
import itertools
import json
import sys
from pathlib import Path

from llmft.dialogue import Dialogue, scan_dialogues
from llmft.errors import CheckpointError, ExportError, RecipeError, VerifyError
from llmft.privacy import keep_private
from llmft.prompt import Message, to_messages
from llmft.recipe import Recipe, load_recipe
from llmft.run import write_json

VERIFY_CHATS = 8  # test dialogues that the runtimes are compared on


def export_command(arguments: argparse.Namespace) -> None:
    """``llmft export``: a recipe's run, or any base with any PEFT adapter."""
    from llmft.export.writer import export, export_file

    keep_private()
    quants = tuple(arguments.quant.split(",")) if arguments.quant else None
    if arguments.base is not None:
        if arguments.output is None or quants is None or len(quants) != 1:
            raise ExportError("--base needs --output FILE.gguf and one --quant, such as --quant Q4_0")
        print(export_file(arguments.base, arguments.adapter, arguments.output, quants[0], force=arguments.force))
        return
    recipe = load_recipe(arguments.recipe, arguments.overrides)
    adapter = trained_adapter(recipe)
    paths = export(
        base_folder(recipe),
        adapter,
        recipe.export_dir,
        recipe.name,
        quants or recipe.export.quants,
        force=arguments.force,
        system_message=recipe.data.system or "",
    )
    for path in paths:
        print(f"{path}  {path.stat().st_size / 1e6:.1f} MB")


def verify_command(arguments: argparse.Namespace) -> int:
    """``llmft verify``: one GGUF, or every GGUF of a recipe's export; 1 when a check fails."""
    from llmft.export.verify import print_report, verify

    keep_private()
    files, base, adapter, chats = _to_verify(arguments)
    passed = True
    for path in files:
        reference = next((file for file in files if file.stem.endswith("-F16") and file != path), None)
        report = verify(path, base, adapter, chats, reference_f16=reference)
        passed &= report.passed
        _record(path, report.as_json())
        if arguments.json:
            print(json.dumps(report.as_json(), ensure_ascii=False, indent=2))
        else:
            print_report(report)
    return 0 if passed else 1


def _to_verify(arguments: argparse.Namespace) -> tuple[list[Path], Path, Path | None, list[list[Message]]]:
    """The files, F16 first, with the base and adapter that they were made from and chats to compare on."""
    if arguments.file.suffix in (".yaml", ".yml"):
        recipe = load_recipe(arguments.file)
        files = sorted(recipe.export_dir.glob("*.gguf"), key=lambda path: (not path.stem.endswith("-F16"), path.name))
        if not files:
            raise VerifyError(f"{recipe.export_dir} holds no GGUF; make them with: llmft export {arguments.file}")
        return files, base_folder(recipe), trained_adapter(recipe), _test_chats(recipe)
    if arguments.base is None:
        raise VerifyError(f"say what {arguments.file} was made from (--base DIR --adapter DIR), or give a recipe")
    return [arguments.file], arguments.base, arguments.adapter, []


def _test_chats(recipe: Recipe) -> list[list[Message]]:
    """Some test dialogues up to the operator's last turn."""
    path = Path(recipe.data.folder) / "test.jsonl"
    if not path.is_file():
        return []
    dialogues = (parsed for parsed in scan_dialogues(path) if isinstance(parsed, Dialogue))
    return [to_messages(dialogue, recipe.data.system)[:-1] for dialogue in itertools.islice(dialogues, VERIFY_CHATS)]


def _record(path: Path, report: dict[str, object]) -> None:
    """``verify.json`` beside the file, one entry a GGUF."""
    record = path.parent / "verify.json"
    try:
        entries = json.loads(record.read_text("utf-8"))
    except (OSError, ValueError):
        entries = {}
    write_json(record, {**entries, path.name: report})


def trained_adapter(recipe: Recipe) -> Path:
    """The run's adapter folder."""
    if not recipe.run.adapter_dir.is_dir():
        raise CheckpointError(f"{recipe.run.root} holds no finished adapter; train it with: llmft sft, or go on with --resume")
    return recipe.run.adapter_dir


def base_folder(recipe: Recipe) -> Path:
    """The base as a folder; a hub id is looked up in the hub's cache, where training has put it."""
    if recipe.base_is_folder:
        return Path(recipe.base).expanduser()
    from huggingface_hub import snapshot_download

    try:
        return Path(snapshot_download(recipe.base, local_files_only=True))
    except Exception as error:
        print(f"llmft: {recipe.base} is not in the hub's cache", file=sys.stderr)
        raise RecipeError(f"base {recipe.base} is not on this machine; train first, or give the folder: base=DIR") from error
