"""How a run begins or goes on: its folder, what it was begun with, and what must not have changed since."""

from __future__ import annotations

import hashlib
import json
import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from llmft.errors import CheckpointError, DialogueError, RecipeError
from llmft.recipe import Recipe, load_recipe, save_recipe, with_values
from llmft.run import require_space, sha256, write_json
from llmft.train.checkpoints import remove_halves
from llmft.train.processes import main_process, processes
from llmft.train.rows import FOLDS
from llmft.train.sharding import is_sharded

FACTS = "data.json"  # digests of the data and the base that the run was begun with
FITTED = ("quantization", "batch_dialogues", "accumulate", "packing", "gradient_checkpointing")  # what train.fit: auto sets
SAMPLE_BYTES = 1 << 20  # of each end of a weights file


def open_run(recipe: Recipe, *, resume: bool, force: bool, inputs: Mapping[str, Path] | None = None) -> bool:
    """Make the run folder ready, by one process for all; True when there is nothing left to do.

    ``inputs`` are the files that must not change between a start and a resumption; None: the prepared set's.

    Raises :class:`CheckpointError` for a run that exists and is neither resumed nor replaced, and the fitting
    error when the recipe, the data or the base is another one than the run was begun with.
    """
    if main_process():
        _open(recipe, prepared_files(recipe) if inputs is None else inputs, resume=resume, force=force)
    processes().wait_for_everyone()
    return recipe.run.adapter_dir.is_dir()


def _open(recipe: Recipe, inputs: Mapping[str, Path], *, resume: bool, force: bool) -> None:
    run = recipe.run
    if resume and run.recipe_path.is_file():
        _require_same(recipe, inputs)
        remove_halves(run.checkpoints_dir)
        return
    if run.root.exists() and not force and not resume:
        raise CheckpointError(f"{run.root} exists; go on with --resume, replace it with --force, or choose another name=")
    facts = {"data_sha256": digests(inputs), "base_sha256": base_digest(recipe), "launch": launch()}
    require_space(run.root, 200_000_000)
    if run.root.exists():
        shutil.rmtree(run.root)
    write_json(run.root / FACTS, facts)
    save_recipe(recipe, run.recipe_path)


def _require_same(recipe: Recipe, inputs: Mapping[str, Path]) -> None:
    """A run goes on with what it was begun with, or not at all."""
    run = recipe.run
    begun = load_recipe(run.recipe_path)
    if as_begun(recipe, begun) != begun:
        raise RecipeError(
            f"{run.root} was begun with another recipe ({run.recipe_path}); resume with that one, or start anew with --force"
        )
    before = read_facts(recipe)
    begun_by = before.get("launch", launch())
    if begun_by != launch():
        raise CheckpointError(
            f"{run.root} was begun by {_in_words(begun_by)}, and this is {_in_words(launch())}, whose steps and checkpoints "
            "are others; resume it as it was launched, or start anew with --force"
        )
    changed = [name for name, digest in digests(inputs).items() if before["data_sha256"].get(name) != digest]
    if changed:
        raise DialogueError(f"{inputs[changed[0]]} has changed since {run.root} was begun; start anew with --force")
    if base_digest(recipe) != before["base_sha256"]:
        raise CheckpointError(f"base {recipe.base} has changed since {run.root} was begun; start anew with --force")


def launch() -> dict[str, Any]:
    """What batches and checkpoints depend on: how many processes train, and whether the base is shared out among them."""
    return {"processes": processes().num_processes, "sharded": is_sharded()}


def _in_words(launched: Mapping[str, Any]) -> str:
    count = launched["processes"]
    return f"{count} process{'es' if count > 1 else ''}{' under FSDP2' if launched['sharded'] else ''}"


def as_begun(recipe: Recipe, begun: Recipe) -> Recipe:
    """``recipe`` with what ``train.fit: auto`` has chosen for the run ``begun``."""
    if recipe.train.fit != "auto":
        return recipe
    return with_values(recipe, {f"train.{name}": getattr(begun.train, name) for name in FITTED})


def write_facts(recipe: Recipe, facts: dict[str, Any]) -> None:
    """Replace what the run was begun with."""
    write_json(recipe.run.root / FACTS, facts)


def read_facts(recipe: Recipe) -> dict[str, Any]:
    """What the run was begun with."""
    facts: dict[str, Any] = json.loads((recipe.run.root / FACTS).read_text("utf-8"))
    return facts


def digests(inputs: Mapping[str, Path]) -> dict[str, str]:
    """The sha256 of each file."""
    return {name: sha256(path) for name, path in inputs.items()}


def prepared_files(recipe: Recipe) -> dict[str, Path]:
    """What of the prepared set is trained or validated on; raises :class:`DialogueError` when it is not there."""
    folder = Path(recipe.data.folder)
    names = ["train.jsonl", "validation.jsonl", *([FOLDS] if recipe.data.fold is not None else [])]
    missing = [name for name in names if not (folder / name).is_file()]
    if missing:
        raise DialogueError(f"{folder} has no {missing[0]}; prepare it with: llmft prepare SOURCE --output {folder}")
    return {name: folder / name for name in names}


def base_digest(recipe: Recipe) -> str | None:
    """What tells bases apart in a second: their configuration, and both ends of each weights file; None for a hub id."""
    folder = Path(recipe.base).expanduser()
    if not folder.is_dir():
        return None
    digest = hashlib.sha256((folder / "config.json").read_bytes())
    for path in sorted(folder.glob("*.safetensors")):
        size_bytes = path.stat().st_size
        digest.update(f"{path.name}:{size_bytes}".encode())
        with path.open("rb") as file:
            digest.update(file.read(SAMPLE_BYTES))  # begins with the names and shapes of all tensors
            file.seek(max(0, size_bytes - SAMPLE_BYTES))
            digest.update(file.read(SAMPLE_BYTES))
    return digest.hexdigest()
