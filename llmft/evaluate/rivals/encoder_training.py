"""Fine-tune an encoder with transformers' ``Trainer``: one classifier of urgency, one of specialty.

The best checkpoint by macro-F1 on the validation calls is kept. ``encoder.json`` is written last: where it stands, both
classifiers are whole. A run that was stopped goes on from its last checkpoint.
"""

from __future__ import annotations

import shutil
from collections import Counter
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from llmft.dialogue import read_dialogues
from llmft.errors import CheckpointError, DialogueError
from llmft.evaluate.rivals.calls import Taught, taught
from llmft.evaluate.rivals.encoder_recipe import EncoderRecipe
from llmft.evaluate.rivals.floor import label_of
from llmft.privacy import keep_private
from llmft.run import manifest, sha256, write_json

FIELDS = ("urgency", "specialty")
WHOLE = "encoder.json"


def train_encoder(recipe: EncoderRecipe) -> dict[str, Any]:
    """Train both classifiers; returns what ``encoder.json`` holds: scores on the validation calls, truncation, hashes."""
    keep_private(hub_allowed=not recipe.base_is_folder)
    train_path = Path(recipe.data) / "train.jsonl"
    train, validation = (taught(read_dialogues(Path(recipe.data) / f"{split}.jsonl")) for split in ("train", "validation"))
    if not train.texts or not validation.texts:
        raise DialogueError(
            f"{recipe.data} needs labelled calls in train.jsonl and validation.jsonl; make them with: llmft prepare"
        )
    (recipe.folder / WHOLE).unlink(missing_ok=True)
    scores = {field: _train_field(recipe, field, train, validation) for field in FIELDS}
    facts = {
        **manifest(recipe=recipe.model_dump()),
        "train_sha256": sha256(train_path),
        "weights_sha256": {field: sha256(recipe.folder / field / "model.safetensors") for field in FIELDS},
        "validation": scores,
    }
    write_json(recipe.folder / WHOLE, facts)
    return facts


def _train_field(recipe: EncoderRecipe, field: str, train: Taught, validation: Taught) -> dict[str, Any]:
    """One classifier, saved in the run's folder under the field's name."""
    from transformers import DataCollatorWithPadding, Trainer, set_seed

    set_seed(recipe.seed)
    labels = sorted({label_of(truth, field) for truth in (*train.truths, *validation.truths)})
    tokenizer, model = _load(recipe, labels)
    rows, cut = _rows(tokenizer, recipe.max_tokens, train, field, labels)
    held_out, _ = _rows(tokenizer, recipe.max_tokens, validation, field, labels)
    folder = recipe.folder / field
    trainer = Trainer(
        model=model,
        args=_arguments(recipe, folder / "checkpoints"),
        train_dataset=rows,
        eval_dataset=held_out,
        processing_class=tokenizer,
        data_collator=DataCollatorWithPadding(tokenizer),
        compute_metrics=_scores,
        compute_loss_func=_weighted_loss(_weights(train, field, labels)) if recipe.class_weights else None,
    )
    resume = any((folder / "checkpoints").glob("checkpoint-*/trainer_state.json"))
    trainer.train(resume_from_checkpoint=resume)
    found = trainer.evaluate()
    trainer.save_model(str(folder))
    shutil.rmtree(folder / "checkpoints", ignore_errors=True)
    kept = {name: float(found[f"eval_{name}"]) for name in ("accuracy", "precision", "recall", "f1")}
    return {**kept, "calls": len(held_out), "cut_training_calls": cut}


def _load(recipe: EncoderRecipe, labels: Sequence[str]) -> tuple[Any, Any]:
    """Tokenizer and encoder with a new head for these labels."""
    from transformers import AutoModelForSequenceClassification, AutoTokenizer

    base = str(Path(recipe.base).expanduser()) if recipe.base_is_folder else recipe.base
    names = dict(enumerate(labels))
    try:
        tokenizer = AutoTokenizer.from_pretrained(base)
        model = AutoModelForSequenceClassification.from_pretrained(
            base, num_labels=len(labels), id2label=names, label2id={name: place for place, name in names.items()}
        )
    except (OSError, ValueError) as error:
        raise CheckpointError(
            f"encoder base {recipe.base!r} cannot be loaded ({type(error).__name__}); give a folder with "
            "config.json, weights and tokenizer, or download it with: hf download"
        ) from error
    return tokenizer, model


def _rows(tokenizer: Any, max_tokens: int, calls: Taught, field: str, labels: Sequence[str]) -> tuple[list[dict[str, Any]], int]:
    """Token ids with the label's number, and how many calls are longer than the encoder reads."""
    places = {name: place for place, name in enumerate(labels)}
    room = min(max_tokens, tokenizer.model_max_length)
    whole = tokenizer(list(calls.texts), truncation=False, verbose=False)["input_ids"]
    cut = sum(len(ids) > room for ids in whole)
    encoded = tokenizer(list(calls.texts), truncation=True, max_length=room)
    return [
        {"input_ids": ids, "attention_mask": mask, "labels": places[label_of(truth, field)]}
        for ids, mask, truth in zip(encoded["input_ids"], encoded["attention_mask"], calls.truths, strict=True)
    ], cut


def _arguments(recipe: EncoderRecipe, folder: Path) -> Any:
    from transformers import TrainingArguments

    return TrainingArguments(
        output_dir=str(folder),
        num_train_epochs=recipe.epochs,
        per_device_train_batch_size=recipe.batch_calls,
        per_device_eval_batch_size=2 * recipe.batch_calls,
        learning_rate=recipe.learning_rate,
        weight_decay=recipe.weight_decay,
        warmup_steps=recipe.warmup_fraction,
        eval_strategy="epoch",
        save_strategy="epoch",
        save_total_limit=1,
        load_best_model_at_end=True,
        metric_for_best_model="f1",
        greater_is_better=True,
        logging_steps=20,
        seed=recipe.seed,
        report_to=[],
        disable_tqdm=None,
    )


def _weights(train: Taught, field: str, labels: Sequence[str]) -> list[float]:
    """calls / (classes · calls of the class), scikit-learn's "balanced"; 1 for a class that training never sees."""
    counts = Counter(label_of(truth, field) for truth in train.truths)
    return [len(train.truths) / (len(labels) * counts[name]) if counts[name] else 1.0 for name in labels]


def _weighted_loss(weights: Sequence[float]) -> Callable[..., Any]:
    """Cross-entropy in which a rare class counts as much as a common one."""

    def loss(outputs: Any, labels: Any, num_items_in_batch: Any = None) -> Any:
        import torch

        return torch.nn.functional.cross_entropy(
            outputs["logits"], labels, weight=torch.tensor(weights, device=labels.device, dtype=outputs["logits"].dtype)
        )

    return loss


def _scores(found: Any) -> dict[str, float]:
    """Accuracy, and macro precision, recall and F1 over the classes that occur."""
    from sklearn.metrics import accuracy_score, precision_recall_fscore_support

    said, true = found.predictions.argmax(axis=-1), found.label_ids
    precision, recall, f1, _ = precision_recall_fscore_support(
        true, said, average="macro", labels=sorted(set(true.tolist())), zero_division=0
    )
    return {"accuracy": accuracy_score(true, said), "precision": precision, "recall": recall, "f1": f1}
