"""Calls between a model and simulated patients, many at once, from the first word to the triage."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

from llmft.dialogue import Triage
from llmft.engine import Answer, Engine
from llmft.evaluate.conversation.case import Case
from llmft.evaluate.conversation.patient import Manner, Patient
from llmft.evaluate.conversation.questions import slot_of
from llmft.evaluate.reading import read_answer
from llmft.evaluate.spoken import FENCE, sentence_of
from llmft.prompt import Message

MAX_TURNS = 12  # of the operator; a call that has no triage by then has failed
AT_ONCE = 16  # calls; their turns stay in the engine's cache


@dataclass
class Episode:
    """One call as it was held."""

    case: Case
    manner: Manner
    questions: list[str | None] = field(default_factory=list)  # of each operator's turn: the fact that it asks for
    volunteered: frozenset[str] = frozenset()
    sentences: list[str] = field(default_factory=list)  # what the patient heard
    said: list[tuple[str, str]] = field(default_factory=list)  # by both, in order
    triage: Triage | None = None
    disposed: bool = False  # the model wrote a block, or its beginning
    seconds: float = 0.0


def hold(
    engine: Engine,
    patients: Sequence[tuple[Case, Manner]],
    system: str | None,
    max_new_tokens: int,
    seed: int,
    advance: Callable[[], None] = lambda: None,
) -> list[Episode]:
    """The call of each patient, in their order; ``advance`` is called after each."""
    found: list[Episode] = []
    for start in range(0, len(patients), AT_ONCE):
        found += _hold_together(engine, patients[start : start + AT_ONCE], system, max_new_tokens, seed, advance)
    return found


def _hold_together(
    engine: Engine,
    patients: Sequence[tuple[Case, Manner]],
    system: str | None,
    max_new_tokens: int,
    seed: int,
    advance: Callable[[], None],
) -> list[Episode]:
    """Turn by turn, all that still go on at once."""
    callers = [Patient(case, manner, seed) for case, manner in patients]
    start: list[Message] = [{"role": "system", "content": system}] if system else []
    chats = [[*start, {"role": "user", "content": caller.opening()}] for caller in callers]
    episodes = [
        Episode(case, manner, volunteered=frozenset(caller.said))
        for (case, manner), caller in zip(patients, callers, strict=True)
    ]
    going = list(range(len(patients)))
    for episode, chat in zip(episodes, chats, strict=True):
        episode.said.append(("patient", chat[-1]["content"]))
    for _ in range(MAX_TURNS):
        answers = dict(engine.answers([chats[index] for index in going], max_new_tokens))
        still = []
        for place, index in enumerate(going):
            if _take(episodes[index], answers[place]):
                told = callers[index].answer(episodes[index].sentences[-1])
                episodes[index].said.append(("patient", told))
                chats[index] += [{"role": "assistant", "content": answers[place].text}, {"role": "user", "content": told}]
                still.append(index)
            else:
                advance()
        going = still
        if not going:
            return episodes
    for _ in going:
        advance()
    return episodes


def _take(episode: Episode, answer: Answer) -> bool:
    """Write an operator's turn down; whether the call goes on."""
    sentence = sentence_of(answer.text)
    episode.seconds += answer.seconds
    episode.sentences.append(sentence)
    episode.said.append(("operator", sentence))
    if FENCE in answer.text or "{" in answer.text:
        episode.disposed, episode.triage = True, read_answer(answer).triage
        episode.questions.append(None)
        return False
    episode.questions.append(slot_of(sentence, episode.case.complaint.id, episode.case.lang) if sentence else None)
    return answer.ended and bool(answer.text)
