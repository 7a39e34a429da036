"""From an operator's judgement to rows to learn from: without names, by agreement, never from the test split."""

from __future__ import annotations

import json

import pytest
from pydantic import ValidationError
from tiny_store import SAID, TRIAGE, WORDS, judged, tiny_answer, tiny_call

from llmft.deidentify.span import Roster
from llmft.dialogue import Dialogue, Turn, read_dialogues, read_triage, write_dialogues
from llmft.errors import ConflictError, NotStoredError, StoreError
from llmft.preference import read_judged
from llmft.serve.store.calls import add_turn
from llmft.serve.store.database import ago, now, open_store
from llmft.serve.store.feedback import Correction, feedback_between, give_feedback
from llmft.serve.store.loop import PAIRS, REPORT, ROWS, export_feedback

URGENT = {"urgency": "U1", "red_flags": ["chest_pain_radiating"]}


@pytest.fixture
def answer(store):
    return tiny_answer(store, tiny_call(store))


def exported(store, folder, **options):
    made = export_feedback(store, folder, **options)
    pairs = read_judged(folder / PAIRS) if made.pairs else []
    rows = read_dialogues(folder / ROWS)
    assert (len(rows), len(pairs)) == (made.rows, made.pairs)
    assert json.loads((folder / REPORT).read_text())["rows"] == made.rows
    return made, rows, pairs


def test_free_text_loses_names_before_it_is_stored(store, answer):
    given = judged(
        answer,
        "edited",
        reason="Marie Durand a rappelé au 06 12 34 56 78",
        correction={"reply": "Madame Durand, appelez le 15.", "urgency": "U1", "summary": "douleur, vue par le Dr Lefort"},
    )
    made = give_feedback(store, given, "op-1", Roster(patient=("Marie Durand",)))
    assert feedback_between(store, ago(1)) == [made] and feedback_between(store, now()) == []
    with store.engine.connect() as connection:
        stored = str(connection.exec_driver_sql("SELECT content FROM feedback").all())
    for words in ("Marie", "Durand", "06 12", "Lefort"):
        assert words not in stored
    assert made.given.reason is not None and "[TEL" in made.given.reason and "[NOM" in str(made.given.correction)
    assert made.given.correction is not None and made.given.correction.urgency == "U1"


def test_a_judgement_sent_twice_stands_once(store, answer):
    given = judged(answer, "rejected", reason="trop bas")
    assert give_feedback(store, given, "op-1") == give_feedback(store, given, "op-1")
    with pytest.raises(ConflictError, match="another judgement"):
        give_feedback(store, given.model_copy(update={"reason": "trop haut"}), "op-1")
    with pytest.raises(ConflictError, match="another judgement"):
        give_feedback(store, given, "op-2")
    with pytest.raises(NotStoredError):
        give_feedback(store, given.model_copy(update={"answer_id": "answer-0", "key": "x" * 8}), "op-1")
    assert len(feedback_between(store, "")) == 1


@pytest.mark.parametrize(
    ("action", "changes", "rule"),
    [
        ("rejected", {}, "a rejection needs one"),
        ("rejected", {"reason": "  "}, "a rejection needs one"),
        ("edited", {}, "an edited answer needs one"),
        ("accepted", {"correction": {"urgency": "U1"}}, "send it as edited"),
        ("edited", {"correction": {}}, "the correction is empty"),
        ("edited", {"correction": {"reply": "```json"}}, "holds a fence"),
        ("liked", {}, "'accepted'"),
        ("edited", {"correction": {"urgency": "U9"}}, "'U1'"),
    ],
)
def test_a_judgement_must_be_whole(action, changes, rule):
    class Any:
        id = "answer-1"

    with pytest.raises(ValidationError, match=rule):
        judged(Any, action, **changes)


def test_a_correction_that_breaks_the_contract_is_refused(store, answer):
    for wrong in ({"specialty": "sorcellerie"}, {"icd10": ["hello"]}):
        with pytest.raises(StoreError, match=r"correction\.(specialty|icd10).*correct that field"):
            give_feedback(store, judged(answer, "edited", correction=wrong), "op-1")
    assert Correction(urgency="U1").mended(TRIAGE).escalate is True
    assert Correction(urgency="U4").mended({**TRIAGE, "escalate": True}).escalate is False


def test_an_accepted_answer_is_a_row_and_a_thumb(store, answer, tmp_path):
    give_feedback(store, judged(answer), "op-1")
    made, [row], [pair] = exported(store, tmp_path)
    assert (made.rows, made.pairs, made.judgements) == (1, 1, 1)
    assert row.id == row.family_id == answer.given.call_id and row.split == "train"
    assert [turn.text for turn in row.turns] == [WORDS, answer.given.text]
    assert row.labels is not None and (row.labels.urgency, row.labels.confidence, row.labels.annotators) == ("U3", "gold", 1)
    assert not row.labels.corrected
    assert (pair.id, pair.thumb, pair.corrected, pair.answer) == (answer.id, "up", None, answer.given.text)
    assert pair.turns == (Turn(speaker="patient", text=WORDS),)


def test_a_corrected_answer_is_what_it_should_have_been(store, answer, tmp_path):
    give_feedback(store, judged(answer, "edited", correction=URGENT), "op-1")
    _, [row], [pair] = exported(store, tmp_path)
    triage = read_triage(row.turns[-1].text)
    assert triage is not None and (triage.urgency, triage.escalate, triage.red_flags) == ("U1", True, ("chest_pain_radiating",))
    assert row.labels is not None and row.labels.urgency == "U1" and row.labels.corrected
    assert SAID not in row.turns[-1].text and "15" in row.turns[-1].text.partition("```")[0]  # a sentence of that urgency
    assert (pair.thumb, pair.corrected, pair.answer) == (None, row.turns[-1].text, answer.given.text)


def test_the_operators_own_sentence_is_kept(store, answer, tmp_path):
    give_feedback(store, judged(answer, "escalated", correction={**URGENT, "reply": "J'appelle le 15."}), "op-1")
    _, [row], _ = exported(store, tmp_path)
    assert row.turns[-1].text.startswith("J'appelle le 15.\n```json")


def test_what_the_rules_raised_is_learnt_when_it_was_accepted(store, tmp_path):
    """The operator accepts what was shown; the model itself had said less."""
    answer = tiny_answer(store, tiny_call(store), decided_by="rules")
    shown = {**TRIAGE, "urgency": "U1", "escalate": True}
    raised = tiny_answer(store, tiny_call(store), decided_by="rules", triage=shown)
    give_feedback(store, judged(raised), "op-1")
    _, [row], [pair] = exported(store, tmp_path)
    assert row.labels is not None and row.labels.urgency == "U1" and pair.corrected == row.turns[-1].text
    assert row.labels.corrected  # for the model, which is what learns
    assert answer.given.call_id != row.id


def test_a_rejection_without_a_better_answer_is_a_thumb_down(store, answer, tmp_path):
    give_feedback(store, judged(answer, "rejected", reason="non"), "op-1")
    made, rows, [pair] = exported(store, tmp_path)
    assert rows == [] and (pair.thumb, pair.corrected) == ("down", None) and made.disputed == 0


def test_operators_must_agree(store, answer, tmp_path):
    give_feedback(store, judged(answer), "op-1")
    give_feedback(store, judged(answer, "edited", correction=URGENT), "op-2")
    made, rows, pairs = exported(store, tmp_path)
    assert (rows, pairs, made.disputed) == ([], [], 1)  # one against one
    give_feedback(store, judged(answer, "edited", correction=URGENT), "op-3")
    made, [row], _ = exported(store, tmp_path)
    assert row.labels is not None
    assert (row.labels.urgency, row.labels.annotators, row.labels.agreement, row.labels.confidence) == ("U1", 3, 0.667, "silver")
    assert exported(store, tmp_path, agreement=0.7)[0].disputed == 1
    give_feedback(store, judged(answer, "edited", correction=URGENT), "op-1")  # the last word of each counts
    _, [row], _ = exported(store, tmp_path, agreement=1.0)
    assert row.labels is not None and (row.labels.agreement, row.labels.confidence) == (1.0, "gold")
    assert exported(store, tmp_path, operators=4)[0].too_few == 1
    for wrong in ({"agreement": 0.5}, {"agreement": 1.1}, {"operators": 0}):
        with pytest.raises(StoreError, match="0.5"):
            export_feedback(store, tmp_path, **wrong)


def test_a_rejection_counts_against_the_others(store, answer, tmp_path):
    give_feedback(store, judged(answer), "op-1")
    give_feedback(store, judged(answer, "rejected", reason="non"), "op-2")
    assert exported(store, tmp_path)[0].disputed == 1


def held_out(folder, *dialogues):
    folder.mkdir(exist_ok=True)
    write_dialogues(folder / "test.jsonl", dialogues)
    return folder


def test_what_stands_in_a_test_split_is_left_out(store, answer, tmp_path):
    give_feedback(store, judged(answer), "op-1")
    _, [row], _ = exported(store, tmp_path / "out")
    other = row.model_copy(
        update={"id": "other", "family_id": "other", "turns": (Turn(speaker="patient", text="autre"), row.turns[-1])}
    )
    by_id = other.model_copy(update={"id": row.id})
    by_family = other.model_copy(update={"family_id": row.id})
    by_words = other.model_copy(update={"turns": (Turn(speaker="patient", text=f"{WORDS.upper()} !"), row.turns[-1])})
    for number, kept in enumerate((by_id, by_family, by_words)):
        made, rows, pairs = exported(store, tmp_path / "out", beside=[held_out(tmp_path / str(number), kept)])
        assert (rows, pairs, made.in_test) == ([], [], 1)
    made, rows, _ = exported(store, tmp_path / "out", beside=[held_out(tmp_path / "9", other)])
    assert (len(rows), made.in_test) == (1, 0)


def test_only_what_the_answer_was_given_to_is_its_prompt(store, tmp_path):
    call = tiny_call(store)
    add_turn(store, call.id, "patient", "et au bras", key="more-0001")
    answer = tiny_answer(store, call, turns_read=2)
    add_turn(store, call.id, "operator", "D'accord.", key="more-0002")
    give_feedback(store, judged(answer), "op-1")
    _, [row], _ = exported(store, tmp_path)
    assert [turn.text for turn in row.turns] == [f"{WORDS} et au bras", answer.given.text]


def test_answers_without_triage_are_counted_and_left_out(store, tmp_path):
    bare = tiny_answer(store, tiny_call(store), kind="suggestion", triage=None)
    give_feedback(store, judged(bare, "rejected", reason="non"), "op-1")
    made, rows, pairs = exported(store, tmp_path)
    assert (rows, pairs, made.unusable) == ([], [], 1)


def test_prepare_takes_the_rows(tmp_path, monkeypatch):
    from llmft.prepare.stage import PrepareOptions, prepare

    monkeypatch.setenv("LLMFT_VAULT", str(tmp_path / "vault"))
    store = open_store(None, tmp_path / "desk")
    answer = tiny_answer(store, tiny_call(store))
    give_feedback(store, judged(answer, "edited", correction=URGENT), "op-1")
    export_feedback(store, tmp_path / "out")
    prepare([str(tmp_path / "out" / ROWS)], tmp_path / "set", PrepareOptions(vault=tmp_path / "vault", workers=1))
    [row] = read_dialogues(tmp_path / "set" / "train.jsonl")
    assert isinstance(row, Dialogue) and row.id == answer.given.call_id and row.labels is not None and row.labels.urgency == "U1"
    assert row.labels.corrected
