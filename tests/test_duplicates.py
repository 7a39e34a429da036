from __future__ import annotations

import random
import tracemalloc

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from llmft.prepare.cleaning import duplicates
from llmft.prepare.cleaning.duplicates import SIGNATURE_BYTES
from llmft.prepare.cleaning.normalise import words
from llmft.prepare.synthetic.synthesize import Story, call, families, synthesize

CALL = [
    "Allô, bonjour, j'appelle pour mon père, il a très mal dans la poitrine depuis ce matin.",
    "Est-ce que la douleur va dans le bras ou la mâchoire ?",
    "oui, elle descend dans le bras gauche et il est tout pâle, il transpire beaucoup",
    "A-t-il déjà eu un problème de cœur ?",
    "il a fait un infarctus il y a trois ans, on lui a posé un stent à l'hôpital",
    "Je vous envoie une équipe tout de suite, restez près de lui.",
]


def fingerprint(texts):
    return duplicates.fingerprint(words(texts))


def signature(texts):
    return duplicates.signature(words(texts))


def groups_of(first):
    """The groups of more than one row, each ascending."""
    found = {}
    for row, kept in enumerate(first.tolist()):
        found.setdefault(kept, []).append(row)
    return [tuple(group) for group in found.values() if len(group) > 1]


def near_duplicates(signatures, among=None):
    table = np.frombuffer(b"".join(signatures), np.uint8).reshape(-1, SIGNATURE_BYTES)
    return groups_of(duplicates.near_duplicates(table, among))


def exact_duplicates(prints):
    return groups_of(duplicates.exact_duplicates(np.frombuffer(b"".join(prints), np.uint64).reshape(-1, 2)))


@pytest.fixture(scope="module")
def synthetic():
    return [[turn.text for turn in dialogue.turns] for dialogue in synthesize(400, 21)]


def misheard(texts, rng, error):
    return [" ".join("truc" if rng.random() < error else word for word in text.split("```")[0].split()) for text in texts]


def test_fingerprint_sees_words_only():
    shouted = [text.upper().replace("É", "E").replace(",", " …") for text in CALL]
    assert fingerprint(CALL) == fingerprint(shouted) == fingerprint([" ".join(CALL)])
    assert len(fingerprint(CALL)) == 16
    assert fingerprint(CALL[:-1]) != fingerprint(CALL)
    assert fingerprint(["?"]) == bytes(16)


def test_fingerprint_and_signature_pass_over_the_triage_block():
    labelled = [*CALL[:-1], CALL[-1] + '\n```json\n{"urgency": "U1"}\n```']
    assert fingerprint(labelled) == fingerprint(CALL)
    assert signature(labelled) == signature(CALL)


def test_exact_duplicates_keep_the_earliest_row():
    prints = [b"b" * 16, b"a" * 16, b"a" * 16, b"c" * 16, b"a" * 8 + b"c" * 8, b"a" * 16, b"b" * 16, bytes(16), bytes(16)]
    assert exact_duplicates(prints) == [(0, 6), (1, 2, 5)]
    assert exact_duplicates([]) == exact_duplicates([b"x" * 16]) == []


def test_signature_is_the_same_on_every_machine():
    assert len(signature(CALL)) == SIGNATURE_BYTES
    assert signature(CALL)[:8].hex() == "ceb6a75573ff6f2a"
    assert signature(["", "?"]) == bytes(SIGNATURE_BYTES)
    assert len(signature(["oui"])) == SIGNATURE_BYTES


def test_near_duplicates_finds_planted_copies(synthetic):
    rng = random.Random(2)
    copies = {}
    rows = [signature(texts) for texts in synthetic]
    for place in range(0, 400, 5):
        texts = synthetic[place]
        kind = place // 5 % 3
        changed = misheard(texts, rng, 0.04) if kind == 0 else texts[:2] + texts[4:] if kind == 1 else [*texts, "c'est [NOM_1]"]
        copies[len(rows)] = place
        rows.append(signature(changed))
    home = {row: group[0] for group in near_duplicates(rows) for row in group}
    missed = [row for row, original in copies.items() if home.get(row) != home.get(original, -1)]
    assert len(missed) <= 3  # of 80
    others = [row for row in home if row < 400 and home[row] != row]
    assert len(others) <= 2  # of 400 calls that nobody copied


def test_calls_of_one_family_in_other_wordings_are_no_duplicates():
    rng = random.Random(5)
    family = next(f for f in families()["train"] if len(f.complaint.says.fr.train) >= 10)
    calls = [call(Story(rng, family, "fr", "train"), str(n)) for n in range(12)]
    rows = [signature([turn.text for turn in made.turns]) for made in calls]
    assert sum(len(group) - 1 for group in near_duplicates(rows)) <= 1


def test_rows_that_are_left_out_change_nothing(synthetic):
    rng = random.Random(3)
    rows = [signature(misheard(synthetic[n % 40], rng, 0.05)) for n in range(160)]
    numbers = [n for n in range(len(rows)) if rng.random() < 0.7]
    alone = near_duplicates([rows[n] for n in numbers])
    assert len(alone) > 20
    assert near_duplicates(rows, np.array(numbers)) == [tuple(numbers[place] for place in group) for group in alone]


def test_of_copies_the_one_stays_that_is_named_first(synthetic):
    rng = random.Random(3)
    rows = [signature(misheard(synthetic[n % 40], rng, 0.02)) for n in range(80)]
    table = np.frombuffer(b"".join(rows), np.uint8).reshape(-1, SIGNATURE_BYTES)
    first = duplicates.near_duplicates(table, np.arange(80)[::-1])
    assert sum(first[n] == n + 40 for n in range(40)) > 35 and (first[40:] == np.arange(40, 80)).all()


def test_each_row_is_in_one_group_and_the_first_stays(synthetic):
    rng = random.Random(4)
    groups = near_duplicates([signature(misheard(synthetic[n % 9], rng, 0.08)) for n in range(300)])
    members = [row for group in groups for row in group]
    assert len(members) == len(set(members))
    assert all(list(group) == sorted(group) and len(group) > 1 for group in groups)


def near(base: bytes, changed: int, start: int = 0) -> bytes:
    """``base`` with ``changed`` bytes from ``start`` on made different."""
    return bytes(byte ^ 1 if start <= place < start + changed else byte for place, byte in enumerate(base))


def test_the_threshold_is_the_share_of_equal_bytes():
    base = signature(CALL)
    assert near_duplicates([base, near(base, 52)]) == [(0, 1)]  # 98 of 150 stay equal
    assert near_duplicates([base, near(base, 53)]) == []


def test_a_chain_of_small_changes_does_not_collapse():
    base = signature(CALL)
    chain = [near(base, 40 * step) for step in range(4)]  # neighbours are alike, the ends are not
    assert near_duplicates(chain) == [(0, 1), (2, 3)]


def test_copies_in_a_crowded_bucket_are_all_found():
    base = bytes([7]) * SIGNATURE_BYTES
    crowd = [near(base, 3, start=5 * (n % 29)) for n in range(2000)]
    assert near_duplicates(crowd) == [tuple(range(2000))]


def test_different_calls_in_a_crowded_bucket_stay_apart_and_their_copies_are_found():
    rng = random.Random(8)
    calls = [bytes(5) + rng.randbytes(SIGNATURE_BYTES - 5) for _ in range(500)]
    rows = [*calls, *(near(value, 20, start=20) for value in calls)]
    assert near_duplicates(rows) == [(n, 500 + n) for n in range(500)]


def test_rows_without_words_are_no_duplicates():
    silent = bytes(SIGNATURE_BYTES)
    assert near_duplicates([]) == near_duplicates([silent, silent, signature(CALL)]) == []
    assert exact_duplicates([bytes(16), bytes(16)]) == []


def test_memory_grows_by_few_bytes_a_row():
    """Besides the signatures, 150 bytes, which the caller holds."""
    count, rng = 20_000, np.random.default_rng(6)
    table = rng.integers(0, 256, (count, SIGNATURE_BYTES), np.uint8)
    tracemalloc.start()
    first = duplicates.near_duplicates(table)
    _, peak_bytes = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert (first == np.arange(count)).all()
    assert peak_bytes / count < 110  # a million calls: 110 MB


@given(st.lists(st.text(), max_size=5))
def test_any_texts_have_a_signature_like_themselves(texts):
    value = signature(texts)
    assert len(value) == SIGNATURE_BYTES
    assert any(value) == any(fingerprint(texts)) == bool(words(texts))
    assert near_duplicates([value, value]) == ([(0, 1)] if any(value) else [])
