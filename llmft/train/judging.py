"""A triage metric in the middle of a training: the model as it is answers validation calls, and a judge measures its answers.

The judge is handed in, for measuring answers is evaluation's business and stages do not know each other.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from functools import partial
from typing import TYPE_CHECKING, Any

from llmft.dialogue import Dialogue
from llmft.engine import Answer, Engine
from llmft.engine.torch_model import TorchModel
from llmft.errors import DialogueError, TrainingError
from llmft.prompt import Message
from llmft.recipe import Recipe
from llmft.train.kernels.attention import as_for_padded_rows
from llmft.train.processes import main_process
from llmft.train.progress import aside
from llmft.train.rows import known_answer

if TYPE_CHECKING:
    from trl import SFTTrainer

Judge = Callable[
    [Engine, Sequence[Dialogue]], Mapping[str, float | None]
]  # triage metrics by name; None: these calls cannot tell
Judging = Callable[["SFTTrainer", Any], Any]  # trainer and its bar ─▶ callback


def answered_calls(recipe: Recipe, dialogues: Sequence[Dialogue], judge: Judge | None) -> list[Dialogue]:
    """The validation calls that are answered, taken evenly from those with labels; none when only the loss counts.

    Raises :class:`DialogueError` when the metric cannot be measured on them.
    """
    metric = recipe.train.best_by
    if metric == "validation_loss":
        return []
    if judge is None:
        raise TrainingError(f"train.best_by = {metric} needs a judge; train with the command llmft sft")
    labelled = [dialogue for dialogue in dialogues if known_answer(dialogue) is not None]
    count = min(recipe.train.answered_dialogues, len(labelled))
    calls = [labelled[number * len(labelled) // count] for number in range(count)]
    if not calls or judge(_Silence(), calls).get(metric) is None:
        raise DialogueError(
            f"train.best_by = {metric} cannot be measured on the {count} labelled validation calls of {recipe.data.folder}; "
            "prepare calls of all kinds, raise train.answered_dialogues, or use train.best_by=validation_loss"
        )
    return calls


def add_metrics(recipe: Recipe, tokenizer: Any, dialogues: Sequence[Dialogue], judge: Judge | None) -> Judging | None:
    """What makes the callback of a trainer that has a bar; None when only the loss counts.

    Errors as for :func:`answered_calls`, before anything is trained.
    """
    calls = answered_calls(recipe, dialogues, judge)
    return partial(_callback, recipe, tokenizer, calls, judge) if calls and judge is not None else None


def _callback(recipe: Recipe, tokenizer: Any, calls: Sequence[Dialogue], judge: Judge, trainer: SFTTrainer, bar: Any) -> Any:
    """Adds the judge's metrics to those of each validation, under the trainer's kind of names."""
    from accelerate.utils import broadcast_object_list
    from transformers import TrainerCallback

    class Answered(TrainerCallback):
        """The metrics are in the same dictionary from which the trainer takes the best, and in the log."""

        def on_evaluate(self, args: Any, state: Any, control: Any, metrics: dict[str, float], **_: Any) -> None:
            """One process asks and measures; all must come to the same decision."""
            found: list[dict[str, float]] = [{}]
            if main_process():
                with aside(bar), answering(trainer, tokenizer, recipe) as engine:
                    told = judge(engine, calls)
                found = [{f"eval_{name}": round(value, 6) for name, value in told.items() if value is not None}]
            broadcast_object_list(found)
            metrics.update(found[0])
            trainer.log(dict(found[0]))

    return Answered()


@contextmanager
def answering(trainer: SFTTrainer, tokenizer: Any, recipe: Recipe) -> Iterator[TorchModel]:
    """The model in training as an engine that answers, for as long as the block runs."""
    import torch
    from transformers import GenerationConfig

    model = trainer.accelerator.unwrap_model(trainer.model).get_base_model()
    model.eval()
    model.generation_config = GenerationConfig(use_cache=True)  # the base's own may sample or punish what is repeated
    with as_for_padded_rows(model), torch.autocast(model.device.type, torch.bfloat16):
        yield TorchModel(model, tokenizer, recipe.evaluate.batch_dialogues)


class _Silence:
    """An engine that never answers: what can be measured at all is measured on its answers too."""

    def answers(self, conversations: Sequence[Sequence[Message]], max_new_tokens: int) -> Iterator[tuple[int, Answer]]:
        """See :class:`llmft.engine.Engine`."""
        for number in range(len(conversations)):
            yield number, Answer("", False, 0.0)
