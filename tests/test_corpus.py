"""The base's pretraining text: it holds the words, and neither the task nor the held-out wordings."""

from __future__ import annotations

import json
import random
import re
from functools import cache

from wordings import held_out_in

from llmft.dialogue import Triage, read_triage
from llmft.knowledge import protocols
from llmft.prepare.synthetic.corpus import Document, _with_stray_questions, corpus, write_corpus
from llmft.prepare.synthetic.synthesize import Story, pick_family
from llmft.vocabulary import specialties


@cache
def sample() -> tuple[Document, ...]:
    """Two thousand documents."""
    return tuple(corpus(2000, seed=9))


def texts(document: Document) -> list[str]:
    return [document["text"]] if "text" in document else [message["content"] for message in document["messages"]]


def test_same_seed_makes_the_same_documents():
    assert list(corpus(50, seed=2)) == list(corpus(50, seed=2))
    assert list(corpus(50, seed=2)) != list(corpus(50, seed=3))


def test_no_document_shows_the_task():
    """Other JSON may stand there, as in any base's text; never a key of the triage, nor an unfilled slot."""
    keys = [f'"{name}"' for name in Triage.model_fields]
    assert len(keys) == 7
    for document in sample():
        for text in texts(document):
            assert read_triage(text) is None
            assert not any(key in text for key in keys), text
            assert not re.search(r"\{\w+\}", text), text


def test_no_held_out_wording_occurs():
    assert [(text, held_out_in(text)) for document in sample() for text in texts(document) if held_out_in(text)] == []


def test_documents_are_calls_and_prose():
    calls = [document for document in sample() if "messages" in document]
    assert 1000 < len(calls) < 1500
    for document in calls:
        roles = [message["role"] for message in document["messages"]]
        assert roles == ["user", "assistant"] * (len(roles) // 2)
    assert all(set(document) in ({"text"}, {"messages"}) for document in sample())


def test_every_specialty_is_spoken_of_in_both_languages():
    everything = "\n".join(text for document in sample() for text in texts(document))
    for protocol in protocols():
        entry = specialties()[protocol.specialty]
        assert entry.fr in everything and entry.en in everything


def test_stray_questions_are_of_other_specialties_denied_and_take_no_telling_answer_away():
    rng, added, taken = random.Random(3), 0, 0
    for _ in range(150):
        story = Story(rng, pick_family(rng, "train"), rng.choice(("fr", "en")), "train")
        said = [(turn.speaker, turn.text) for turn in story.turns()]
        denials = {
            question: (protocol.specialty, evidence.absent.of(story.lang, "train"))
            for protocol in protocols()
            for complaint in protocol.complaints
            for evidence in complaint.evidence
            for question in evidence.ask.of(story.lang, "train")
        }
        changed = _with_stray_questions(rng, story, said)
        assert changed[0] == said[0]
        old, new = (list(zip(turns[1::2], turns[2::2], strict=True)) for turns in (said, changed))
        assert [pair for pair in old if pair in new] == [pair for pair in new if pair in old]
        assert {pair[1][1] for pair in old if pair not in new}.isdisjoint(story.telling)
        for (asker, question), (answerer, answer) in [pair for pair in new if pair not in old]:
            specialty, wordings = denials[question]
            assert (asker, answerer) == ("operator", "patient")
            assert specialty != story.family.specialty
            assert answer in wordings
        added += len([pair for pair in new if pair not in old])
        taken += len([pair for pair in old if pair not in new])
    assert added > taken > 150


def test_written_corpus_is_one_json_object_a_line(tmp_path):
    path = tmp_path / "corpus.jsonl"
    assert write_corpus(path, 30, seed=2) == 30
    assert [json.loads(line) for line in path.read_text("utf-8").splitlines()] == list(corpus(30, seed=2))
    assert list(tmp_path.iterdir()) == [path]
