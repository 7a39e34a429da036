"""The knowledge base is complete, consistent, and honest about its splits."""

from __future__ import annotations

from collections import Counter
from itertools import product

import pytest
from pydantic import ValidationError
from wordings import HELD_OUT, LANGS, bilinguals, filled, held_out_in, plain

from llmft.knowledge import Complaint, Evidence, Wordings, conversation, load, protocols
from llmft.vocabulary import icd10_labels, specialties

COMPLAINTS: list[Complaint] = [complaint for protocol in protocols() for complaint in protocol.complaints]
EVIDENCE: list[Evidence] = [evidence for complaint in COMPLAINTS for evidence in complaint.evidence]


def test_protocols_cover_every_specialty_once():
    assert sorted(protocol.specialty for protocol in protocols()) == sorted(set(specialties()) - {"indetermine"})
    assert len(protocols()) == 20
    assert len(COMPLAINTS) == 73


def test_complaints_and_slots_have_names_of_their_own():
    assert [name for name, count in Counter(complaint.id for complaint in COMPLAINTS).items() if count > 1] == []
    assert [name for name, count in Counter(evidence.slot for evidence in EVIDENCE).items() if count > 1] == []


def test_every_code_has_a_lay_label():
    assert {complaint.icd10 for complaint in COMPLAINTS} <= set(icd10_labels())


def test_every_specialty_has_something_urgent_and_something_not():
    for protocol in protocols():
        assert any(evidence.red_flag for complaint in protocol.complaints for evidence in complaint.evidence), protocol.specialty
        assert any(complaint.urgency > "U1" for complaint in protocol.complaints) or protocol.specialty == "urgences"


def test_evidence_never_lowers_the_urgency():
    for complaint in COMPLAINTS:
        assert all(evidence.urgency <= complaint.urgency for evidence in complaint.evidence if evidence.urgency), complaint.id


def test_no_held_out_wording_stands_inside_a_train_wording():
    found = [
        (place, lang, wording, held)
        for (place, bilingual), lang in product(bilinguals(), LANGS)
        for wording in bilingual.of(lang, "train")
        for text in filled(wording, lang)
        for held in held_out_in(text)
    ]
    assert found == []


def test_no_held_out_wording_is_a_word_of_a_complaint():
    texts = [word for complaint in COMPLAINTS for lang in LANGS for word in complaint.words.of(lang)]
    texts += [complaint.names.of(lang) for complaint in COMPLAINTS for lang in LANGS]
    texts += [evidence.label.of(lang) for evidence in EVIDENCE for lang in LANGS]
    assert len(texts) > 1000
    assert [(text, held_out_in(text)) for text in texts if held_out_in(text)] == []


def test_validation_and_test_share_no_wording():
    homes: dict[tuple[str, str], set[str]] = {}
    for (_, bilingual), lang, split in product(bilinguals(), LANGS, HELD_OUT):
        for wording in bilingual.of(lang, split):
            homes.setdefault((lang, plain(wording)), set()).add(split)
    assert [wording for wording, splits in homes.items() if len(splits) > 1] == []


@pytest.mark.parametrize("kind", ["says", "says_relative"])
def test_no_two_complaints_are_told_in_the_same_words(kind):
    told = Counter(
        (lang, plain(wording))
        for complaint in COMPLAINTS
        for lang, split in product(LANGS, ("train", *HELD_OUT))
        for wording in getattr(complaint, kind).of(lang, split)
    )
    assert [wording for wording, count in told.items() if count > 1] == []


def test_answers_begin_with_yes_or_no():
    starts = {"fr": ("oui", "non"), "en": ("yes", "no")}
    for evidence, lang, split in product(EVIDENCE, LANGS, ("train", *HELD_OUT)):
        yes, no = starts[lang]
        assert all(plain(text).split()[0] == yes for text in evidence.present.of(lang, split)), evidence.slot
        assert all(plain(text).split()[0] == no for text in evidence.absent.of(lang, split)), evidence.slot


def test_questions_end_as_their_language_wants():
    for evidence, split in product(EVIDENCE, ("train", *HELD_OUT)):
        assert all(question.endswith(" ?") for question in evidence.ask.of("fr", split)), evidence.slot
        assert all(question.endswith("?") and not question.endswith(" ?") for question in evidence.ask.of("en", split)), (
            evidence.slot
        )


# Words that made "yes" say that all is well; found once in questions after dangerous facts.
ALL_IS_WELL = (
    "arrivez vous a",
    "peut on prononcer",
    "can you talk",
    "can you wake",
    "could you say",
    "passe t elle encore",
    "still go down",
    "est il bien pris",
    "taken properly",
    "est elle supportable",
    "bearable",
    "sont elles claires",
    "mind clear",
    "ouvre t il les yeux",
)


def test_yes_never_means_that_the_fact_is_absent():
    questions = [
        f" {plain(question)} "
        for evidence, lang, split in product(EVIDENCE, LANGS, ("train", *HELD_OUT))
        for question in evidence.ask.of(lang, split)
    ]
    assert len(questions) > 2000
    assert [question for question in questions for mark in ALL_IS_WELL if f" {mark} " in question] == []


def test_says_relative_names_the_relative_and_says_does_not():
    for complaint, lang, split in product(COMPLAINTS, LANGS, ("train", *HELD_OUT)):
        assert all("{who}" in text for text in complaint.says_relative.of(lang, split)), complaint.id
        assert not any("{" in text for text in complaint.says.of(lang, split)), complaint.id


def test_every_complaint_has_a_relative_who_may_call():
    for complaint, lang in product(COMPLAINTS, LANGS):
        (low, high), sex = complaint.patient.age, complaint.patient.sex
        fitting = [r for r in conversation().relatives[lang] if r.age[0] <= high and low <= r.age[1] and sex in ("any", r.sex)]
        assert fitting, (complaint.id, lang)


def test_unknown_keys_are_refused():
    with pytest.raises(ValidationError, match="tests"):
        Wordings.model_validate({"train": ["a"], "validation": ["b"], "test": ["c"], "tests": ["d"]})


def test_every_file_is_dated_and_sourced():
    for name in ("specialties.yaml", "urgencies.yaml", "icd10.yaml", "conversation.yaml", "prose.yaml", "ddxplus.yaml"):
        assert {"date", "source"} <= set(load(name)), name
    assert all(protocol.date and protocol.source for protocol in protocols())
