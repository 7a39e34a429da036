"""Out to Label Studio and Argilla, and back."""

from __future__ import annotations

import json
import random
import xml.etree.ElementTree as ElementTree

import pytest
from hypothesis import given
from hypothesis import strategies as st

from llmft.dialogue import Fault, read_triage
from llmft.prepare.labels.label import labels_from
from llmft.prepare.labels.labelling import (
    Labelled,
    argilla_record,
    export_labelling,
    import_labelling,
    label_studio_config,
    label_studio_task,
)
from llmft.prepare.synthetic.synthesize import Story, call, pick_family

FORMS = ("label-studio", "argilla")


def calls(count: int = 6) -> list:
    rng = random.Random(4)
    return [call(Story(rng, pick_family(rng, "train"), rng.choice(("fr", "en")), "train"), f"c{n}") for n in range(count)]


@pytest.mark.parametrize("form", FORMS)
def test_labels_come_back_exactly(tmp_path, form):
    ours = calls()
    ours[0] = ours[0].model_copy(update={"labels": None})
    path = tmp_path / "tasks.json"
    assert export_labelling(path, ours, form) == len(ours)
    assert list(import_labelling(path)) == [Labelled(n, d.id, d.labels, ()) for n, d in enumerate(ours, start=1)]


@pytest.mark.parametrize("form", FORMS)
def test_who_labels_a_call_does_not_read_the_answer_in_it(tmp_path, form):
    dialogue = calls(1)[0]
    assert read_triage(dialogue.turns[-1].text) is not None
    item = label_studio_task(dialogue) if form == "label-studio" else argilla_record(dialogue)
    shown = item["data"]["dialogue"] if form == "label-studio" else item["fields"]["dialogue"]
    assert len(shown) == len(dialogue.turns)
    assert "```" not in json.dumps(shown)


def test_a_label_studio_task_has_the_form_of_its_project():
    dialogue = calls(1)[0]
    task = label_studio_task(dialogue)
    assert task["data"]["dialogue"][0] == {"author": "PATIENT", "text": dialogue.turns[0].text}
    names = {control.get("name") for control in ElementTree.fromstring(label_studio_config())}
    for result in task["predictions"][0]["result"]:
        assert result["from_name"] in names and result["to_name"] == "dialogue"
        assert result["value"][{"choices": "choices", "textarea": "text"}[result["type"]]]


def test_answers_of_label_studio_become_gold(tmp_path):
    task = label_studio_task(calls(1)[0])
    choice = {"to_name": "dialogue", "type": "choices"}
    task["annotations"] = [
        {"completed_by": 3, "was_cancelled": True, "result": []},
        {
            "completed_by": 4,
            "result": [
                {"from_name": "urgency", **choice, "value": {"choices": ["U1"]}},
                {"from_name": "specialty", **choice, "value": {"choices": ["orl"]}},
                {"from_name": "icd10", "to_name": "dialogue", "type": "textarea", "value": {"text": ["j02,9"]}},
                {"from_name": "red_flags", **choice, "value": {"choices": ["cannot_swallow_saliva"]}},
            ],
        },
    ]
    (tmp_path / "export.json").write_text(json.dumps([task]), "utf-8")
    (back,) = import_labelling(tmp_path / "export.json")
    (given,) = back.answers
    assert given.annotator == "label-studio:4"
    answer = labels_from(given.written)
    assert (answer.urgency, answer.specialty, answer.icd10_primary, answer.confidence) == ("U1", "orl", "J02.9", "gold")
    assert answer.red_flags == ("cannot_swallow_saliva",)


@pytest.mark.parametrize("as_list", [False, True])
def test_answers_of_two_people_in_argilla_stay_apart(tmp_path, as_list):
    record = argilla_record(calls(1)[0])
    given = {
        "urgency": [{"value": "U1", "user_id": "a"}, {"value": "U2", "user_id": "b"}],
        "specialty": [
            {"value": "orl", "user_id": "a"},
            {"value": "urgences", "user_id": "b"},
            {"value": "orl", "user_id": "c", "status": "draft"},
        ],
    }
    record["responses"] = [{"question_name": q, **r} for q, all_ in given.items() for r in all_] if as_list else given
    (tmp_path / "records.json").write_text(json.dumps([record]), "utf-8")
    (back,) = import_labelling(tmp_path / "records.json")
    told = [(a.annotator, a.written["urgency"], a.written["specialty"]) for a in back.answers]
    assert told == [("argilla:a", "U1", "orl"), ("argilla:b", "U2", "urgences")]


def test_a_bad_answer_is_a_fault_and_the_rest_goes_on(tmp_path):
    good, bad, alien = label_studio_task(calls(1)[0]), label_studio_task(calls(1)[0]), {"data": {"text": "Martin a mal"}}
    said = {"urgency": "Martin", "specialty": "orl"}
    bad["annotations"] = [{"result": [{"from_name": name, "value": {"choices": [value]}} for name, value in said.items()]}]
    (tmp_path / "export.json").write_text(json.dumps([bad, alien, 3, good]), "utf-8")
    first, second, third, last = import_labelling(tmp_path / "export.json")
    assert isinstance(first, Fault) and (first.line, first.field) == (1, "urgency")
    assert isinstance(second, Fault) and isinstance(third, Fault) and second.line == 2
    assert "Martin" not in f"{first}{second}"
    assert isinstance(last, Labelled)


@pytest.mark.parametrize("content", ["", "{", '{"a": 1}', "[" * 100_000])
def test_a_file_that_is_no_list_is_one_fault(tmp_path, content):
    (tmp_path / "bad.json").write_text(content, "utf-8")
    (fault,) = import_labelling(tmp_path / "bad.json")
    assert isinstance(fault, Fault)


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text(max_size=5),
    lambda inner: (
        st.lists(inner, max_size=3)
        | st.dictionaries(
            st.sampled_from(["data", "annotations", "result", "id", "value", "responses", "metadata", "labels", "from_name"]),
            inner,
            max_size=4,
        )
    ),
    max_leaves=12,
)


@given(st.lists(JSON, max_size=4))
def test_wild_items_are_faults_or_calls(tmp_path_factory, items):
    path = tmp_path_factory.mktemp("wild") / "x.json"
    path.write_text(json.dumps(items), "utf-8")
    assert len(list(import_labelling(path))) == len(items)
