"""The stage: ask base, adapter and each GGUF the same test calls, measure, and put them side by side."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from llmft.dialogue import Dialogue
from llmft.engine import Engine
from llmft.engine.llama_model import load_gguf
from llmft.engine.torch_model import ADAPTER_WEIGHTS, load_adapter, load_base
from llmft.errors import CheckpointError
from llmft.evaluate.metrics import measure
from llmft.evaluate.predict import key_of, predict, read_predictions, read_test_calls, write_predictions
from llmft.evaluate.report import merge_metrics, print_report
from llmft.privacy import keep_private
from llmft.recipe import Recipe
from llmft.run import sha256


@dataclass(frozen=True)
class Candidate:
    """A model that can be asked: its name in the report, what it is made of, and how to load it."""

    name: str
    identity: dict[str, str]  # file ─▶ sha256
    load: Callable[[], Engine]


def evaluate(recipe: Recipe, models: Sequence[str] = (), *, threads: int | None = None) -> dict[str, Any]:
    """Measure ``models`` on the recipe's test calls, write and print the report, and return it.

    A model is ``base``, ``adapter`` or the path of a GGUF; none given: base, adapter and GGUF files, as far as
    they exist. ``threads`` None: what suits each engine. Raises :class:`CheckpointError` for a model that does
    not exist or load, and :class:`DialogueError` for unusable test calls.
    """
    keep_private(hub_allowed=not recipe.base_is_folder)
    test_path = Path(recipe.data.folder) / "test.jsonl"
    dialogues = read_test_calls(test_path, recipe.evaluate.max_dialogues)
    settings = {"system": recipe.data.system, "max_new_tokens": recipe.evaluate.max_new_tokens}
    test = {"file": str(test_path), "sha256": sha256(test_path), "dialogues": len(dialogues), **settings}
    report: dict[str, Any] = {}
    for candidate in [find_candidate(recipe, model, threads) for model in models or default_models(recipe)]:
        figures = _measure(recipe, candidate, dialogues, test)
        report = merge_metrics(recipe.run.evaluation_dir / "metrics.json", test, {candidate.name: figures})
    print_report(report, recipe.name)
    return report


def default_models(recipe: Recipe) -> list[str]:
    """Base, the adapter once it is trained, and every GGUF of the recipe's export folder."""
    adapter = ["adapter"] if (recipe.run.adapter_dir / ADAPTER_WEIGHTS).is_file() else []
    return ["base", *adapter, *map(str, recipe.exported)]


def find_candidate(recipe: Recipe, model: str, threads: int | None = None) -> Candidate:
    """The candidate that ``model`` means; nothing of it is loaded yet."""
    batch, context = recipe.evaluate.batch_dialogues, recipe.export.context_tokens
    base = str(Path(recipe.base).expanduser()) if recipe.base_is_folder else recipe.base
    if model == "base":
        identity = {**_base_identity(recipe), "template": recipe.template}
        return Candidate("base", identity, lambda: load_base(base, recipe.template, batch, threads))
    if model == "adapter":
        folder = recipe.run.adapter_dir
        return Candidate("adapter", _adapter_identity(recipe), lambda: load_adapter(base, folder, batch, threads))
    path = Path(model)
    if path.suffix != ".gguf" or not path.is_file():
        raise CheckpointError(f"model {model!r} is none of base, adapter and an existing .gguf file; make one with: llmft export")
    identity = {"file": sha256(path), "context_tokens": str(context)}
    return Candidate(path.name, identity, lambda: load_gguf(path, context_tokens=context, threads=threads))


def _measure(recipe: Recipe, candidate: Candidate, dialogues: Sequence[Dialogue], test: dict[str, Any]) -> dict[str, Any]:
    """The candidate's figures, from kept predictions where they still hold."""
    key = key_of(identity=candidate.identity, **{name: value for name, value in test.items() if name != "file"})
    path = recipe.run.evaluation_dir / f"predictions-{candidate.name}.jsonl"
    outcomes = read_predictions(path, key, [dialogue.id for dialogue in dialogues])
    if outcomes is None:
        outcomes = predict(candidate.load(), dialogues, test["system"], test["max_new_tokens"], candidate.name)
        write_predictions(path, key, outcomes)
    return {**asdict(measure(outcomes)), "key": key, "made_of": candidate.identity}


def _adapter_identity(recipe: Recipe) -> dict[str, str]:
    folder = recipe.run.adapter_dir
    if not (folder / ADAPTER_WEIGHTS).is_file():
        raise CheckpointError(f"{folder} holds no {ADAPTER_WEIGHTS}; train it with: llmft sft")
    names = (ADAPTER_WEIGHTS, "adapter_config.json", "tokenizer.json", "tokenizer_config.json", "chat_template.jinja")
    return {**_base_identity(recipe), **_digests(folder, names)}


def _base_identity(recipe: Recipe) -> dict[str, str]:
    """Digests of a base on this machine; of a hub id, its name and the commit that lies in the cache."""
    if not recipe.base_is_folder:
        return {"base": recipe.base, "commit": _cached_commit(recipe.base)}
    folder = Path(recipe.base).expanduser()
    weights = sorted(path.name for path in folder.glob("*.safetensors"))
    digests = _digests(folder, ("config.json", "tokenizer.json", *weights))
    return {f"base/{name}": digest for name, digest in digests.items()}


def _cached_commit(hub_id: str) -> str:
    from huggingface_hub import try_to_load_from_cache

    path = try_to_load_from_cache(hub_id, "config.json")
    return Path(path).parent.name if isinstance(path, str) else "not in the cache"


def _digests(folder: Path, names: Sequence[str]) -> dict[str, str]:
    return {name: sha256(folder / name) for name in names if (folder / name).is_file()}
