"""What stands of a model's answer beside the rules, in the evaluation as at the desk."""

from __future__ import annotations

from functools import cache
from itertools import product

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from llmft.dialogue import Dialogue, Triage, read_triage
from llmft.evaluate.prediction import Prediction
from llmft.evaluate.rivals.rules import Read, rules_alone, with_rules
from llmft.evaluate.truth import gold_verdict, verdict_of
from llmft.prepare.synthetic.synthesize import synthesize
from llmft.protocol import Match
from llmft.protocol.beside import ABSTAIN_BELOW, SURE_COMPLAINT, SURE_WEIGHT, demanded, least_urgency, settle
from llmft.protocol.heard_language import heard_language
from llmft.serve.triage.decide import decide
from llmft.serve.triage.screen import screen
from llmft.vocabulary import urgencies

LEVELS = sorted(urgencies())
RANKED = ["U1", "U2", "U3", "U4"]


def complaint(urgency: str, strength: float, weight: float = SURE_WEIGHT) -> Match:
    return Match("complaint:x", "complaint", "x", "orl", urgency, "", (0, 0), strength=strength, weight=weight)  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("flags", "urgency", "strength", "least"),
    [
        ([], None, 0.0, None),
        (["U2", "U1"], None, 0.0, "U1"),
        ([], "U1", SURE_COMPLAINT, "U1"),
        ([], "U1", SURE_COMPLAINT - 0.01, None),
        (["U2"], "U1", 1.0, "U1"),
        (["U2"], "U3", 1.0, "U2"),
        ([], "U3", 1.0, None),
        ([], "U4", 1.0, None),
    ],
)
def test_flags_and_a_clear_complaint_set_the_least_urgency(flags, urgency, strength, least):
    assert least_urgency(flags, complaint(urgency, strength) if urgency else None) == least


def test_a_single_word_names_no_complaint_surely():
    assert least_urgency(["U2"], complaint("U1", 1.0, SURE_WEIGHT - 0.1)) == "U2"
    assert screen([("patient", "Une tache.")], "fr").least is None


@pytest.mark.parametrize("floor", [None, *RANKED])
@pytest.mark.parametrize(
    ("said", "confidence"), [*product([None, "babble", *LEVELS], [None, 0.0, ABSTAIN_BELOW - 0.01, ABSTAIN_BELOW, 1.0])]
)
def test_the_floor_holds_and_who_is_unsure_decides_nothing_but_emergencies(said, confidence, floor):
    found = settle(said, "orl", confidence, floor=floor, thought_of=())
    is_sure = said in RANKED and (said == "U1" or confidence is None or confidence >= ABSTAIN_BELOW)
    wanted = [level for level in (said if is_sure else None, floor) if level is not None]
    assert found.urgency == min(wanted, default="indetermine")
    assert found.abstained is not is_sure
    assert found.by == ("abstained" if not wanted else "model" if is_sure and found.urgency == said else "rules")
    assert found.understood is (said in LEVELS and found.by != "rules")


def test_a_model_that_was_corrected_keeps_its_word_on_what_a_rule_thinks_of_too():
    assert settle("U3", "orl", 1.0, floor="U1", thought_of={"orl"}).understood
    assert not settle("U3", "orl", 1.0, floor="U1", thought_of={"cardiologie"}).understood


@pytest.mark.parametrize(
    ("codes", "least"),
    [
        ([], None),
        (["Z99.9"], None),
        (["R07.4"], "U2"),  # chest pain
        (["R05"], None),  # a cough may wait
        (["R05", "R07.4"], "U2"),
    ],
)
def test_a_block_demands_what_the_complaint_that_it_names_does(codes, least):
    assert demanded(codes) == least


def test_every_call_demands_at_most_its_own_urgency():
    """Right blocks are never raised: the levels are those that the protocols give to the very same facts."""
    for call in synthesize(400, seed=3):
        block = read_triage(call.turns[-1].text)
        assert block is not None
        own = demanded(block.icd10)
        assert own is None or own >= block.urgency


@pytest.mark.parametrize("floor", [None, *RANKED])
@pytest.mark.parametrize(("said", "own"), [*product(RANKED, [None, *RANKED])])
def test_who_names_an_urgent_complaint_cannot_let_it_wait_and_keeps_its_specialty(said, own, floor):
    found = settle(said, "orl", 1.0, floor=floor, thought_of=(), own=own)
    assert found.urgency == min(level for level in (said, own, floor) if level is not None)
    assert found.by == ("model" if found.urgency == said else "rules")
    assert found.understood is (floor is None or min(said, own or said) <= floor)
    assert settle(said, "orl", 0.0, floor=floor, thought_of=(), own="U1").urgency == min(
        said if said == "U1" else floor or "indetermine", floor or "indetermine"
    )


@cache
def calls() -> list[tuple[Dialogue, Read]]:
    """Calls whose language is heard rightly, with what the rules read in them."""
    found = [call for call in synthesize(150, seed=9) if call.split == "test"]
    found = [c for c in found if heard_language(t.text for t in c.turns if t.speaker == "patient") == c.lang]
    reads = rules_alone([(call, truth) for call in found if (truth := gold_verdict(call)) is not None])
    assert len(found) == len(reads) > 8
    return list(zip(found, reads, strict=True))


triages = st.builds(
    Triage,
    urgency=st.sampled_from(LEVELS),
    specialty=st.sampled_from(["orl", "cardiologie", "urgences"]),
    icd10=st.sampled_from([("R05",), ("R07.4",), ("Q99.9",), ("Q99.9", "R05")]),
    red_flags=st.sampled_from([(), ("pain_radiating",)]),
    summary=st.just("x"),
    missing_info=st.just(()),
    escalate=st.booleans(),
)


@settings(deadline=None, max_examples=60)
@given(st.integers(0, 8), triages, st.sampled_from([None, 0.2, 0.9]))
def test_evaluation_measures_what_the_desk_answers(number, triage, confidence):
    call, read = calls()[number]
    chances = None if confidence is None else {triage.urgency: confidence}
    prediction = Prediction(
        id=call.id, gold=read.prediction.gold, predicted=verdict_of(triage), seconds=0.0, urgency_probabilities=chances
    )
    measured = with_rules(prediction, read).predicted
    turns = [(turn.speaker, turn.text) for turn in call.turns[:-1]]
    screening = screen(turns, call.lang)
    answered = decide(triage.as_block(), confidence, screening, call.lang, ABSTAIN_BELOW).triage
    assert measured is not None
    assert (measured.urgency, measured.escalate) == (answered.urgency, answered.escalate)
    assert measured.specialty == answered.specialty
    assert measured.icd10 == answered.icd10
