"""Contexts side by side over one model's weights answer as one does."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from threading import active_count
from time import perf_counter

import pytest
import tiny_engine as tiny

from llmft.engine import answer, side_by_side
from llmft.engine.llama_model import load_gguf
from llmft.engine.parallel_llama import ParallelLlama
from llmft.engine.scoring import label_probabilities
from llmft.engine.side_by_side import SideBySide, open_side_by_side
from llmft.errors import LlmftError

TOKENS = 60


@pytest.fixture(scope="module")
def engine() -> Iterator[SideBySide]:
    opened = open_side_by_side(tiny.gguf("llama3"), context_tokens=512, slots=5, threads=2)
    assert isinstance(opened, SideBySide)
    yield opened
    opened.close()


def test_answers_equal_those_of_one_context(engine: SideBySide) -> None:
    alone = load_gguf(tiny.gguf("llama3"), threads=1)
    calls = [*tiny.prompts(), *tiny.prompts()[:2]]
    wanted = [one.text for one in answer(alone, calls, TOKENS)]
    alone.close()
    assert len(calls) % 2 and [(worker.context.sequences, worker.at_once) for worker in engine.workers] == [(2, 1), (2, 1)]
    for _ in range(2):
        started = perf_counter()
        found = answer(engine, calls, TOKENS)
        assert 0 < sum(one.seconds for one in found) <= perf_counter() - started
        assert [one.text for one in found] == wanted and all(one.ended for one in found)


def test_what_one_is_taught_all_know_and_learn_on_alone() -> None:
    engine = open_side_by_side(tiny.gguf("llama3"), context_tokens=512, slots=2, threads=2)
    assert isinstance(engine, SideBySide)
    last_turns = [dialogue.turns[-1].text for dialogue in tiny.dialogues()]
    engine.teach(last_turns)
    first, second = (worker.drafts for worker in engine.workers)
    row = engine.workers[0].model.text_ids(last_turns[0])
    assert first is not second and first.guess(row[:5], 9) == second.guess(row[:5], 9) != []
    assert [one.text for one in answer(engine, tiny.prompts(), TOKENS)] == last_turns
    engine.close()


def test_a_call_that_goes_on_stays_where_it_was(engine: SideBySide) -> None:
    calls = [[{"role": "system", "content": "s"}, {"role": "user", "content": f"call {number}"}] for number in range(6)]
    first = engine._shares(calls)  # type: ignore[arg-type]
    assert sorted(map(len, first)) == [3, 3] and sorted(sum(first, [])) == list(range(6))
    later = [[*calls[number], {"role": "assistant", "content": "?"}] for number in (1, 2, 5)]
    assert engine._shares(later) == [[place for place, n in enumerate((1, 2, 5)) if n in share] for share in first]  # type: ignore[arg-type]


def test_who_stops_listening_stops_the_work(engine: SideBySide) -> None:
    before, answers = active_count(), engine.answers([*tiny.prompts()] * 4, TOKENS)
    next(answers)
    assert active_count() > before
    answers.close()  # type: ignore[attr-defined]
    assert active_count() == before
    assert len(answer(engine, tiny.prompts()[:1], TOKENS)) == 1
    assert list(engine.answers([], TOKENS)) == []


def test_what_goes_wrong_in_a_thread_is_raised_where_it_was_asked(engine: SideBySide, monkeypatch: pytest.MonkeyPatch) -> None:
    def broken(conversations: Sequence[object], max_new_tokens: int) -> Iterator[tuple[int, object]]:
        raise LlmftError("the engine died")
        yield

    monkeypatch.setattr(engine.workers[1], "answers", broken)
    with pytest.raises(LlmftError, match="the engine died"):
        answer(engine, tiny.prompts()[:2], TOKENS)


def test_labels_are_scored_as_by_one_context(engine: SideBySide) -> None:
    other = open_side_by_side(tiny.gguf("llama3"), context_tokens=512, slots=2, threads=1)
    assert isinstance(other, ParallelLlama)
    found = [label_probabilities(e.scorer(), tiny.prompts()[0], '{"urgency": "', ["U1", "U2"]) for e in (engine, other)]
    other.close()
    assert found[0] == pytest.approx(found[1], abs=1e-5)
    assert len(answer(engine, tiny.prompts()[:1], TOKENS)) == 1


def test_large_files_have_one_context(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(side_by_side, "SMALL_BYTES", 10)
    opened = open_side_by_side(tiny.gguf("llama3"), context_tokens=256, slots=2, threads=2)
    assert isinstance(opened, ParallelLlama) and opened.context.sequences == 2
    opened.close()
