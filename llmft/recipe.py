"""Recipe: every choice of a run in one strict, frozen, typed YAML file.

Precedence: default < recipe < ``key=value`` on the command line. An unknown key, a wrong type or a
contradiction is an error; all of them are reported at once, with their lines. What cannot be exported
is refused when the recipe is loaded, not after hours of training.
"""

from __future__ import annotations

import difflib
import json
import re
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, Literal, Self, get_args

import yaml
from pydantic import BaseModel, Field, ValidationError, model_validator

from llmft.errors import RecipeError
from llmft.run import RunFolder, write_text
from llmft.settings import Data, Evaluate, Export, Lora, Prefer, Search, Section, Train

ARCHITECTURES = {  # what can be trained and exported ─▶ the templates of its families
    "LlamaForCausalLM": ("llama2", "llama3", "tinyllama"),
    "MistralForCausalLM": ("mistral",),
    "Qwen2ForCausalLM": ("qwen",),
    "Qwen3ForCausalLM": ("qwen",),
    "Phi3ForCausalLM": ("phi3", "phi4"),
    "Gemma2ForCausalLM": ("gemma",),
    "Gemma3ForCausalLM": ("gemma",),
    "GPTJForCausalLM": ("gptj",),
}

BEYOND_GPT4ALL = ("Qwen3ForCausalLM", "Gemma3ForCausalLM")  # newer than its last release
GEMMA2_LAYERS = (26, 42, 46)  # for others GPT4All does not know how to scale the queries, and aborts


class Recipe(Section):
    """One model, one method, one set of dialogues."""

    name: str = Field(pattern=r"^[a-z0-9][a-z0-9.-]*$", description="name of runs/<name>/ and export/<name>/")
    base: str = Field(description="folder with config.json and safetensors, or a hub id such as meta-llama/Llama-3.1-8B")
    template: Literal["llama2", "llama3", "tinyllama", "mistral", "qwen", "phi3", "phi4", "gemma", "gptj"] = Field(
        description="chat markup: one of llmft/templates/"
    )
    data: Data
    lora: Lora = Lora()
    train: Train = Train()
    search: Search = Search()
    prefer: Prefer = Prefer()
    evaluate: Evaluate = Evaluate()
    export: Export = Export()
    runs: str = Field(default="runs", description="folder that holds the runs")

    @model_validator(mode="after")
    def _no_contradiction(self) -> Self:
        if self.export.merge_base == "nf4" and self.train.quantization == "none" and self.train.fit == "off":
            raise ValueError(
                "export.merge_base = nf4 merges into weights as training saw them in NF4, and train.quantization = none shows it "
                "none of those; set export.merge_base=original or train.quantization=nf4"
            )
        return self

    @property
    def run(self) -> RunFolder:
        """Where the run lies."""
        return RunFolder(Path(self.runs) / self.name)

    @property
    def export_dir(self) -> Path:
        """Where the GGUF files lie."""
        return Path("export") / self.name

    @property
    def exported(self) -> list[Path]:
        """The model files of the export folder, not the importance matrix beside them."""
        return sorted(self.export_dir.glob(f"{self.name}-*.gguf"))

    @property
    def base_is_folder(self) -> bool:
        """Whether ``base`` is on this machine; otherwise it is a hub id, and the hub may be asked."""
        return Path(self.base).is_dir() or self.base.startswith((".", "/", "data/", "~"))


def load_recipe(path: Path, overrides: Sequence[str] = ()) -> Recipe:
    """The recipe of ``path`` with ``key=value`` overrides such as ``train.learning_rate=1e-4``.

    Raises :class:`RecipeError` with every fault at once.
    """
    values, lines = read_yaml(path)
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


def with_values(recipe: Recipe, values: Mapping[str, Any]) -> Recipe:
    """``recipe`` with other values of dotted fields; raises :class:`RecipeError` for values that it does not allow."""
    changed = json.loads(recipe.model_dump_json())
    for key, value in values.items():
        *sections, last = key.split(".")
        place = changed
        for section in sections:
            place = place.get(section) if isinstance(place, dict) else None
        if not isinstance(place, dict) or last not in place:
            raise RecipeError(f"a recipe has no field {key!r}; write it as train.learning_rate or lora.rank")
        place[last] = value
    try:
        return Recipe.model_validate_json(json.dumps(changed))
    except ValidationError as error:
        raise RecipeError("\n".join(_faults(Path(f"recipe {recipe.name}"), error, {}))) from None


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


def read_yaml(path: Path) -> tuple[dict[str, Any], dict[str, int]]:
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
        elif fault["type"] == "value_error":  # a rule of the section's own: its whole value says nothing
            yield f"{place}: {key}{': ' if key else ''}{fault['ctx']['error']}"
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
        if name in model.model_fields:  # otherwise a key of a mapping, whose values are of the model found before
            annotation = model.model_fields[name].annotation
            model = next(
                part for part in (annotation, *get_args(annotation)) if isinstance(part, type) and issubclass(part, BaseModel)
            )
    return model


def _check_exportable(path: Path, recipe: Recipe) -> None:
    """A base on this machine must be of an architecture and a family that export can write."""
    if not recipe.base_is_folder:
        return
    config = Path(recipe.base).expanduser() / "config.json"
    try:
        settings = json.loads(config.read_text("utf-8"))
        architecture, layers = (settings.get("architectures") or ["(none)"])[0], settings.get("num_hidden_layers")
    except (OSError, ValueError, AttributeError):
        raise RecipeError(
            f"{path}: base = {recipe.base!r} holds no readable config.json; make the embedded one with: make base"
        ) from None
    require_template(f"{path}: ", recipe, architecture)
    if recipe.export.profile == "gpt4all" and architecture == "Gemma2ForCausalLM" and layers not in GEMMA2_LAYERS:
        raise RecipeError(
            f"{path}: export.profile = 'gpt4all': GPT4All desktop 3.10 aborts on a Gemma 2 of {layers} layers "
            "(it runs 26, 42 and 46); set export.profile to llama.cpp or choose another base"
        )


def require_template(place: str, recipe: Recipe, architecture: str) -> None:
    """Refuse a base of an ``architecture`` that cannot be exported, and a template of another family's."""
    templates = ARCHITECTURES.get(architecture)
    if templates is None:
        raise RecipeError(
            f"{place}base = {recipe.base!r} is a {architecture}, which cannot be exported; "
            f"choose one of {', '.join(ARCHITECTURES)}"
        )
    if recipe.export.profile == "gpt4all" and architecture in BEYOND_GPT4ALL:
        raise RecipeError(
            f"{place}export.profile = 'gpt4all': GPT4All desktop 3.10, the last one, cannot run a {architecture}; "
            "set export.profile to llama.cpp or choose another base"
        )
    if recipe.template not in templates:
        fitting = " or ".join(map(repr, templates))
        raise RecipeError(f"{place}template = {recipe.template!r} does not fit a {architecture}; use {fitting}")
