"""The models that can be asked: what each is made of, and how it is loaded."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from itertools import islice
from pathlib import Path

from llmft.dialogue import Dialogue, scan_dialogues
from llmft.engine import Engine
from llmft.engine.remote import open_remote
from llmft.engine.side_by_side import open_side_by_side
from llmft.engine.torch_model import ADAPTER_WEIGHTS, load_adapter, load_base
from llmft.engine.triage_grammar import triage_grammar
from llmft.errors import CheckpointError
from llmft.recipe import Recipe
from llmft.run import sha256

TAUGHT_ANSWERS = 200  # more of them take as long to learn as they save
HELD = "+grammar"  # behind a .gguf: its answers are held to the triage grammar


@dataclass(frozen=True)
class Candidate:
    """A model that can be asked: its name in the report, what it is made of, and how to load it."""

    name: str
    identity: dict[str, str]  # what it is made of: file ─▶ sha256, and what else its answers depend on
    load: Callable[[], Engine]


def default_models(recipe: Recipe) -> list[str]:
    """Base, the adapter once it is trained, and every GGUF of the recipe's export folder."""
    adapter = ["adapter"] if (recipe.run.adapter_dir / ADAPTER_WEIGHTS).is_file() else []
    return ["base", *adapter, *map(str, recipe.exported)]


def find_candidates(recipe: Recipe, models: Sequence[str], threads: int | None = None) -> list[Candidate]:
    """The candidates that ``models`` mean, each once; raises :class:`CheckpointError` where two would have one name."""
    found: dict[str, Candidate] = {}
    for model in models:
        candidate = find_candidate(recipe, model, threads)
        if found.setdefault(candidate.name, candidate).identity != candidate.identity:
            raise CheckpointError(
                f"model {model!r} and another one are both called {candidate.name}; rename a file, or evaluate it in a run of "
                "its own with name=…"
            )
    return list(found.values())


def is_still(recipe: Recipe, name: str, made_of: Mapping[str, str]) -> bool:
    """Whether the model that was called ``name`` is what it was; one that is gone, or lies elsewhere, is taken at its word."""
    places = {path.name + held: f"{path}{held}" for path in recipe.exported for held in ("", HELD)}
    model = places.get(name, name if name in ("base", "adapter") else None)
    try:
        return model is None or find_candidate(recipe, model).identity == dict(made_of)
    except CheckpointError:  # it is gone
        return True


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
    if model.startswith(("http://", "https://")):
        return Candidate(_file_name(model), {"url": model}, lambda: open_remote(model))
    path, is_held = Path(model.removesuffix(HELD)), model.endswith(HELD)
    if path.suffix != ".gguf" or not path.is_file():
        raise CheckpointError(
            f"model {model!r} is none of base, adapter, an existing .gguf file and a server's URL; make one with: llmft export"
        )
    grammar = triage_grammar() if is_held else None
    identity = {"file": sha256(path), "context_tokens": str(context), **({"grammar": grammar} if grammar else {})}
    name = path.name + (HELD if is_held else "")

    def load() -> Engine:
        engine = open_side_by_side(path, context_tokens=context, slots=batch, threads=threads, grammar=grammar)
        engine.teach(trained_answers(Path(recipe.data.folder) / "train.jsonl"))
        return engine

    return Candidate(name, identity, load)


def trained_answers(path: Path) -> list[str]:
    """Last answers of some training calls, from which guesses are made; none where there is no such file."""
    if not path.is_file():
        return []
    calls = (call for call in scan_dialogues(path) if isinstance(call, Dialogue))
    return [call.turns[-1].text for call in islice(calls, TAUGHT_ANSWERS)]


def _file_name(url: str) -> str:
    """A URL as the name of its column and of its files."""
    return re.sub(r"[^\w.-]+", "_", url.partition("://")[2]).strip("_")


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
