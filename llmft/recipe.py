"""Recipe: every choice of a run in one strict, frozen, typed YAML file.

Precedence: default < recipe < ``key=value`` on the command line. An unknown key, a wrong type or a
contradiction is an error; all of them are reported at once, with their lines. What cannot be exported
is refused when the recipe is loaded, not after hours of training.
"""

from __future__ import annotations

import difflib
import json
import re
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Annotated, Any, Literal

import yaml
from pydantic import BaseModel, ConfigDict, Field, ValidationError

from llmft.errors import RecipeError
from llmft.run import RunFolder, write_text

Quant = Literal["F16", "Q8_0", "Q4_0", "Q4_K_M"]
ARCHITECTURES = {"LlamaForCausalLM": "llama3", "GPTJForCausalLM": "gptj"}  # what export can write ─▶ its template
Positive = Annotated[int, Field(ge=1)]
Fraction = Annotated[float, Field(ge=0.0, le=1.0)]


class Section(BaseModel):
    """Unknown keys are errors, types are not converted, values never change."""

    model_config = ConfigDict(extra="forbid", frozen=True, strict=True)


class Data(Section):
    """What to train and evaluate on."""

    folder: str = Field(description="prepared folder with train.jsonl, validation.jsonl and test.jsonl")
    system: str | None = Field(
        default="Assistant de triage d'un centre d'appels médical.", description="system message; null for none"
    )


class Lora(Section):
    """The adapter."""

    rank: Positive = Field(default=16, description="rank of the two low-rank matrices")
    alpha: Positive = Field(default=32, description="scale of the update: alpha / rank")
    dropout: Fraction = Field(default=0.0, description="dropout on the adapter's input, 0 to 1")


class Train(Section):
    """The optimisation."""

    quantization: Literal["nf4", "none"] = Field(default="nf4", description="how the frozen base is held: nf4 (QLoRA) or none")
    epochs: Annotated[float, Field(gt=0)] = Field(default=1.0, description="passes over the training dialogues")
    max_steps: int = Field(default=-1, ge=-1, description="optimiser steps; -1: as many as the epochs need")
    batch_dialogues: Positive = Field(default=8, description="dialogues in one forward pass")
    accumulate: Positive = Field(default=1, description="forward passes in one optimiser step")
    learning_rate: Annotated[float, Field(gt=0, lt=1)] = Field(default=2e-4, description="peak learning rate")
    schedule: Literal["linear", "cosine", "constant"] = Field(default="cosine", description="learning rate after the warm-up")
    warmup_fraction: Fraction = Field(default=0.03, description="share of the steps with a rising learning rate")
    weight_decay: Annotated[float, Field(ge=0)] = Field(default=0.0, description="AdamW's weight decay")
    max_grad_norm: Annotated[float, Field(gt=0)] = Field(default=1.0, description="gradients are clipped to this norm")
    max_tokens: Positive = Field(default=1024, description="longest dialogue in tokens; longer ones are refused and counted")
    gradient_checkpointing: bool = Field(default=False, description="trade a third of the speed for memory")
    save_every: Positive = Field(default=50, description="steps between checkpoints")
    validate_every: Positive = Field(default=50, description="steps between validation losses")
    seed: int = Field(default=1, ge=0, description="seed of the adapter, the data order and dropout")
    threads: int = Field(default=0, ge=0, description="CPU threads; 0: all cores")


class Evaluate(Section):
    """The measurement."""

    max_dialogues: Positive = Field(default=200, description="test dialogues, taken evenly from the test file")
    max_new_tokens: Positive = Field(default=320, description="longest answer in tokens; longer counts as a failure")
    batch_dialogues: Positive = Field(default=16, description="dialogues answered at once by transformers")


class Export(Section):
    """The files to make."""

    quants: tuple[Quant, ...] = Field(default=("F16", "Q8_0", "Q4_0", "Q4_K_M"), description="quants to write")
    context_tokens: Positive = Field(default=2048, description="context that the runtimes are asked to open, in tokens")


class Recipe(Section):
    """One model, one method, one set of dialogues."""

    name: str = Field(pattern=r"^[a-z0-9][a-z0-9.-]*$", description="name of runs/<name>/ and export/<name>/")
    base: str = Field(description="folder with config.json and safetensors, or a hub id such as meta-llama/Llama-3.1-8B")
    template: Literal["llama3", "gptj"] = Field(description="chat markup: one of llmft/templates/")
    data: Data
    lora: Lora = Lora()
    train: Train = Train()
    evaluate: Evaluate = Evaluate()
    export: Export = Export()

    @property
    def run(self) -> RunFolder:
        """Where the run lies."""
        return RunFolder(Path("runs") / self.name)

    @property
    def export_dir(self) -> Path:
        """Where the GGUF files lie."""
        return Path("export") / self.name

    @property
    def base_is_folder(self) -> bool:
        """Whether ``base`` is on this machine; otherwise it is a hub id, and the hub may be asked."""
        return Path(self.base).is_dir() or self.base.startswith((".", "/", "data/", "~"))


def load_recipe(path: Path, overrides: Sequence[str] = ()) -> Recipe:
    """The recipe of ``path`` with ``key=value`` overrides such as ``train.learning_rate=1e-4``.

    Raises :class:`RecipeError` with every fault at once.
    """
    values, lines = _read_yaml(path)
    for override in overrides:
        _apply(values, override)
    try:
        recipe = Recipe.model_validate_json(json.dumps(values))
    except ValidationError as error:
        raise RecipeError("\n".join(_faults(path, error, lines))) from None
    except (TypeError, ValueError) as error:
        raise RecipeError(f"{path}: a value is not a plain number, text, list or null ({error})") from None
    _check_exportable(path, recipe)
    return recipe


def save_recipe(recipe: Recipe, path: Path) -> None:
    """Write the resolved recipe, every default spelled out."""
    values = json.loads(recipe.model_dump_json())
    write_text(path, yaml.safe_dump(values, sort_keys=False, allow_unicode=True, width=120))


class _Loader(yaml.SafeLoader):
    """Safe YAML in which ``2e-4`` is a number, as in YAML 1.2, and a repeated key is an error."""

    def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict[Any, Any]:
        keys = [self.construct_object(key, deep=True) for key, _ in node.value]
        repeated = next((key for number, key in enumerate(keys) if key in keys[:number]), None)
        if repeated is not None:
            raise yaml.MarkedYAMLError(problem=f"key {str(repeated)!r} appears twice", problem_mark=node.start_mark)
        return super().construct_mapping(node, deep=deep)


_FLOAT = re.compile(r"^[-+]?(\.[0-9]+|[0-9]+(\.[0-9]*)?)([eE][-+]?[0-9]+)$")
_Loader.add_implicit_resolver("tag:yaml.org,2002:float", _FLOAT, list("-+0123456789."))


def _read_yaml(path: Path) -> tuple[dict[str, Any], dict[str, int]]:
    """The file's values, and the line of each dotted key."""
    try:
        text = path.read_text("utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise RecipeError(f"recipe {path} cannot be read: {error}; the bundled ones lie in recipes/") from None
    try:
        values = yaml.load(text, _Loader)
        node = yaml.compose(text, yaml.SafeLoader)
    except yaml.MarkedYAMLError as error:
        line = error.problem_mark.line + 1 if error.problem_mark else 1
        raise RecipeError(f"{path}:{line}: not YAML: {error.problem}") from None
    except yaml.YAMLError as error:
        raise RecipeError(f"{path}: not YAML: {error}") from None
    if not isinstance(values, dict):
        raise RecipeError(f"{path}: a recipe is a mapping of keys to values; see recipes/demo-llama.yaml")
    return values, dict(_key_lines(node, ""))


def _key_lines(node: Any, prefix: str) -> Iterator[tuple[str, int]]:
    if isinstance(node, yaml.MappingNode):
        for key, value in node.value:
            name = f"{prefix}{key.value}"
            yield name, key.start_mark.line + 1
            yield from _key_lines(value, f"{name}.")


def _apply(values: dict[str, Any], override: str) -> None:
    """Set one dotted key; the value is read as YAML."""
    key, equals, text = override.partition("=")
    if not equals or not key:
        raise RecipeError(f"override {override!r} is not of the form key=value, such as train.learning_rate=1e-4")
    *sections, last = key.split(".")
    for section in sections:
        nested = values.setdefault(section, {})
        if not isinstance(nested, dict):
            raise RecipeError(f"override {override!r}: {section!r} is no section of the recipe")
        values = nested
    try:
        values[last] = yaml.load(text, _Loader)
    except yaml.YAMLError:
        raise RecipeError(f"override {override!r}: the value is not YAML") from None


def _faults(path: Path, error: ValidationError, lines: dict[str, int]) -> Iterator[str]:
    for fault in error.errors(include_url=False):
        key = ".".join(str(part) for part in fault["loc"])
        place = f"{path}:{lines[key]}" if key in lines else f"{path}"
        if fault["type"] == "extra_forbidden":
            yield f"{place}: unknown key {key!r}{_did_you_mean(fault['loc'])}"
        elif fault["type"] == "missing":
            yield f"{place}: key {key!r} is missing; {_description(fault['loc'])}"
        else:
            yield f"{place}: {key} = {fault['input']!r}: {fault['msg'][0].lower()}{fault['msg'][1:]}"


def _did_you_mean(location: tuple[int | str, ...]) -> str:
    *sections, last = (str(part) for part in location)
    known = [".".join([*sections, name]) for name in _section(sections).model_fields]
    close = difflib.get_close_matches(".".join([*sections, last]), known, n=1)
    return f"; did you mean {close[0].rsplit('.', 1)[-1]!r}?" if close else f"; known keys: {', '.join(known)}"


def _description(location: tuple[int | str, ...]) -> str:
    *sections, last = (str(part) for part in location)
    return _section(sections).model_fields[last].description or "see recipes/demo-llama.yaml"


def _section(names: list[str]) -> type[BaseModel]:
    model: type[BaseModel] = Recipe
    for name in names:
        annotation = model.model_fields[name].annotation
        assert isinstance(annotation, type) and issubclass(annotation, BaseModel)
        model = annotation
    return model


def _check_exportable(path: Path, recipe: Recipe) -> None:
    """A base on this machine must be of an architecture and a family that export can write."""
    if not recipe.base_is_folder:
        return
    config = Path(recipe.base).expanduser() / "config.json"
    try:
        architectures = json.loads(config.read_text("utf-8")).get("architectures") or ["(none)"]
    except (OSError, ValueError, AttributeError):
        raise RecipeError(
            f"{path}: base = {recipe.base!r} holds no readable config.json; make the embedded one with: make base"
        ) from None
    template = ARCHITECTURES.get(architectures[0])
    if template is None:
        raise RecipeError(
            f"{path}: base = {recipe.base!r} is a {architectures[0]}, which cannot be exported; "
            f"choose one of {', '.join(ARCHITECTURES)}"
        )
    if template != recipe.template:
        raise RecipeError(f"{path}: template = {recipe.template!r} does not fit a {architectures[0]}; use {template!r}")
