"""An encoder made here, trained on a few calls with transformers' Trainer, and its answers as a rival."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from tiny_engine import dialogues

from llmft.cli import main
from llmft.dialogue import Dialogue, write_dialogues
from llmft.errors import DialogueError
from llmft.evaluate.rivals.calls import taught, text_of
from llmft.evaluate.rivals.encoder import encoders_of
from llmft.evaluate.rivals.encoder_recipe import EncoderRecipe
from llmft.evaluate.rivals.encoder_training import _weighted_loss, _weights, train_encoder
from llmft.evaluate.truth import gold_verdict
from llmft.run import sha256


def tiny_encoder(folder: Path, texts: list[str]) -> Path:
    """A BERT of one layer with random weights that knows the words of ``texts``."""
    import torch
    from tokenizers import Tokenizer
    from tokenizers.models import WordLevel
    from tokenizers.pre_tokenizers import Whitespace
    from tokenizers.processors import TemplateProcessing
    from transformers import BertConfig, BertModel, PreTrainedTokenizerFast

    words = sorted({word for text in texts for word, _ in Whitespace().pre_tokenize_str(text)})
    vocabulary = {word: number for number, word in enumerate(["[PAD]", "[UNK]", "[CLS]", "[SEP]", *words])}
    tokenizer = Tokenizer(WordLevel(vocabulary, unk_token="[UNK]"))
    tokenizer.pre_tokenizer = Whitespace()
    tokenizer.post_processor = TemplateProcessing(single="[CLS] $A [SEP]", special_tokens=[("[CLS]", 2), ("[SEP]", 3)])
    special = {"pad_token": "[PAD]", "unk_token": "[UNK]", "cls_token": "[CLS]", "sep_token": "[SEP]"}
    PreTrainedTokenizerFast(tokenizer_object=tokenizer, model_max_length=64, **special).save_pretrained(folder)
    torch.manual_seed(0)
    shape = BertConfig(
        vocab_size=len(vocabulary), hidden_size=32, num_hidden_layers=1, num_attention_heads=2, intermediate_size=64,
        max_position_embeddings=64, initializer_range=0.3, hidden_dropout_prob=0.0, attention_probs_dropout_prob=0.0,
    )  # fmt: skip
    BertModel(shape).save_pretrained(folder)
    return folder


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, dict[str, Any], list[Dialogue]]:
    folder = tmp_path_factory.mktemp("encoder")
    calls = dialogues()
    many = [call.model_copy(update={"id": f"{call.id}{n}"}) for n in range(6) for call in calls]
    write_dialogues(folder / "calls/train.jsonl", many)
    write_dialogues(folder / "calls/validation.jsonl", calls)
    base = tiny_encoder(folder / "base", [text_of(call) for call in calls])
    recipe = folder / "recipe.yaml"
    recipe.write_text(
        f"name: encoder-tiny\nbase: {base}\ndata: {folder / 'calls'}\nruns: {folder / 'runs'}\n"
        "epochs: 10\nbatch_calls: 6\nlearning_rate: 1e-2\nmax_tokens: 8\n"
    )
    assert main(["encoder", str(recipe)]) == 0
    return folder, json.loads((folder / "runs/encoder-tiny/encoder.json").read_text()), calls


def test_encoder_learns_both_labels_and_keeps_the_best_checkpoint(trained: Any) -> None:
    folder, facts, _ = trained
    for field in ("urgency", "specialty"):
        assert [facts["validation"][field][name] for name in ("accuracy", "precision", "recall", "f1")] == [1.0] * 4
        assert facts["validation"][field]["cut_training_calls"] > 0  # max_tokens is 8: counted, not silent
        assert {path.name for path in (folder / "runs/encoder-tiny" / field).iterdir()} >= {"model.safetensors", "tokenizer.json"}
        assert not (folder / "runs/encoder-tiny" / field / "checkpoints").exists()


def test_trained_encoder_is_a_rival_on_its_own_set_alone(trained: Any) -> None:
    folder, facts, calls = trained
    [(name, weights, load)] = list(encoders_of(folder / "runs", folder / "calls/train.jsonl"))
    assert name == "encoder-tiny" and weights == facts["weights_sha256"]
    pairs = [(call, truth) for call in calls if (truth := gold_verdict(call)) is not None]
    found = load()(pairs)
    assert [(p.predicted.urgency, p.predicted.specialty) for p in found if p.predicted] == [
        (gold.urgency, gold.specialty) for _, gold in pairs
    ]
    assert all(sum((p.urgency_probabilities or {}).values()) == pytest.approx(1, abs=1e-5) for p in found)
    assert weights["urgency"] == sha256(folder / "runs/encoder-tiny/urgency/model.safetensors")
    assert list(encoders_of(folder / "runs", folder / "calls/validation.jsonl")) == []


def test_class_weights_are_scikit_learns_and_weigh_the_loss() -> None:
    import torch
    from sklearn.utils.class_weight import compute_class_weight

    train = taught([*dialogues(), *[dialogues()[0].model_copy(update={"id": "d"})]])
    labels = ["U1", "U2", "U3", "U4"]
    seen = ["U1", "U3", "U2", "U1"]
    expected = compute_class_weight("balanced", classes=np.array(labels[:3]), y=seen) * 3 / 4
    assert _weights(train, "urgency", labels) == pytest.approx([*expected, 1.0])
    logits, target = torch.tensor([[2.0, 0.0], [0.0, 1.0]]), torch.tensor([0, 1])
    loss = _weighted_loss([1.0, 3.0])({"logits": logits}, target)
    each = torch.nn.functional.cross_entropy(logits, target, reduction="none")
    assert float(loss) == pytest.approx(float((each[0] + 3 * each[1]) / 4))


def test_encoder_without_calls_is_refused(tmp_path: Path) -> None:
    for split in ("train", "validation"):
        write_dialogues(tmp_path / f"{split}.jsonl", [])
    with pytest.raises(DialogueError, match="needs labelled calls"):
        train_encoder(EncoderRecipe(name="e", base=str(tmp_path), data=str(tmp_path), runs=str(tmp_path)))
