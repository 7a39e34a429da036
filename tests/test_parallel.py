"""Many answers at once are the answers one by one; a grammar holds what is written."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
import tiny_engine as tiny
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from llmft.dialogue import read_triage
from llmft.engine.drafts import MAX_ENTRIES, UNLIKELY, Drafts, Guess, worthwhile
from llmft.engine.llama_context import TINY_BYTES, Cells, GrammarError, usual_threads
from llmft.engine.llama_model import LlamaModel, load_gguf
from llmft.engine.parallel_llama import PROMPT_PIECE, ParallelLlama, open_parallel
from llmft.engine.triage_grammar import triage_grammar
from llmft.errors import PromptError

TOKENS = 120
LAST_TURNS = [dialogue.turns[-1].text for dialogue in tiny.dialogues()]


@pytest.fixture(scope="module")
def one() -> Iterator[LlamaModel]:
    model = load_gguf(tiny.gguf("llama3"), threads=1)
    yield model
    model.close()


@pytest.fixture(scope="module")
def parallel() -> Iterator[ParallelLlama]:
    engine = open_parallel(tiny.gguf("llama3"), slots=3, threads=1)
    yield engine
    engine.close()


def prompts(one: LlamaModel) -> list[list[int]]:
    """Seven prompts, more than there are slots, of which some begin alike."""
    taught = [one.prompt_ids(messages) for messages in tiny.prompts()]
    return [*taught, *(ids[: 8 + 3 * place] for place, ids in enumerate(taught)), taught[0]]


def run(engine: ParallelLlama) -> dict[int, list[int]]:
    """Step until nothing is left; the tokens of each ticket."""
    rows: dict[int, list[int]] = {}
    while engine.busy:
        for written in engine.step():
            rows.setdefault(written.ticket, []).append(written.token)
    return rows


def test_ids_equal_those_written_one_by_one(one: LlamaModel, parallel: ParallelLlama) -> None:
    wanted = [list(one.generate(prompt, TOKENS)) for prompt in prompts(one)]
    tickets = [parallel.submit(prompt, TOKENS) for prompt in prompts(one)]
    rows = run(parallel)
    assert [rows[ticket] for ticket in tickets] == wanted


def test_guesses_save_steps_and_change_nothing(one: LlamaModel) -> None:
    engine = open_parallel(tiny.gguf("llama3"), slots=1, threads=1)
    prompt = one.prompt_ids(tiny.prompts()[0])
    counts = []
    for _ in range(2):
        ticket, steps = engine.submit(prompt, TOKENS), 0
        row = []
        while engine.busy:
            row += [written.token for written in engine.step()]
            steps += 1
        assert row == list(one.generate(prompt, TOKENS)) and ticket
        counts.append(steps)
    engine.close()
    assert counts[1] < counts[0] / 2.5


def test_taught_answers_are_guessed_at_once_and_change_nothing(one: LlamaModel) -> None:
    counts, rows = [], []
    for taught in ([], LAST_TURNS):
        engine = open_parallel(tiny.gguf("llama3"), slots=1, threads=1)
        engine.teach(taught)
        engine.submit(one.prompt_ids(tiny.prompts()[0]), TOKENS)
        steps = 0
        while engine.busy:
            rows += [written.token for written in engine.step()]
            steps += 1
        counts.append(steps)
        engine.close()
    assert rows == 2 * list(one.generate(one.prompt_ids(tiny.prompts()[0]), TOKENS))
    assert counts[1] < counts[0] / 2.5


def test_cells_lie_by_sequence_and_the_end_of_a_prompt_behind() -> None:
    engine = open_parallel(tiny.gguf("llama3"), slots=3, threads=1)
    for first, limit in ((5, TOKENS), (6, 1), (7, TOKENS)):  # the second is done at once, the others go on
        engine.submit([first] * 20, limit)
    engine.step()
    ticket = engine.submit([8] * 20, 1)
    engine._admit()
    slots, rows = engine._plan()
    assert [(row.sequence, row.wanted > 0) for row in rows] == [(0, True), (1, False), (2, True), (1, True)]
    assert rows[-1] == Cells([8], 19, 1, wanted=1)
    assert slots[-1].request is not None and slots[-1].request.ticket == ticket
    engine.close()


def test_a_piece_of_a_prompt_ends_where_attention_would_widen() -> None:
    engine = open_parallel(tiny.gguf("llama3"), slots=1, threads=1)
    engine.submit([5] * 40, 1)
    engine.step()
    engine.submit([*[5] * 40, *[6] * PROMPT_PIECE], 1)  # what it shares lies in the cache
    engine._admit()
    _, rows = engine._plan()
    assert rows == [Cells([6] * (PROMPT_PIECE - 40), 40, 0, wanted=0)]
    engine.close()


def test_one_after_the_other_where_only_one_is_written_at_once(one: LlamaModel) -> None:
    engine = open_parallel(tiny.gguf("llama3"), slots=3, threads=1)
    engine.at_once = 1
    tickets, rows = [engine.submit(prompt, TOKENS) for prompt in prompts(one)], dict[int, list[int]]()
    while engine.busy:
        for written in engine.step():
            rows.setdefault(written.ticket, []).append(written.token)
        assert sum(slot.request is not None for slot in engine._slots) <= 1
    assert list(rows) == tickets and list(rows.values()) == [list(one.generate(prompt, TOKENS)) for prompt in prompts(one)]
    assert sum(bool(slot.held) for slot in engine._slots) > 1  # what others have read stays to be copied
    engine.close()


def test_a_call_that_goes_on_finds_its_turns_while_slots_are_empty(one: LlamaModel) -> None:
    engine = open_parallel(tiny.gguf("llama3"), slots=3, threads=1)
    first = one.prompt_ids(tiny.prompts()[0])
    engine.submit(first, TOKENS)
    said = [*first, *next(iter(run(engine).values()))]
    engine.submit([*first[:-1], 7, 8, 9], 4)
    run(engine)
    engine.submit([*said, 7, 8], 4)
    engine._admit()
    assert [len(slot.held) for slot in engine._slots if slot.request] == [len(said) - 1]
    assert sum(bool(slot.held) for slot in engine._slots) == 2
    engine.close()


def test_a_tiny_file_has_one_thread_and_others_as_many_as_is_usual(tmp_path: Path) -> None:
    large = tmp_path / "large.gguf"
    with large.open("wb") as file:
        file.truncate(TINY_BYTES + 1)
    assert (usual_threads(tiny.gguf("llama3")), usual_threads(large)) == (1, usual_threads())


def test_pieces_join_to_the_answer_and_end_once(parallel: ParallelLlama) -> None:
    tickets = [parallel.submit(parallel.prompt_ids(messages), TOKENS) for messages in tiny.prompts()]
    texts = dict.fromkeys(tickets, "")
    ends = []
    while parallel.busy:
        for written in parallel.step():
            texts[written.ticket] += written.piece
            if written.done:
                assert written.ended
                ends.append(written.ticket)
    assert list(texts.values()) == LAST_TURNS and sorted(ends) == tickets


def test_long_prompt_does_not_stall_a_running_answer(parallel: ParallelLlama, one: LlamaModel) -> None:
    running = parallel.submit(one.prompt_ids(tiny.prompts()[2]), TOKENS)
    parallel.step()
    long = parallel.submit([5 + place % 200 for place in range(PROMPT_PIECE + 100)], 1)
    first = parallel.step()
    assert {written.ticket for written in first} == {running}  # the long prompt is half read and the other goes on
    rows = run(parallel)
    assert len(rows[long]) == 1 and running in rows


def test_cancelled_answers_write_nothing_more(parallel: ParallelLlama, one: LlamaModel) -> None:
    prompt = one.prompt_ids(tiny.prompts()[1])
    tickets = [parallel.submit(prompt, TOKENS) for _ in range(5)]
    parallel.step()
    parallel.cancel(tickets[0])
    parallel.cancel(tickets[4])
    parallel.cancel(10**6)  # nobody's
    rows = run(parallel)
    assert sorted(rows) == tickets[1:4]
    assert all(row == list(one.generate(prompt, TOKENS)) or row for row in rows.values())


def test_engine_seam_answers_every_call(parallel: ParallelLlama) -> None:
    too_long = [{"role": "user", "content": "mal au cœur " * 400}]
    found = dict(parallel.answers([*tiny.prompts(), too_long], TOKENS))
    assert [found[index].text for index in range(3)] == LAST_TURNS
    assert (found[3].text, found[3].ended) == ("", False)


def test_caller_who_stops_listening_leaves_nothing_behind(parallel: ParallelLlama) -> None:
    answers = parallel.answers(tiny.prompts(), TOKENS)
    next(answers)
    answers.close()
    found = dict(parallel.answers(tiny.prompts(), TOKENS))
    assert [found[index].text for index in range(3)] == LAST_TURNS


def test_prompt_that_fills_the_context_is_refused(parallel: ParallelLlama) -> None:
    with pytest.raises(PromptError, match=f"context holds {parallel.context_tokens}"):
        parallel.submit([5] * parallel.context_tokens, 1)


def test_answer_stops_where_the_context_ends(parallel: ParallelLlama) -> None:
    ticket = parallel.submit([5 + place % 90 for place in range(parallel.context_tokens - 3)], TOKENS)
    assert 1 <= len(run(parallel)[ticket]) <= 3


def test_grammar_changes_no_valid_answer() -> None:
    engine = open_parallel(tiny.gguf("llama3"), slots=2, threads=1, grammar=triage_grammar())
    found = dict(engine.answers(tiny.prompts(), TOKENS))
    engine.close()
    assert [found[index].text for index in range(3)] == LAST_TURNS


def test_grammar_makes_a_valid_block_of_any_model(tmp_path_factory: pytest.TempPathFactory) -> None:
    path, short = random_gguf(tmp_path_factory), triage_grammar(sentence_characters=40, summary_characters=20, listed=1)
    free, held = ({}, {})
    for found, grammar in ((free, None), (held, short)):
        engine = open_parallel(path, slots=3, threads=1, grammar=grammar)
        found.update(engine.answers(tiny.prompts(), 440))
        engine.close()
    assert [read_triage(free[index].text) for index in range(3)] == [None] * 3
    assert all(held[index].ended and read_triage(held[index].text) for index in range(3))


def random_gguf(factory: pytest.TempPathFactory):
    from llmft.export.writer import export_file

    return export_file(tiny.untaught("llama3").base_dir, None, factory.mktemp("random") / "random.gguf", "F16", threads=1)


def test_grammar_that_cannot_be_read_is_refused(parallel: ParallelLlama) -> None:
    with pytest.raises(GrammarError, match="not GBNF"):
        parallel.submit([5], 1, "root ::= (")
    assert not parallel.busy


@settings(max_examples=100, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(st.lists(st.integers(0, 3), max_size=40), st.integers(0, 9))
def test_guesses_were_seen_and_grow_less_likely(tokens: list[int], count: int) -> None:
    drafts = Drafts()
    for place in range(1, len(tokens)):
        drafts.learn(tokens[:place], tokens[place])
    found = drafts.guess(tokens[:3], count)
    chances = [1.0, *(guess.chance for guess in found)]
    assert len(found) <= count and {guess.token for guess in found} <= set(tokens)
    assert chances == sorted(chances, reverse=True) and chances[-1] >= UNLIKELY


def test_what_was_written_twice_is_guessed_whole_and_what_wavers_is_doubted() -> None:
    drafts, row = Drafts(), list(range(100, 120))
    for _ in range(3):
        for place in range(1, len(row)):
            drafts.learn(row[:place], row[place])
    assert [guess.token for guess in drafts.guess(row[:5], 9)] == row[5:14]
    sure = drafts.guess(row[:5], 1)[0].chance
    for token in (1, 2, 3):
        drafts.learn(row[:5], token)
    assert not (doubted := drafts.guess(row[:5], 1)) or doubted[0].chance < sure / 2


@pytest.mark.parametrize(
    ("chances", "count"),
    [
        ([], 0),
        ([[], []], 0),
        ([[0.9]], 1),
        ([[0.9] * 2], 2),
        ([[0.9] * 5] * 3, 3),  # four tokens cost what three do, and six what eight do
        ([[0.9] * 9], 7),
        ([[0.9] * 11], 11),
        ([[0.9] * 12, *[[]] * 5], 0),
        ([[0.9, 0.9, 0.2, 0.2]] * 4, 3),
    ],
)
def test_guesses_are_checked_as_far_as_they_pay(chances: list[list[float]], count: int) -> None:
    assert worthwhile([[Guess(7, chance) for chance in chain] for chain in chances]) == count


def test_a_copy_of_drafts_learns_by_itself() -> None:
    drafts = Drafts()
    drafts.learn_row([1, 2, 3, 4], 2)  # nobody wrote 2
    other = drafts.copy()
    other.learn_row([3, 4, 5], 2)
    assert [[guess.token for guess in found.guess([1, 2], 9)] for found in (drafts, other)] == [[3, 4], [3, 4, 5]]
    assert drafts.guess([2], 1) == [] == drafts.guess([3, 4], 1)


def test_drafts_stay_bounded() -> None:
    drafts = Drafts()
    for number in range(MAX_ENTRIES + 10):
        drafts.learn([number], 3)
    assert [guess.token for guess in drafts.guess([MAX_ENTRIES + 5], 1)] == [3] and drafts.guess([0], 1) == []
