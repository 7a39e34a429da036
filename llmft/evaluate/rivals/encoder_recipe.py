"""The recipe of an encoder classifier: strict, frozen, defaults included; ``recipes/encoders/*.yaml``."""

from __future__ import annotations

from pathlib import Path
from typing import TypeVar

from pydantic import BaseModel, Field, ValidationError

from llmft.dialogue import fault_of
from llmft.errors import RecipeError
from llmft.knowledge import Strict
from llmft.recipe import read_yaml

Model = TypeVar("Model", bound=BaseModel)


class EncoderRecipe(Strict):
    """An encoder that is fine-tuned twice: to tell the urgency of a call, and its specialty."""

    name: str = Field(pattern=r"^[a-z0-9][a-z0-9.-]*$", description="name of runs/<name>/")
    base: str = Field(description="folder of a checkpoint, or a hub id such as almanach/camembert-base")
    data: str = Field(description="prepared folder with train.jsonl, validation.jsonl and test.jsonl")
    max_tokens: int = Field(
        default=512, ge=8, description="longest call in tokens; the end of a longer one is not read, and counted"
    )
    epochs: float = Field(default=4.0, gt=0, description="passes over the training calls")
    batch_calls: int = Field(default=16, ge=1, description="calls in one optimiser step")
    learning_rate: float = Field(default=3e-5, gt=0, lt=1, description="peak learning rate")
    weight_decay: float = Field(default=0.01, ge=0, description="AdamW's weight decay")
    warmup_fraction: float = Field(default=0.1, ge=0, le=1, description="share of the steps with a rising learning rate")
    class_weights: bool = Field(default=True, description="weigh each class by how rare it is among the training calls")
    seed: int = Field(default=1, ge=0, description="seed of the new layer and of the data order")
    runs: str = Field(default="runs", description="folder that holds the runs")

    @property
    def folder(self) -> Path:
        """Where the classifiers lie."""
        return Path(self.runs) / self.name

    @property
    def base_is_folder(self) -> bool:
        """Whether the base is on this machine; otherwise it is a hub id."""
        return Path(self.base).is_dir() or self.base.startswith((".", "/", "data/", "~"))


def read_strict(path: Path, model: type[Model]) -> Model:
    """A YAML file as a strict model; raises :class:`RecipeError` with file, line and field of the first fault."""
    values, lines = read_yaml(path)
    try:
        return model.model_validate(values)
    except ValidationError as error:
        fault = fault_of(error, str(path), 0)
        line = next((number for key, number in lines.items() if key == fault.field), None)
        place = f"{path}:{line}" if line else f"{path}"
        raise RecipeError(f"{place}: {fault.field}: {fault.reason}; known keys: {', '.join(model.model_fields)}") from None
