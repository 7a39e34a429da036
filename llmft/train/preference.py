"""After SFT: the adapter learns from judged answers, with TRL's DPO or KTO, held to what SFT has made of it.

The result is a run of its own, ``runs/<name>-preferred/``, whose adapter is exported as any other.
"""

from __future__ import annotations

import json
import warnings
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from llmft.errors import CheckpointError, DialogueError, PromptError, RecipeError
from llmft.preference import JudgedAnswer, read_judged
from llmft.privacy import keep_private
from llmft.prompt import IGNORE, Encoded, encode
from llmft.recipe import Recipe, with_values
from llmft.train.adapter import set_adapter_type
from llmft.train.arguments import preference_arguments
from llmft.train.checkpoints import is_done, last_checkpoint
from llmft.train.guard import gradient_guard
from llmft.train.machine import require_machine
from llmft.train.model import load_base, load_tokenizer
from llmft.train.opening import base_digest, open_run
from llmft.train.order import Order, plan_order
from llmft.train.processes import main_process, processes
from llmft.train.rows import Rows, record_refused
from llmft.train.running import ADAPTER_FILES, full_disk_in_words, publish_adapter, run_trainer, set_threads_and_seed
from llmft.train.tracking import require_tracker

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase, Trainer

WEIGHTS = ADAPTER_FILES[1]


@dataclass(frozen=True)
class Judged:
    """A prompt with answers: the better first for DPO, a single one for KTO."""

    id: str
    prompt_ids: list[int]
    answers: tuple[list[int], ...]  # each with the token that ends the turn
    good: bool  # KTO: whether the answer is wanted

    def as_row(self) -> Encoded:
        """All that the model reads and learns from, for the order and its sums."""
        ids = [token for answer in self.answers for token in (*self.prompt_ids, *answer)]
        labels = [label for answer in self.answers for label in (*[IGNORE] * len(self.prompt_ids), *answer)]
        return Encoded(self.id, ids, labels)


def prefer(recipe: Recipe, *, resume: bool = False, force: bool = False) -> Path:
    """Go on from the recipe's SFT adapter with its judged answers; returns the new adapter's folder.

    Raises :class:`CheckpointError` without a finished SFT run, or one on another base, and
    :class:`DialogueError` for judged answers that cannot be learnt from.
    """
    keep_private(hub_allowed=not recipe.base_is_folder)
    if recipe.prefer.file is None:
        raise RecipeError(f"recipe {recipe.name} has no prefer.file; name the JSONL of judged answers with prefer.file=")
    require_tracker(recipe)
    require_machine(recipe)
    start_dir = recipe.run.adapter_dir
    require_start(recipe, start_dir)
    judged = read_judged(Path(recipe.prefer.file))
    child = with_values(
        recipe,
        {"name": f"{recipe.name}-preferred", "train.keep": "last", "train.patience": None, "train.best_by": "validation_loss"},
    )
    inputs = {"judged": Path(recipe.prefer.file), "sft_adapter": start_dir / WEIGHTS}
    if open_run(child, resume=resume, force=force, inputs=inputs):
        return child.run.adapter_dir
    tokenizer = load_tokenizer(child)
    examples, refused = encode_judged(judged, tokenizer, child)
    if main_process():
        record_refused(child.run.root / "refused.jsonl", Rows([], refused, []))
    require_examples(child, examples, refused)
    order = _order(child, examples)
    with full_disk_in_words(child.run.root):
        last = last_checkpoint(child.run.checkpoints_dir)
        if last is None or not is_done(last, order.steps, None):
            set_threads_and_seed(child)
            rows = [example.as_row() for example in examples]
            guard = gradient_guard(child, rows, order, judged=True)
            run_trainer(_trainer(child, tokenizer, examples, order, start_dir), child, order, len(rows), guard, last)
        if main_process():
            newest = last_checkpoint(child.run.checkpoints_dir)
            assert newest is not None  # the trainer writes one after its last step
            counts = {"answers": len(examples), "refused": len(refused)}
            publish_adapter(child, newest, newest, tokenizer, order, judged=counts, method=child.prefer.method)
    return child.run.adapter_dir


def require_start(recipe: Recipe, adapter_dir: Path) -> None:
    """The SFT adapter must be there, and of this base."""
    if not all((adapter_dir / name).is_file() for name in ADAPTER_FILES):
        raise CheckpointError(f"{recipe.run.root} holds no finished adapter to go on from; train it with: llmft sft")
    try:
        made = json.loads(recipe.run.manifest_path.read_text("utf-8"))
    except (OSError, ValueError):
        raise CheckpointError(f"{recipe.run.manifest_path} cannot be read; train again with: llmft sft --force") from None
    digest = base_digest(recipe)
    if made.get("base_sha256") != digest or (digest is None and made.get("base") != recipe.base):
        raise CheckpointError(
            f"the adapter {adapter_dir} was trained on another base than {recipe.base}; train again with: llmft sft"
        )


def encode_judged(
    judged: Sequence[JudgedAnswer], tokenizer: PreTrainedTokenizerBase, recipe: Recipe
) -> tuple[list[Judged], list[tuple[str, str]]]:
    """What the method can learn from, and the ids of the rest with the reason; nothing is cut."""
    examples: list[Judged] = []
    refused: list[tuple[str, str]] = []
    for answer in judged:
        if recipe.prefer.method == "dpo" and answer.corrected is None:
            refused.append((answer.id, "no corrected answer, which dpo needs; prefer.method=kto learns from thumbs"))
            continue
        try:
            examples += _examples(answer, tokenizer, recipe)
        except PromptError as error:
            refused.append((answer.id, str(error)))
    return examples, refused


def _examples(judged: JudgedAnswer, tokenizer: PreTrainedTokenizerBase, recipe: Recipe) -> list[Judged]:
    prompt_ids, written = _encode_answer(judged, judged.answer, tokenizer, recipe)
    better = None if judged.corrected is None else _encode_answer(judged, judged.corrected, tokenizer, recipe)[1]
    if recipe.prefer.method == "dpo":
        assert better is not None
        return [Judged(judged.id, prompt_ids, (better, written), good=True)]
    found = [Judged(judged.id, prompt_ids, (written,), good=judged.thumb == "up")]
    return found if better is None else [*found, Judged(judged.id, prompt_ids, (better,), good=True)]


def _encode_answer(
    judged: JudgedAnswer, text: str, tokenizer: PreTrainedTokenizerBase, recipe: Recipe
) -> tuple[list[int], list[int]]:
    """Token ids of the call up to the answer, and of the answer with its end."""
    row = encode(judged.answered(text), tokenizer, recipe.data.system)
    if len(row.input_ids) > recipe.train.max_tokens:
        raise PromptError(f"{len(row.input_ids)} tokens, more than train.max_tokens = {recipe.train.max_tokens}")
    end = max(place for place, label in enumerate(row.labels) if label != IGNORE) + 1
    start = max((place for place in range(end) if row.labels[place] == IGNORE), default=-1) + 1
    return row.input_ids[:start], row.input_ids[start:end]


def require_examples(recipe: Recipe, examples: Sequence[Judged], refused: Sequence[tuple[str, str]]) -> None:
    """Stop where there is nothing to tell apart."""
    if not examples:
        raise DialogueError(f"all {len(refused)} judged answers were refused; the first: {refused[0][1]}")
    if recipe.prefer.method == "kto" and len({example.good for example in examples}) == 1:
        kind = "good" if examples[0].good else "bad"
        raise DialogueError(f"all {len(examples)} judged answers are {kind}, and kto learns from both kinds; judge more answers")


def _order(recipe: Recipe, examples: Sequence[Judged]) -> Order:
    batch = recipe.prefer.batch_answers * recipe.train.accumulate * processes().num_processes
    rows = [example.as_row() for example in examples]
    return plan_order(rows, batch=batch, epochs=recipe.prefer.epochs, max_steps=-1, seed=recipe.train.seed)


def _trainer(recipe: Recipe, tokenizer: Any, examples: Sequence[Judged], order: Order, start_dir: Path) -> Trainer:
    import torch
    from datasets import Dataset
    from peft import PeftModel
    from trl import DPOConfig, DPOTrainer, KTOConfig, KTOTrainer

    model = PeftModel.from_pretrained(load_base(recipe), str(start_dir), is_trainable=True)
    arguments = preference_arguments(recipe, order, gpu=torch.cuda.is_available())
    ordered = [examples[number] for number in order.rows]
    unused = {"prompt": ["-"], "chosen": ["-"], "rejected": ["-"]}  # TRL would render and cut by itself
    with warnings.catch_warnings(action="ignore", category=FutureWarning):
        if recipe.prefer.method == "dpo":
            columns = pair_columns(ordered)
            trainer: Any = DPOTrainer(
                model, args=DPOConfig(**arguments), train_dataset=Dataset.from_dict(unused), processing_class=tokenizer
            )
        else:
            columns = answer_columns(ordered, recipe.prefer.batch_answers)
            weights = kind_weights(examples)
            trainer = KTOTrainer(
                model, args=KTOConfig(**arguments, **weights), train_dataset=Dataset.from_dict(unused), processing_class=tokenizer
            )
    trainer.train_dataset = Dataset.from_dict(columns)
    set_adapter_type(trainer, recipe)
    _restore(trainer.model, start_dir)
    return trainer  # type: ignore[no-any-return]


def pair_columns(pairs: Sequence[Judged]) -> dict[str, list[list[int]]]:
    """Pairs in DPO's names."""
    return {
        "prompt_ids": [pair.prompt_ids for pair in pairs],
        "chosen_ids": [pair.answers[0] for pair in pairs],
        "rejected_ids": [pair.answers[1] for pair in pairs],
    }


def answer_columns(answers: Sequence[Judged], batch: int) -> dict[str, list[Any]]:
    """Answers in KTO's names; within a batch each prompt also has its neighbour's answer, from which KTO estimates the drift."""
    ids = [answer.answers[0] for answer in answers]
    batches = [ids[start : start + batch] for start in range(0, len(ids), batch)]
    return {
        "prompt_ids": [answer.prompt_ids for answer in answers],
        "completion_ids": ids,
        "KL_completion_ids": [members[number - 1] for members in batches for number in range(len(members))],
        "label": [answer.good for answer in answers],
    }


def kind_weights(answers: Sequence[Judged]) -> dict[str, float]:
    """Weights that let good and bad answers count alike in sum (arXiv 2402.01306, equation 8)."""
    good = sum(answer.good for answer in answers)
    bad = len(answers) - good
    return {"desirable_weight": max(1.0, bad / good), "undesirable_weight": max(1.0, good / bad)}


def _restore(model: Any, adapter_dir: Path) -> None:
    """SFT's weights in full, for the adapter and for the copy that it is held to: TRL has rounded both to bfloat16."""
    import torch
    from peft import set_peft_model_state_dict
    from safetensors.torch import load_file

    weights = load_file(adapter_dir / WEIGHTS)
    types = {name.replace(".default", ""): p.dtype for name, p in model.named_parameters() if ".default" in name}
    for name, parameter in model.named_parameters():
        if ".ref" in name and parameter.dtype != types[name.replace(".ref", "")]:
            parameter.data = parameter.data.to(types[name.replace(".ref", "")])
    with torch.no_grad():
        for adapter in ("default", "ref"):
            set_peft_model_state_dict(model, dict(weights), adapter_name=adapter)
