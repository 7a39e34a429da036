"""What a simulated patient knows: the facts of a record, without its operator."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from llmft.dialogue import Dialogue
from llmft.evaluate.conversation.questions import slot_of
from llmft.evaluate.prediction import Verdict
from llmft.evaluate.truth import gold_verdict
from llmft.knowledge import Complaint, Lang
from llmft.protocol import matches_in_call
from llmft.protocol.answer import Answer, answer_of
from llmft.protocol.rules import complaints
from llmft.protocol.terms import words_of


@dataclass(frozen=True)
class Case:
    """Who calls about what, and what is so."""

    id: str
    family_id: str
    lang: Lang
    opening: str  # the record's own first words
    complaint: Complaint
    caller: str
    present: frozenset[str]  # facts that are so
    told: Mapping[str, str]  # fact ─▶ the record's own answer to a question for it
    truth: Verdict

    @property
    def required(self) -> tuple[str, ...]:
        """The facts that an operator should ask for: the complaint's own, and since when."""
        return ("onset", *(evidence.slot for evidence in self.complaint.evidence))

    @property
    def red_flags(self) -> tuple[str, ...]:
        """Those of them that may raise the urgency."""
        return tuple(evidence.slot for evidence in self.complaint.evidence if evidence.red_flag)


def case_of(dialogue: Dialogue) -> Case | None:
    """The case of a record; None without a truth, a patient's opening, or a complaint that a protocol knows."""
    truth = gold_verdict(dialogue)
    first = dialogue.turns[0]
    complaint = _complaint(dialogue)
    if truth is None or complaint is None or first.speaker != "patient":
        return None
    told = _told(dialogue, complaint.id)
    slots = {evidence.slot for evidence in complaint.evidence}
    return Case(
        id=dialogue.id,
        family_id=dialogue.family_id,
        lang=dialogue.lang,
        opening=first.text,
        complaint=complaint,
        caller=dialogue.patient.caller,
        present=frozenset(_present(dialogue, told, truth) & slots),
        told=told,
        truth=truth,
    )


def _complaint(dialogue: Dialogue) -> Complaint | None:
    """Of a synthetic call the one of its family, of others the one that the rules read."""
    known = complaints()
    name = dialogue.family_id.partition(":")[0]
    if dialogue.source == "synthetic" and name in known:
        return known[name][1]
    said = ((turn.speaker, turn.text) for turn in dialogue.turns[:-1])  # the last one is the triage
    found = next((match.name for match in matches_in_call(said, dialogue.lang) if match.kind == "complaint"), None)
    return None if found is None else known[found][1]


def _present(dialogue: Dialogue, told: Mapping[str, str], truth: Verdict) -> set[str]:
    """The facts that are so: of a synthetic call those of its family, of others those affirmed or labelled."""
    if dialogue.source == "synthetic":
        return set(dialogue.family_id.rpartition(":")[2].split("."))
    affirmed = {slot for slot, text in told.items() if answer_of(words_of(text).plain) is Answer.YES}
    return set(truth.red_flags) | affirmed


def _told(dialogue: Dialogue, complaint_id: str) -> dict[str, str]:
    """Fact ─▶ what the patient answered in the record."""
    found: dict[str, str] = {}
    for question, answer in zip(dialogue.turns, dialogue.turns[1:], strict=False):
        if question.speaker == "operator" and (slot := slot_of(question.text, complaint_id, dialogue.lang)):
            found.setdefault(slot, answer.text)
    return found
