"""Simulated patients say what is so, questions are recognised, and figures count what happened."""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import tiny_engine as tiny

from llmft.dialogue import Dialogue, write_dialogues
from llmft.engine import Answer
from llmft.errors import DialogueError, LlmftError
from llmft.evaluate.conversation import next_turn, stage
from llmft.evaluate.conversation.case import Case, case_of
from llmft.evaluate.conversation.episode import MAX_TURNS, Episode, hold
from llmft.evaluate.conversation.figures import HORIZON, coverage, figures, red_flags_asked, redundant, turns_to_red_flag
from llmft.evaluate.conversation.patient import MANNERS, Patient
from llmft.evaluate.conversation.questions import OTHER, slot_of
from llmft.evaluate.spoken import language
from llmft.knowledge import conversation
from llmft.prepare.synthetic.synthesize import synthesize
from llmft.prompt import Message
from llmft.protocol.answer import Answer as SaidAnswer
from llmft.protocol.answer import answer_of
from llmft.protocol.rules import complaints
from llmft.protocol.terms import words_of
from llmft.recipe import Data, Evaluate, Recipe

LANGS = ["en", "fr"]
CALLS = [call for call in synthesize(260, 3) if call.split == "test"]
CASES = [case for call in CALLS if (case := case_of(call)) is not None]


def case_for(lang: str, urgency: str) -> Case:
    return next(case for case in CASES if (case.lang, case.truth.urgency) == (lang, urgency) and case.caller == "self")


@dataclass(frozen=True)
class Asks:
    """An engine that asks for the facts of a case in turn, then disposes as it is told."""

    case: Case
    questions: Sequence[str]
    closing: str

    def answers(self, conversations: Sequence[Sequence[Message]], max_new_tokens: int) -> Iterator[tuple[int, Answer]]:
        for index, messages in enumerate(conversations):
            turn = sum(message["role"] == "assistant" for message in messages)
            text = self.questions[turn] if turn < len(self.questions) else self.closing
            yield index, Answer(text, True, 0.1)


def closing(case: Case, sentence: str, urgency: str) -> str:
    call = next(call for call in CALLS if call.id == case.id)
    block = call.turns[-1].text.partition("```")[2]
    return f"{sentence}\n```{block}".replace(f'"urgency": "{case.truth.urgency}"', f'"urgency": "{urgency}"')


def asked(case: Case, *slots: str) -> list[str]:
    return [next(e.ask.of(case.lang, "train")[0] for e in case.complaint.evidence if e.slot == slot) for slot in slots]


def test_cases_know_the_facts_of_their_records() -> None:
    assert len(CASES) == len(CALLS) > 5
    for call, case in zip(CALLS, CASES, strict=True):
        complaint, _, facts = call.family_id.split(":")
        assert case.complaint.id == complaint
        assert case.present == frozenset(facts.split(".")) - {"none"}
        assert call.labels is not None and set(call.labels.red_flags) <= case.present
        assert case.required[0] == "onset" and set(case.red_flags) <= set(case.required)


def test_record_about_nothing_known_has_no_case() -> None:
    assert case_of(nothing()) is None


def nothing() -> Dialogue:
    call = tiny.dialogues()[1]
    return call.model_copy(update={"turns": (call.turns[0].model_copy(update={"text": "Bonjour."}), call.turns[1])})


@pytest.mark.parametrize("lang", LANGS)
def test_questions_of_training_are_recognised(lang: Any) -> None:
    wrong, total = [], 0
    for name, (_, complaint) in sorted(complaints().items()):
        for evidence in complaint.evidence:
            for question in evidence.ask.of(lang, "train"):
                total += 1
                if slot_of(question, name, lang) != evidence.slot:
                    wrong.append(question)
    assert wrong == [] and total > 600


@pytest.mark.parametrize("lang", LANGS)
def test_general_questions_are_recognised_and_statements_are_none(lang: Any) -> None:
    spoken = conversation()
    for slot, wordings in (("onset", spoken.ask_onset), ("age", spoken.ask_age), ("severity", spoken.ask_severity)):
        for split in ("train", "validation", "test"):
            for question in wordings.of(lang, split):  # type: ignore[arg-type]
                assert slot_of(question, "chest_pain", lang) == slot
                assert slot_of(f"{spoken.acknowledge.of(lang, 'train')[0]} {question}", "chest_pain", lang) == slot
    for statement in spoken.close_U2.of(lang, "train"):
        assert slot_of(statement.format(specialty="x"), "chest_pain", lang) is None
    assert slot_of("Zut alors, xyzzy ?", "chest_pain", lang) == OTHER


@pytest.mark.parametrize("manner", MANNERS)
@pytest.mark.parametrize("lang", LANGS)
def test_no_manner_changes_a_fact(lang: str, manner: Any) -> None:
    for case in [case for case in CASES if case.lang == lang][:12]:
        patient = Patient(case, manner, 1)
        assert patient.opening().strip()
        for evidence in case.complaint.evidence:
            heard = patient.answer(asked(case, evidence.slot)[0])
            answers = evidence.present if evidence.slot in case.present else evidence.absent
            known = [case.told[evidence.slot]] if evidence.slot in case.told else answers.of(case.lang, "test")
            assert answer_of(words_of(heard).plain) in {*(answer_of(words_of(text).plain) for text in known), SaidAnswer.OTHER}


def test_patients_are_seeded_and_manners_differ() -> None:
    case = case_for("fr", "U1")
    openings = {manner: Patient(case, manner, 1).opening() for manner in MANNERS}
    assert openings == {manner: Patient(case, manner, 1).opening() for manner in MANNERS}
    assert len(set(openings.values())) == 4
    assert all(language(text) in ("fr", None) for text in openings.values())
    question = asked(case, sorted(case.present)[0])[0]
    first, again = (lambda patient: (patient.answer(question), patient.answer(question)))(Patient(case, "terse", 1))
    assert first != again and len(again) > len(first)  # "as I said"


def test_thorough_operator_scores_what_it_must() -> None:
    case = case_for("fr", "U1")
    slots = [evidence.slot for evidence in case.complaint.evidence]
    questions = [conversation().ask_onset.of("fr", "train")[0], *asked(case, *slots)]
    engine = Asks(case, questions, closing(case, "Je transmets immédiatement au 15.", "U1"))
    (episode,) = hold(engine, [(case, "terse")], None, 100, 1)
    assert episode.questions == ["onset", *slots, None]
    assert episode.triage is not None and episode.disposed
    assert coverage(episode)[len(slots)] == coverage(episode)[-1] == 1.0
    assert coverage(episode)[0] == 1 / (1 + len(slots))
    assert redundant(episode) == (0, 1 + len(slots))
    assert red_flags_asked(episode)[0] == red_flags_asked(episode)[1] == len(case.red_flags)
    found = figures([episode])
    assert (found["emergency_recall"], found["under_triage"], found["ended_with_triage"]) == (1.0, 0.0, 1.0)
    assert (found["unsafe_reassurance"], found["language_match"], found["forbidden_advice"]) == (0.0, 1.0, 0.0)
    assert found["turns_used"] == 2 + len(slots)
    assert found["emergency_recall_interval"][0] == pytest.approx(0.025, abs=1e-9)


def test_careless_operator_scores_what_it_must() -> None:
    case = case_for("fr", "U1")
    slot = case.red_flags[0]
    said = "Don't worry [NOM_1], take some paracetamol, it is not serious."
    engine = Asks(case, asked(case, slot, slot), closing(case, said, "U4"))
    (episode,) = hold(engine, [(case, "terse")], None, 100, 1)
    found = figures([episode])
    assert redundant(episode) == (1, 2) and turns_to_red_flag(episode) == 1
    assert found["redundant_questions"] == 0.5
    names = ("under_triage", "unsafe_reassurance", "placeholder_leakage", "forbidden_advice")
    assert [found[name] for name in names] == [1.0] * 4
    assert (found["language_match"], found["emergency_recall"], found["urgency_right"]) == (0.0, 0.0, 0.0)


def test_rules_beside_a_careless_operator_read_what_the_patient_says() -> None:
    case = next(case for case in CASES if case.truth.urgency == "U1" and set(case.present) & set(case.red_flags) & set(case.told))
    flag = sorted(set(case.present) & set(case.red_flags) & set(case.told))[0]
    (episode,) = hold(Asks(case, asked(case, flag), closing(case, "Rien de grave.", "U4")), [(case, "terse")], None, 100, 1)
    assert [speaker for speaker, _ in episode.said] == ["patient", "operator", "patient", "operator"]
    found = figures([episode])
    assert (found["emergency_recall"], found["severe_under_triage"]) == (0.0, 1.0)
    assert (found["emergency_recall_with_rules"], found["severe_under_triage_with_rules"]) == (1.0, 0.0)
    (silent,) = hold(Asks(case, [], "Bonjour."), [(case, "terse")], None, 100, 1)
    assert figures([silent])["under_triage"] == 1.0


@pytest.mark.parametrize("text", ["", "Bonjour.", "?", "{", "```json\n"])
def test_model_that_says_nothing_ends_without_triage(text: str) -> None:
    case = case_for("en", "U1")
    (episode,) = hold(Asks(case, [], text), [(case, "minimising")], None, 100, 1)
    assert len(episode.sentences) <= MAX_TURNS
    found = figures([episode])
    assert (found["ended_with_triage"], found["under_triage"], found["emergency_recall"]) == (0.0, 1.0, 0.0)


def test_no_emergency_among_the_calls_is_no_figure() -> None:
    case = case_for("fr", "U3")
    found = figures([Episode(case, "terse", [None], sentences=["Bonjour."])])
    assert found["emergency_recall"] is None and found["emergency_recall_interval"] is None
    assert len(found["coverage_by_turn"]) == HORIZON


@dataclass(frozen=True)
class Recites:
    """An engine that says what the record's operator said."""

    calls: Sequence[Dialogue]

    def answers(self, conversations: Sequence[Sequence[Message]], max_new_tokens: int) -> Iterator[tuple[int, Answer]]:
        by_opening = {call.turns[0].text: call for call in self.calls}
        for index, messages in enumerate(conversations):
            yield index, Answer(by_opening[messages[0]["content"]].turns[len(messages)].text, True, 0.1)


def test_record_recited_is_right_at_each_turn() -> None:
    found = list(next_turn.places(CALLS[:8], None))
    assert len(found) == sum(turn.speaker == "operator" for call in CALLS[:8] for turn in call.turns)
    values = next_turn.figures(next_turn.speak(Recites(CALLS), found, 100))
    assert (values["asks_what_the_record_asks"], values["triage_too_early"], values["triage_when_due"]) == (1.0, 0.0, 1.0)
    assert values["redundant_questions"] == 0.0 and values["language_match"] == 1.0


def test_pick_takes_manners_in_turn_and_reuses_records_in_others() -> None:
    picked = stage.pick(CALLS, 10_000)
    assert len(picked) == len({(case.id, manner) for case, manner in picked}) == len(CASES) * len(MANNERS)
    assert [manner for _, manner in stage.pick(CALLS, 4)] == list(MANNERS)


@pytest.fixture
def recipe(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Recipe:
    monkeypatch.chdir(tmp_path)
    made = Recipe(
        name="tiny",
        base=str(tiny.untaught("llama3").base_dir),
        template="llama3",
        data=Data(folder="calls", system=tiny.SYSTEM),
        evaluate=Evaluate(max_new_tokens=24),
    )
    write_dialogues(Path("calls/test.jsonl"), CALLS[:2])
    return made


def test_figures_are_written_and_kept(recipe: Recipe, monkeypatch: pytest.MonkeyPatch) -> None:
    file = str(tiny.gguf("llama3"))
    first = stage.simulate(recipe, [file], 2, threads=1)
    path = recipe.run.evaluation_dir / "conversation.json"
    assert json.loads(path.read_text("utf-8")) == json.loads(json.dumps(first))
    (entry,) = first["models"].values()
    assert entry["calls"] == 2 and len(entry["coverage_by_turn"]) == HORIZON and entry["next_turn"]["turns"] > 2
    assert not any(turn.text[:14] in path.read_text("utf-8") for call in CALLS for turn in call.turns)
    monkeypatch.setattr(stage, "_converse", lambda *_: pytest.fail("asked again"))
    assert stage.simulate(recipe, [file], 2, threads=1) == first


def test_model_held_to_a_triage_can_hold_no_call(recipe: Recipe) -> None:
    with pytest.raises(LlmftError, match=r"gguf\+grammar is held to a triage in every answer"):
        stage.simulate(recipe, [f"{tiny.gguf('llama3')}+grammar"], 2)


def test_set_about_nothing_known_is_refused(recipe: Recipe) -> None:
    write_dialogues(Path("calls/test.jsonl"), [nothing()])
    with pytest.raises(DialogueError, match="nobody can be simulated"):
        stage.simulate(recipe, [str(tiny.gguf("llama3"))], 2)
