"""Predictions: whole records, probabilities of labels, and going on after a kill."""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import pytest
import tiny_engine as tiny

from llmft.engine import Answer
from llmft.engine.parallel_llama import open_parallel
from llmft.engine.torch_model import load_base
from llmft.errors import BackendError
from llmft.evaluate.predict import predict, predict_resumably
from llmft.evaluate.prediction import Prediction
from llmft.prompt import Message

RIGHT = [dialogue.turns[-1].text for dialogue in tiny.dialogues()]
KEY = "k"


class Spoken:
    """An engine that says what it was given, counts what it is asked, and dies after ``lives`` answers."""

    def __init__(self, lives: int = 100) -> None:
        self.lives, self.asked = lives, 0

    def answers(self, conversations: Sequence[Sequence[Message]], max_new_tokens: int) -> Iterator[tuple[int, Answer]]:
        said = {messages[-1]["content"]: text for messages, text in zip(tiny.prompts(), RIGHT, strict=True)}
        for index, messages in enumerate(conversations):
            if self.lives == 0:
                raise BackendError("the engine died")
            self.lives -= 1
            self.asked += 1
            yield index, Answer(said[messages[-1]["content"]], True, 0.25)


def ask(path: Path, engine: Any, key: str = KEY) -> list[Prediction]:
    return predict_resumably(lambda: engine, tiny.dialogues(), tiny.SYSTEM, 200, "test", path=path, key=key)


def test_records_say_how_the_answer_was_written() -> None:
    found = predict(Spoken(), tiny.dialogues(), tiny.SYSTEM, 200, "test")
    assert [(p.raw_valid, p.repaired, p.failure) for p in found] == [(True, False, None)] * 3
    assert [p.sentence.urgency if p.sentence else None for p in found] == ["U1", "U3", "U2"]
    assert found[0].urgency_probabilities is None and found[0].top_specialties == ()
    assert len({p.text_sha256 for p in found}) == 3


@pytest.mark.parametrize("runtime", ["torch", "llama"])
def test_probabilities_of_labels_are_kept(runtime: str) -> None:
    if runtime == "torch":
        engine: Any = load_base(str(tiny.learned("llama3").base_dir), "llama3")
    else:
        engine = open_parallel(tiny.gguf("llama3"), slots=3, threads=1)
    found = predict(engine, tiny.dialogues(), tiny.SYSTEM, 200, "test")
    for prediction in found:
        assert prediction.predicted is not None and prediction.urgency_probabilities is not None
        assert max(prediction.urgency_probabilities, key=prediction.urgency_probabilities.__getitem__) == prediction.gold.urgency
        assert prediction.top_specialties[0][0] == prediction.gold.specialty
        assert sum(prediction.urgency_probabilities.values()) == pytest.approx(1, abs=1e-9)
        assert prediction.prompt_tokens and prediction.answer_tokens


def test_model_without_a_block_has_probabilities_too() -> None:
    found = predict(load_base(str(tiny.untaught("llama3").base_dir), "llama3"), tiny.dialogues(), tiny.SYSTEM, 20, "test")
    assert [p.predicted for p in found] == [None] * 3
    assert all(p.urgency_probabilities and len(p.top_specialties) >= 3 for p in found)


def test_killed_run_goes_on_after_what_it_kept(tmp_path: Path) -> None:
    path = tmp_path / "evaluation" / "predictions-x.jsonl"
    with pytest.raises(BackendError):
        ask(path, Spoken(lives=2))
    assert not path.exists()
    asked = path.with_name("predictions-x.jsonl.asked")
    assert [json.loads(line)["id"] for line in asked.read_text("utf-8").splitlines()] == ["a", "b"]
    with asked.open("a", encoding="utf-8") as file:
        file.write('{"id": "c", "go')  # a kill in the middle of a line
    second = Spoken()
    found = ask(path, second)
    assert second.asked == 1 and [p.id for p in found] == ["a", "b", "c"] and not asked.exists()
    assert found == predict(Spoken(), tiny.dialogues(), tiny.SYSTEM, 200, "test")


class Failing(Spoken):
    """A server that fails on every call but the first, and is then gone."""

    def answers(self, conversations: Sequence[Sequence[Message]], max_new_tokens: int) -> Iterator[tuple[int, Answer]]:
        yield next(super().answers(conversations, max_new_tokens))
        yield 1, Answer("", False, 5.0, "time_out")
        raise BackendError("the server is gone")


def test_calls_that_a_dying_server_failed_on_are_asked_again(tmp_path: Path) -> None:
    path = tmp_path / "predictions-x.jsonl"
    with pytest.raises(BackendError):
        ask(path, Failing())
    again = Spoken()
    assert [p.failure for p in ask(path, again)] == [None] * 3 and again.asked == 2


def test_a_call_that_a_living_server_failed_on_stays_a_failure(tmp_path: Path) -> None:
    class Slow(Spoken):
        def answers(self, conversations: Sequence[Sequence[Message]], max_new_tokens: int) -> Iterator[tuple[int, Answer]]:
            yield 2, Answer("", False, 5.0, "time_out")
            yield from super().answers(conversations[:2], max_new_tokens)

    path = tmp_path / "predictions-x.jsonl"
    assert [p.failure for p in ask(path, Slow())] == [None, None, "time_out"]
    assert [p.failure for p in ask(path, Spoken(lives=0))] == [None, None, "time_out"]


@pytest.mark.parametrize("runtime", ["llama"])
def test_a_call_without_room_has_empty_probabilities(runtime: str) -> None:
    engine = open_parallel(tiny.gguf("llama3"), context_tokens=64, slots=3, threads=1)
    found = predict(engine, tiny.dialogues(), tiny.SYSTEM, 200, "test")
    assert all((p.urgency_probabilities, p.top_specialties, p.predicted) == ({}, (), None) for p in found)


def test_second_run_asks_nobody(tmp_path: Path) -> None:
    path = tmp_path / "predictions-x.jsonl"
    first = ask(path, Spoken())
    assert ask(path, Spoken(lives=0)) == first
    other = Spoken()
    ask(path, other, "another key")
    assert other.asked == 3


def test_rows_hold_no_words_of_a_call(tmp_path: Path) -> None:
    path = tmp_path / "predictions-x.jsonl"
    ask(path, Spoken())
    text = path.read_text("utf-8")
    assert not any(turn.text[:12] in text for dialogue in tiny.dialogues() for turn in dialogue.turns)
