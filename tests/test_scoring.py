"""Log-probabilities: the same through both runtimes, and the same as from one pass over the whole row."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np
import pytest
import tiny_engine as tiny

from llmft.engine.llama_context import BATCH_TOKENS
from llmft.engine.parallel_llama import ParallelLlama, open_parallel
from llmft.engine.scoring import HasScorer, Scorer, label_log_probabilities, label_probabilities, log_softmax
from llmft.engine.torch_model import TorchModel, load_base
from llmft.errors import PromptError
from llmft.vocabulary import specialties, urgencies

ANSWERS = [dialogue.turns[-1].text for dialogue in tiny.dialogues()]


@pytest.fixture(scope="module")
def torch_model() -> TorchModel:
    return load_base(str(tiny.learned("llama3").base_dir), "llama3")


@pytest.fixture(scope="module")
def parallel() -> Iterator[ParallelLlama]:
    engine = open_parallel(tiny.gguf("llama3"), slots=4, threads=1)
    yield engine
    engine.close()


@pytest.fixture(params=["torch", "llama"])
def scorer(request: pytest.FixtureRequest, torch_model: TorchModel, parallel: ParallelLlama) -> Scorer:
    engine: Any = torch_model if request.param == "torch" else parallel
    assert isinstance(engine, HasScorer)
    return engine.scorer()


def whole_row(model: TorchModel, prompt: list[int], ids: list[int]) -> Any:
    """One pass over prompt and continuation: the reference."""
    import torch

    with torch.inference_mode():
        logits = model.model(torch.tensor([[*prompt, *ids]])).logits[0, len(prompt) - 1 : -1]
    return torch.log_softmax(logits.float(), -1).numpy()


def test_distributions_are_those_of_one_pass(scorer: Scorer, torch_model: TorchModel) -> None:
    for messages in tiny.prompts():
        prompt = scorer.prompt_ids(messages)
        rows = [scorer.text_ids(text) for text in [*ANSWERS, "Non.", ANSWERS[0][:20], "U1"]]  # more than there are sequences
        found = scorer.distributions(prompt, rows)
        assert [len(row) for row in found] == [len(ids) for ids in rows]
        for row, ids in zip(found, rows, strict=True):
            wanted = whole_row(torch_model, prompt, ids)
            likely = wanted > -12  # F16 in the file; what is all but impossible may differ more
            assert np.abs(row - wanted)[likely].max() < 0.05
            assert np.allclose(np.exp(row).sum(-1), 1, atol=1e-4)


def test_order_and_company_change_nothing(scorer: Scorer) -> None:
    prompt = scorer.prompt_ids(tiny.prompts()[0])
    rows = [scorer.text_ids(text) for text in ANSWERS]
    forwards, backwards = scorer.distributions(prompt, rows), scorer.distributions(prompt, rows[::-1])
    alone = [scorer.distributions(prompt, [ids])[0] for ids in rows]
    for row, other, single in zip(forwards, backwards[::-1], alone, strict=True):
        assert np.abs(row - other).max() < 1e-2 and np.abs(row - single).max() < 1e-2


def test_learned_labels_are_the_likeliest(scorer: Scorer) -> None:
    for dialogue, messages in zip(tiny.dialogues(), tiny.prompts(), strict=True):
        text, labels = dialogue.turns[-1].text, dialogue.labels
        assert labels is not None
        for name, gold, closed in (("urgency", labels.urgency, urgencies()), ("specialty", labels.specialty, specialties())):
            before = text[: text.index(f'"{name}": "')] + f'"{name}": "'
            shares = label_probabilities(scorer, messages, before, list(closed))
            assert next(iter(shares)) == gold and shares[gold] > 0.9
            assert sorted(shares) == sorted(closed) and sum(shares.values()) == pytest.approx(1, abs=1e-9)
            assert list(shares.values()) == sorted(shares.values(), reverse=True)


def test_both_runtimes_agree_on_labels(torch_model: TorchModel, parallel: ParallelLlama) -> None:
    scorers = (torch_model.scorer(), parallel.scorer())
    found = [label_log_probabilities(s, tiny.prompts()[1], '{"urgency": "', sorted(urgencies())) for s in scorers]
    assert np.abs(np.subtract(*found)).max() < 0.05


def test_continuation_longer_than_a_batch_goes_in_pieces() -> None:
    engine = open_parallel(tiny.gguf("llama3"), slots=2, threads=1, context_tokens=512)
    scorer = engine.scorer()
    prompt = scorer.prompt_ids(tiny.prompts()[1])
    ids = [7 + place % 300 for place in range(engine.context_tokens - len(prompt))]
    whole = scorer.distributions(prompt, [ids])[0]
    assert whole.shape[0] == len(ids) > BATCH_TOKENS / 2
    assert np.allclose(scorer.distributions(prompt, [ids[:50]])[0], whole[:50], atol=1e-2)
    with pytest.raises(PromptError, match="open a longer context"):
        scorer.distributions(prompt, [[*ids, 7]])
    engine.close()


def test_log_softmax_is_scipys() -> None:
    from scipy.special import log_softmax as reference

    logits = np.random.default_rng(1).normal(0, 30, (5, 40)).astype(np.float32)
    assert np.allclose(log_softmax(logits), reference(logits, axis=-1), atol=1e-4)
