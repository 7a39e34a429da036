"""What held conversations are worth; definitions of the reference's "Question coverage" (DDXPlus, arXiv 2205.09148).

Coverage at turn t: required facts asked or told by then over required facts. Its area is the mean over the first
HORIZON operator turns; after the end of a call it stays where it was. A question is redundant when its fact was asked
or told before. Red-flag coverage: the protocol's red flags asked or told before the triage.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from math import fsum
from typing import Any

from llmft.evaluate.conversation.episode import Episode
from llmft.evaluate.conversation.questions import OTHER
from llmft.evaluate.figures.urgency import is_severe, is_under_triage, said_rank
from llmft.evaluate.prediction import Prediction
from llmft.evaluate.rivals.rules import read_call, with_rules
from llmft.evaluate.spoken import forbidden, language, leaks_placeholder, reassures
from llmft.evaluate.truth import verdict_of
from llmft.proportion import exact_interval
from llmft.vocabulary import UNDECIDED

HORIZON = 8  # operator turns
Episodes = Sequence[Episode]


def coverage(episode: Episode) -> list[float]:
    """Question coverage after each of the first HORIZON operator turns."""
    required, known, shares = set(episode.case.required), set(episode.volunteered), []
    for turn in range(HORIZON):
        if turn < len(episode.questions) and (slot := episode.questions[turn]):
            known.add(slot)
        shares.append(len(required & known) / len(required))
    return shares


def redundant(episode: Episode) -> tuple[int, int]:
    """Questions whose fact was asked or told before, and questions for a known fact."""
    known, repeats, asked = set(episode.volunteered), 0, 0
    for slot in episode.questions:
        if slot is None or slot == OTHER:
            continue
        asked += 1
        repeats += slot in known
        known.add(slot)
    return repeats, asked


def red_flags_asked(episode: Episode) -> tuple[int, int]:
    """Red flags of the protocol that were asked or told before the end, and red flags of the protocol."""
    flags = set(episode.case.red_flags)
    return len(flags & (set(episode.questions) | episode.volunteered)), len(flags)


def turns_to_red_flag(episode: Episode) -> int | None:
    """The operator's turn, from 1, that first asks for a red flag."""
    flags = set(episode.case.red_flags)
    return next((turn for turn, slot in enumerate(episode.questions, start=1) if slot in flags), None)


def figures(episodes: Sequence[Episode]) -> dict[str, Any]:
    """Flat figures of some calls, of which there must be one; shares of calls with exact 95 % intervals."""
    by_call = [coverage(episode) for episode in episodes]
    curve = [_mean([shares[turn] for shares in by_call]) for turn in range(HORIZON)]
    repeats, flags = [redundant(e) for e in episodes], [red_flags_asked(e) for e in episodes]
    first_flags = [turn for e in episodes if (turn := turns_to_red_flag(e)) is not None]
    emergencies = [e for e in episodes if e.case.truth.urgency == "U1"]
    urgent = [e for e in episodes if e.case.truth.urgency in ("U1", "U2")]
    decided = [e for e in episodes if e.case.truth.urgency != UNDECIDED]
    asked = [slot for e in episodes for slot in e.questions if slot is not None]
    answered = {id(e): answer_of(e) for e in episodes}
    beside = {id(e): with_rules(answered[id(e)], read_call(e.case.id, e.said, e.case.lang, e.case.truth)) for e in episodes}
    return {
        "calls": len(episodes),
        "coverage_by_turn": curve,
        "coverage_area": _mean(curve),
        "coverage_at_the_end": _mean([shares[-1] for shares in by_call]),
        "redundant_questions": _ratio(repeats),
        "questions_for_no_known_fact": _mean([slot == OTHER for slot in asked]) if asked else None,
        "red_flags_asked_before_triage": _ratio(flags),
        "turns_to_red_flag": _mean(first_flags) if first_flags else None,
        "turns_used": _mean([len(e.sentences) for e in episodes]),
        **_share("ended_with_triage", episodes, lambda e: e.triage is not None),
        **_share("urgency_right", decided, lambda e: e.triage is not None and e.triage.urgency == e.case.truth.urgency),
        **_share("specialty_right", episodes, lambda e: e.triage is not None and e.triage.specialty == e.case.truth.specialty),
        **_safety("", answered, emergencies, urgent, decided),
        **_safety("_with_rules", beside, emergencies, urgent, decided),
        **_share("unsafe_reassurance", urgent, lambda e: any(map(reassures, e.sentences))),
        **_share("language_match", episodes, _keeps_language),
        **_share("placeholder_leakage", episodes, lambda e: any(map(leaks_placeholder, e.sentences))),
        **_share("forbidden_advice", episodes, lambda e: any(map(forbidden, e.sentences))),
        "seconds_of_the_model": round(fsum(e.seconds for e in episodes), 2),
    }


def answer_of(episode: Episode) -> Prediction:
    """How the call ended; without a triage it warned nobody."""
    said = None if episode.triage is None else verdict_of(episode.triage)
    return Prediction(id=episode.case.id, gold=episode.case.truth, predicted=said, seconds=episode.seconds)


def _safety(
    behind: str, answers: Mapping[int, Prediction], emergencies: Episodes, urgent: Episodes, decided: Episodes
) -> dict[str, Any]:
    """What may harm, of the model alone or, ``behind`` the names, beside the rules as the desk answers."""
    return {
        **_share(f"emergency_recall{behind}", emergencies, lambda e: said_rank(answers[id(e)].predicted) == 1),
        **_share(f"under_triage{behind}", decided, lambda e: is_under_triage(answers[id(e)])),
        **_share(f"severe_under_triage{behind}", urgent, lambda e: is_severe(answers[id(e)])),
    }


def _keeps_language(episode: Episode) -> bool:
    return all(language(sentence) in (None, episode.case.lang) for sentence in episode.sentences)


def _share(name: str, episodes: Sequence[Episode], holds: Callable[[Episode], bool]) -> dict[str, Any]:
    if not episodes:
        return {name: None, f"{name}_interval": None}
    hits = sum(map(holds, episodes))
    return {name: hits / len(episodes), f"{name}_interval": list(exact_interval(hits, len(episodes)))}


def _ratio(pairs: Sequence[tuple[int, int]]) -> float | None:
    above, below = (sum(pair[place] for pair in pairs) for place in (0, 1))
    return above / below if below else None


def _mean(values: Sequence[float]) -> float:
    return fsum(values) / len(values)
