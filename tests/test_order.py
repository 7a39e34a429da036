"""The order of the rows: each once an epoch, like lengths together, the same for any number of processes."""

from __future__ import annotations

from collections import Counter

from hypothesis import given
from hypothesis import strategies as st

from llmft.prompt import IGNORE, Encoded
from llmft.train.order import plan_order


def rows(lengths: list[int]) -> list[Encoded]:
    """Rows of these lengths; all but the first token are trained."""
    return [Encoded(f"d{number}", list(range(size)), [IGNORE, *range(1, size)]) for number, size in enumerate(lengths)]


LENGTHS = st.lists(st.integers(1, 60), min_size=1, max_size=80)


@given(LENGTHS, st.integers(1, 9), st.integers(1, 3), st.integers(0, 5))
def test_every_row_comes_once_an_epoch_and_the_longest_at_the_start(lengths, batch, epochs, seed):
    order = plan_order(rows(lengths), batch=batch, epochs=epochs, max_steps=-1, seed=seed)
    assert Counter(order.rows) == dict.fromkeys(range(len(lengths)), epochs)
    assert order.steps == -(-len(lengths) * epochs // batch)
    if len(lengths) * epochs >= batch:
        whole = [order.of_step(step) for step in range(1, order.steps + 1) if len(order.of_step(step)) == batch]
        longest = max(lengths[row] for members in whole for row in members)
        assert max(lengths[row] for row in order.of_step(1)) == longest
    assert [row for step in range(1, order.steps + 1) for row in order.of_step(step)] == order.rows


@given(LENGTHS, st.integers(1, 9), st.integers(1, 40))
def test_max_steps_wins_and_rows_come_equally_often(lengths, batch, max_steps):
    order = plan_order(rows(lengths), batch=batch, epochs=1, max_steps=max_steps, seed=1)
    assert order.steps == max_steps and len(order.rows) == max_steps * batch
    often = Counter(order.rows)
    counts = [often[number] for number in range(len(lengths))]
    assert max(counts) - min(counts) <= 1


@given(LENGTHS, st.integers(1, 9))
def test_tokens_add_up(lengths, batch):
    encoded = rows(lengths)
    order = plan_order(encoded, batch=batch, epochs=2, max_steps=-1, seed=3)
    assert order.tokens[0] == order.trained_tokens[0] == 0
    for step in range(1, order.steps + 1):
        members = [encoded[row] for row in order.of_step(step)]
        assert order.tokens[step] - order.tokens[step - 1] == sum(len(row.input_ids) for row in members)
        trained = sum(len(row.input_ids) - 1 for row in members)
        assert order.trained_tokens[step] - order.trained_tokens[step - 1] == trained


def test_half_an_epoch_is_half_of_the_rows():
    order = plan_order(rows([5] * 11), batch=2, epochs=0.5, max_steps=-1, seed=1)
    assert len(order.rows) == len(set(order.rows)) == 6


def test_the_seed_decides_and_batches_hold_like_lengths():
    lengths = [10 + (number * 37) % 400 for number in range(400)]
    first, again, other = (plan_order(rows(lengths), batch=8, epochs=1, max_steps=-1, seed=seed) for seed in (1, 1, 2))
    assert first == again and first.rows != other.rows
    padded = sum(8 * max(lengths[row] for row in first.of_step(step)) for step in range(1, first.steps + 1))
    assert padded < 1.1 * sum(lengths)
