"""The generator: seeded, varied, labelled rightly, and split so that nothing leaks."""

from __future__ import annotations

import json
import random
from functools import cache
from itertools import combinations

import pytest
from wordings import held_out_in

from llmft.dialogue import Dialogue, as_line, parse_dialogue, read_dialogues, read_triage, write_dialogues
from llmft.knowledge import conversation, protocols
from llmft.prepare.synthetic.synthesize import SPLIT_SHARE, Story, call, families, pick_family, synthesize

COMPLAINTS = {complaint.id: (protocol.specialty, complaint) for protocol in protocols() for complaint in protocol.complaints}


@cache
def sample(split: str, count: int = 900) -> tuple[Dialogue, ...]:
    """Many calls of one split."""
    rng = random.Random(5)
    return tuple(call(Story(rng, pick_family(rng, split), rng.choice(("fr", "en")), split), f"s-{n}") for n in range(count))


def test_same_seed_makes_the_same_bytes():
    first, again = (("".join(as_line(d) for d in synthesize(60, seed=7))).encode() for _ in range(2))
    assert first == again
    assert first != "".join(as_line(d) for d in synthesize(60, seed=8)).encode()


def test_manners_touch_training_calls_alone_and_lose_no_telling_answer(monkeypatch):
    """Curt operators and callers without sentences: other training calls, the same held-out calls and the same triage."""
    calls = list(synthesize(400, seed=4))
    monkeypatch.setattr("llmft.prepare.synthetic.synthesize.LISTING_SHARE", 0)
    monkeypatch.setattr("llmft.prepare.synthetic.synthesize.CURT_SHARE", 0)
    plain = list(synthesize(400, seed=4))
    assert [d for d in calls if d.split != "train"] == [d for d in plain if d.split != "train"]
    assert [(d.labels, d.turns[-1]) for d in calls] == [(d.labels, d.turns[-1]) for d in plain]
    changed = [(new, old) for new, old in zip(calls, plain, strict=True) if new != old]
    assert 0.5 < len(changed) / len([d for d in calls if d.split == "train"]) < 0.8
    for new, old in changed:
        assert set(new.turns[1:]) <= set(old.turns[1:])
    with_facts = [new for new, _ in changed if new.labels.red_flags]
    assert with_facts and all(len(d.turns) >= 2 + 2 * len(d.labels.red_flags) for d in with_facts)


def test_splits_have_their_shares():
    splits = [dialogue.split for dialogue in synthesize(1200, seed=3)]
    for split, share in SPLIT_SHARE.items():
        assert splits.count(split) / 1200 == pytest.approx(share, abs=0.03)


def test_no_family_stands_in_two_splits():
    ids = {split: {family.id for family in members} for split, members in families().items()}
    assert all(ids.values())
    assert all(not ids[one] & ids[other] for one, other in combinations(ids, 2))
    assert sum(len(members) for members in ids.values()) == sum(len(members) for members in families().values())


@pytest.mark.parametrize("split", ["train", "validation", "test"])
def test_every_specialty_and_complaint_occurs(split):
    assert {dialogue.labels.specialty for dialogue in sample(split)} == {protocol.specialty for protocol in protocols()}
    assert {dialogue.family_id.split(":")[0] for dialogue in sample(split)} == set(COMPLAINTS)
    assert {dialogue.labels.urgency for dialogue in sample(split)} == {"U1", "U2", "U3", "U4"}


def test_no_held_out_wording_occurs_in_a_train_call():
    found = [(dialogue.id, held) for dialogue in sample("train") for turn in dialogue.turns for held in held_out_in(turn.text)]
    assert found == []


def test_the_scan_sees_held_out_wordings_where_they_are():
    assert all(any(held_out_in(turn.text) for turn in dialogue.turns) for dialogue in sample("test")[:200])


@pytest.mark.parametrize("split", ["train", "test"])
def test_labels_agree_with_the_block_and_the_family(split):
    for dialogue in sample(split):
        triage = read_triage(dialogue.turns[-1].text)
        complaint_id, caller, facts = dialogue.family_id.split(":")
        specialty, complaint = COMPLAINTS[complaint_id]
        present = set() if facts == "none" else set(facts.split("."))
        assert triage is not None and dialogue.labels is not None
        assert triage.urgency == dialogue.labels.urgency
        assert triage.specialty == dialogue.labels.specialty == specialty
        assert triage.icd10 == (dialogue.labels.icd10_primary,) == (complaint.icd10,)
        assert (
            triage.red_flags
            == dialogue.labels.red_flags
            == tuple(e.slot for e in complaint.evidence if e.red_flag and e.slot in present)
        )
        assert triage.urgency == min(
            [complaint.urgency, *(e.urgency for e in complaint.evidence if e.urgency and e.slot in present)]
        )
        assert triage.escalate is (triage.urgency == "U1")
        assert dialogue.patient.caller == caller
        assert dialogue.turns[0].speaker == "patient" and dialogue.turns[-1].speaker == "operator"


def test_every_fact_is_asked_once_and_answered_as_the_family_says():
    for dialogue in sample("train")[:400]:
        _, complaint = COMPLAINTS[dialogue.family_id.split(":")[0]]
        said = [turn.text for turn in dialogue.turns]
        for evidence in complaint.evidence:
            asked = [n for n, text in enumerate(said) if text.endswith(evidence.ask.of(dialogue.lang, "train"))]
            answers = evidence.present if evidence.slot in dialogue.family_id else evidence.absent
            assert len(asked) == 1
            ends = tuple(text.split()[-1] for text in answers.of(dialogue.lang, "train"))
            assert said[asked[0] + 1].endswith(ends)


def test_the_questions_come_in_many_orders():
    orders = set()
    _, complaint = COMPLAINTS["chest_pain"]
    for seed in range(40):
        rng = random.Random(seed)
        family = next(f for f in families()["train"] if f.complaint.id == "chest_pain")
        said = [turn.text for turn in Story(rng, family, "fr", "train").turns()]
        orders.add(tuple(e.slot for text in said for e in complaint.evidence if text.endswith(e.ask.of("fr", "train"))))
    assert len(orders) == 6  # all orders of three


def test_patients_fit_their_complaints_and_relatives():
    for dialogue in sample("train"):
        _, complaint = COMPLAINTS[dialogue.family_id.split(":")[0]]
        (low, high), age = complaint.patient.age, dialogue.patient.age
        assert low <= age <= high
        assert complaint.patient.sex in ("any", dialogue.patient.sex)
        if dialogue.patient.caller == "self":
            assert not complaint.patient.relative_only
        elif not complaint.patient.relative_only:  # a child's complaints say "my baby" themselves
            opening = dialogue.turns[0].text
            named = [r for r in conversation().relatives[dialogue.lang] if r.who in opening]
            assert named and all(r.sex == dialogue.patient.sex and r.age[0] <= age <= r.age[1] for r in named), (dialogue.id, age)


def test_what_was_not_answered_is_missing_and_nothing_else():
    missing = {slot for dialogue in sample("train") for slot in read_triage(dialogue.turns[-1].text).missing_info}
    assert missing == {"onset", "age", "severity", "treatment"}


def test_a_baby_is_not_zero_years_old_in_words():
    texts = [turn.text for dialogue in sample("train") if dialogue.patient.age == 0 for turn in dialogue.turns]
    assert len(texts) > 50
    assert not any("0 ans" in text or "0 years" in text for text in texts)


def test_calls_are_varied():
    openings = {dialogue.turns[0].text for dialogue in sample("train")}
    assert len(openings) > 0.85 * len(sample("train"))
    assert 3 <= min(len(d.turns) // 2 for d in sample("train")) < max(len(d.turns) // 2 for d in sample("train"))


def test_written_calls_read_back_to_the_byte(tmp_path):
    path = tmp_path / "calls.jsonl"
    dialogues = list(synthesize(200, seed=4))
    assert write_dialogues(path, dialogues) == 200
    before = path.read_bytes()
    again = read_dialogues(path)
    assert again == dialogues
    write_dialogues(path, again)
    assert path.read_bytes() == before
    assert all(parse_dialogue(line, "f", 1) == d for line, d in zip(before.decode().splitlines(), dialogues, strict=True))
    assert json.loads(before.decode().splitlines()[0])["license"] == "CC-BY-4.0"
