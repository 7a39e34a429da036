from __future__ import annotations

import random
import tracemalloc

import pytest
from hypothesis import given
from hypothesis import strategies as st

from llmft.prepare.cleaning.duplicates import SIGNATURE_BYTES, exact_duplicates, fingerprint, near_duplicates, signature
from llmft.prepare.synthetic.synthesize import call, families, synthesize

CALL = [
    "Allô, bonjour, j'appelle pour mon père, il a très mal dans la poitrine depuis ce matin.",
    "Est-ce que la douleur va dans le bras ou la mâchoire ?",
    "oui, elle descend dans le bras gauche et il est tout pâle, il transpire beaucoup",
    "A-t-il déjà eu un problème de cœur ?",
    "il a fait un infarctus il y a trois ans, on lui a posé un stent à l'hôpital",
    "Je vous envoie une équipe tout de suite, restez près de lui.",
]


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
    assert fingerprint(["?"]) == b""


def test_fingerprint_and_signature_pass_over_the_triage_block():
    labelled = [*CALL[:-1], CALL[-1] + '\n```json\n{"urgency": "U1"}\n```']
    assert fingerprint(labelled) == fingerprint(CALL)
    assert signature(labelled) == signature(CALL)


def test_exact_duplicates_keep_the_earliest_row():
    prints = [(7, b"b" * 16), (3, b"a" * 16), (9, b"a" * 16), (1, b"c" * 16), (2, b"a" * 16), (5, b"b" * 16), (4, b"")]
    assert exact_duplicates(prints) == [(2, 3, 9), (5, 7)]
    assert exact_duplicates([]) == exact_duplicates([(1, b"x" * 16)]) == []


def test_signature_is_the_same_on_every_machine():
    assert len(signature(CALL)) == SIGNATURE_BYTES
    assert signature(CALL)[:8].hex() == "ceb6a75573ff6f2a"
    assert signature(["", "?"]) == b""
    assert len(signature(["oui"])) == SIGNATURE_BYTES


def test_near_duplicates_finds_planted_copies(synthetic):
    rng = random.Random(2)
    copies = {}
    rows = list(enumerate(signature(texts) for texts in synthetic))
    for place in range(0, 400, 5):
        texts = synthetic[place]
        kind = place // 5 % 3
        changed = misheard(texts, rng, 0.04) if kind == 0 else texts[:2] + texts[4:] if kind == 1 else [*texts, "c'est [NOM_1]"]
        copies[1000 + place] = place
        rows.append((1000 + place, signature(changed)))
    home = {row: group[0] for group in near_duplicates(rows) for row in group}
    missed = [row for row, original in copies.items() if home.get(row) != home.get(original, -1)]
    assert len(missed) <= 3  # of 80
    others = [row for row in home if row < 1000 and home[row] != row]
    assert len(others) <= 2  # of 400 calls that nobody copied


def test_calls_of_one_family_in_other_wordings_are_no_duplicates():
    rng = random.Random(5)
    family = next(f for f in families()["train"] if len(f.complaint.says.fr.train) >= 10)
    calls = [call(rng, family, "fr", "train", str(n)) for n in range(12)]
    rows = [(n, signature([turn.text for turn in made.turns])) for n, made in enumerate(calls)]
    assert sum(len(group) - 1 for group in near_duplicates(rows)) <= 1


def test_near_duplicates_does_not_depend_on_the_order(synthetic):
    rng = random.Random(3)
    rows = [(n, signature(misheard(synthetic[n % 40], rng, 0.05))) for n in range(160)]
    expected = near_duplicates(rows)
    assert len(expected) > 30
    for _ in range(3):
        rng.shuffle(rows)
        assert near_duplicates(iter(rows)) == expected


def test_each_row_is_in_one_group_and_the_first_stays(synthetic):
    rng = random.Random(4)
    groups = near_duplicates((n, signature(misheard(synthetic[n % 9], rng, 0.08))) for n in range(300))
    members = [row for group in groups for row in group]
    assert len(members) == len(set(members))
    assert all(list(group) == sorted(group) and len(group) > 1 for group in groups)


def near(base: bytes, changed: int, start: int = 0) -> bytes:
    """``base`` with ``changed`` bytes from ``start`` on made different."""
    return bytes(byte ^ 1 if start <= place < start + changed else byte for place, byte in enumerate(base))


def test_the_threshold_is_the_share_of_equal_bytes():
    base = signature(CALL)
    assert near_duplicates([(1, base), (2, near(base, 52))]) == [(1, 2)]  # 98 of 150 stay equal
    assert near_duplicates([(1, base), (2, near(base, 53))]) == []


def test_a_chain_of_small_changes_does_not_collapse():
    base = signature(CALL)
    chain = [near(base, 40 * step) for step in range(4)]  # neighbours are alike, the ends are not
    assert near_duplicates(enumerate(chain)) == [(0, 1), (2, 3)]


def test_copies_in_a_crowded_bucket_are_all_found():
    base = bytes([7]) * SIGNATURE_BYTES
    crowd = [near(base, 3, start=5 * (n % 29)) for n in range(2000)]
    assert near_duplicates(enumerate(crowd)) == [tuple(range(2000))]


def test_different_calls_in_a_crowded_bucket_stay_apart_and_their_copies_are_found():
    rng = random.Random(8)
    calls = [bytes(5) + rng.randbytes(SIGNATURE_BYTES - 5) for _ in range(500)]
    rows = [*enumerate(calls), *((1000 + n, near(value, 20, start=20)) for n, value in enumerate(calls))]
    assert near_duplicates(rows) == [(n, 1000 + n) for n in range(500)]


def test_rows_without_words_are_no_duplicates():
    assert near_duplicates([(1, b""), (2, b""), (3, signature(CALL))]) == []
    assert near_duplicates([]) == []
    assert near_duplicates([(1, bytes(SIGNATURE_BYTES)), (2, bytes(SIGNATURE_BYTES))]) == []  # as a column keeps b""
    assert exact_duplicates([(1, bytes(16)), (2, bytes(16)), (3, b"")]) == []


def test_memory_grows_by_few_bytes_a_row():
    rng = random.Random(6)
    count = 20_000
    tracemalloc.start()
    groups = near_duplicates((n, rng.randbytes(SIGNATURE_BYTES)) for n in range(count))
    _, peak_bytes = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert groups == []
    assert peak_bytes / count < 300  # a million calls: 300 MB


@given(st.lists(st.text(), max_size=5))
def test_any_texts_have_a_signature_like_themselves(texts):
    value = signature(texts)
    assert len(value) in (0, SIGNATURE_BYTES)
    assert bool(value) == bool(fingerprint(texts))
    assert near_duplicates([(1, value), (2, value)]) == ([(1, 2)] if value else [])
