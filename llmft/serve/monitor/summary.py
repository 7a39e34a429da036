"""The last days in numbers, read from what is stored, so that every process of a service says the same."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from pydantic import BaseModel, ConfigDict
from sqlalchemy import func, select

from llmft.errors import LlmftError
from llmft.serve.monitor.drift import Level, level, psi
from llmft.serve.monitor.judged import is_under_triage
from llmft.serve.store.answers import Answer, answer_row, answers_between
from llmft.serve.store.database import Store, ago
from llmft.serve.store.feedback import Feedback, feedback_between
from llmft.serve.store.tables import calls, feedback

BEFORE = 4  # times the days: the time before the window is the reference when no file is given
QUANTILES = (0.5, 0.95, 0.99)
Counts = dict[str, Counter[str]]


class Shown(BaseModel):
    """What is answered."""

    model_config = ConfigDict(frozen=True)


class Volume(Shown):
    """A day's work."""

    day: str
    calls: int
    answers: int
    feedback: int


class Drift(Shown):
    """How far the last days are from the reference, for one label."""

    what: str
    psi: float
    level: Level
    reference: dict[str, int]
    recent: dict[str, int]


class Summary(Shown):
    """The last days."""

    days: int
    volumes: tuple[Volume, ...]
    rates: dict[str, float | None]
    latency: dict[str, float | None]
    overrides: dict[str, int]
    drift: tuple[Drift, ...]
    drift_against: str


class Disagreement(Shown):
    """An answer that an operator did not take as it was."""

    answer: str
    call: str | None
    at: str
    by: str
    action: str
    reason: str | None
    said: dict[str, Any]
    corrected: dict[str, Any]
    under_triage: bool


class Disagreements(Shown):
    """The latest first."""

    disagreements: tuple[Disagreement, ...]


def summary(store: Store, days: int, reference: Path | None) -> Summary:
    """Volumes, rates, latency and drift of the last ``days``; ``reference`` is a prepared set's report.json."""
    since = ago(days)
    answers = answers_between(store, since, kind="triage")
    judged = feedback_between(store, since)
    recent = _counts(store, answers, since, None)
    if reference is not None:
        before, against = read_reference(reference), reference.name
    else:
        earlier = answers_between(store, ago(days * (BEFORE + 1)), since, kind="triage")
        before, against = _counts(store, earlier, ago(days * (BEFORE + 1)), since), "the time before"
    return Summary(
        days=days,
        volumes=_volumes(store, since, answers, judged),
        rates=_rates(answers, judged, _under_triaged(store, judged)),
        latency=_latency([answer.given.latency_ms for answer in answers if answer.given.latency_ms is not None]),
        overrides=dict(sorted(Counter(one.given.action for one in judged).items())),
        drift=tuple(_drift(what, before.get(what, Counter()), recent[what]) for what in sorted(recent)),
        drift_against=against,
    )


def read_reference(path: Path) -> Counts:
    """Label counts of a prepared set's report.json; raises :class:`LlmftError`."""
    try:
        report = json.loads(path.read_text("utf-8"))
        names = {"urgency": "urgencies", "specialty": "specialties", "language": "languages"}
        return {what: Counter({str(k): int(n) for k, n in report[name].items()}) for what, name in names.items()}
    except (OSError, ValueError, KeyError, TypeError, AttributeError):
        raise LlmftError(f"{path} is no report.json of a prepared set; give the one of the training data") from None


def disagreements(store: Store, limit: int) -> Disagreements:
    """Edited, rejected and escalated answers, the latest first."""
    asked = select(feedback.c.id).where(feedback.c.action != "accepted").order_by(feedback.c.sequence.desc()).limit(limit)
    with store.reading() as connection:
        wanted = set(connection.execute(asked).scalars())
        oldest = connection.execute(select(func.min(feedback.c.created)).where(feedback.c.id.in_(wanted))).scalar()
    found = [one for one in feedback_between(store, oldest or "~") if one.id in wanted]
    answers = _answers_of(store, found)
    shown = [_disagreement(one, answers[one.given.answer_id]) for one in reversed(found) if one.given.answer_id in answers]
    return Disagreements(disagreements=tuple(shown))


def _disagreement(one: Feedback, answer: Answer) -> Disagreement:
    said = answer.given.triage or {}
    return Disagreement(
        answer=answer.id,
        call=answer.given.call_id,
        at=one.created,
        by=one.operator,
        action=one.given.action,
        reason=one.given.reason,
        said={name: said.get(name) for name in ("urgency", "specialty", "icd10")},
        corrected=one.given.correction.model_dump(exclude_none=True) if one.given.correction else {},
        under_triage=is_under_triage(answer, one.given),
    )


def _answers_of(store: Store, judged: Iterable[Feedback]) -> dict[str, Answer]:
    """The answers that were judged, as far as they were not erased."""
    found: dict[str, Answer] = {}
    with store.reading() as connection:
        for answer_id in dict.fromkeys(one.given.answer_id for one in judged):
            try:
                found[answer_id] = answer_row(connection, answer_id)
            except LlmftError:
                continue
    return found


def _under_triaged(store: Store, judged: Sequence[Feedback]) -> int:
    changed = [one for one in judged if one.given.correction or one.given.action == "escalated"]
    answers = _answers_of(store, changed)
    return sum(is_under_triage(answers[one.given.answer_id], one.given) for one in changed if one.given.answer_id in answers)


def _counts(store: Store, answers: Sequence[Answer], since: str, until: str | None) -> Counts:
    """Labels of answers, and languages of calls."""
    asked = select(calls.c.lang, func.count()).where(calls.c.created >= since).group_by(calls.c.lang)
    asked = asked if until is None else asked.where(calls.c.created < until)
    with store.reading() as connection:
        languages = Counter({str(lang): int(count) for lang, count in connection.execute(asked)})
    labels = [answer.given.triage for answer in answers if answer.given.triage]
    return {
        "urgency": Counter(str(label["urgency"]) for label in labels),
        "specialty": Counter(str(label["specialty"]) for label in labels),
        "language": languages,
    }


def _drift(what: str, before: Mapping[str, int], recent: Mapping[str, int]) -> Drift:
    value = psi(before, recent)
    return Drift(what=what, psi=round(value, 4), level=level(value, before, recent), reference=dict(before), recent=dict(recent))


def _volumes(store: Store, since: str, answers: Sequence[Answer], judged: Sequence[Feedback]) -> tuple[Volume, ...]:
    day = func.substr(calls.c.created, 1, 10)
    with store.reading() as connection:
        rows = connection.execute(select(day, func.count()).where(calls.c.created >= since).group_by(day)).all()
    begun = {str(name): int(count) for name, count in rows}
    given = Counter(answer.created[:10] for answer in answers)
    told = Counter(one.created[:10] for one in judged)
    return tuple(
        Volume(day=name, calls=begun.get(name, 0), answers=given[name], feedback=told[name])
        for name in sorted({*begun, *given, *told})
    )


def _rates(answers: Sequence[Answer], judged: Sequence[Feedback], under: int) -> dict[str, float | None]:
    """Shares of the answers, and of the judged ones; None where there are none."""
    actions = Counter(one.given.action for one in judged)
    return {
        "format_valid": _share(sum(answer.given.valid is True for answer in answers), len(answers)),
        "red_flag": _share(sum(bool(answer.given.rules) for answer in answers), len(answers)),
        "abstained": _share(sum(answer.given.decided_by == "abstained" for answer in answers), len(answers)),
        "decided_by_rules": _share(sum(answer.given.decided_by == "rules" for answer in answers), len(answers)),
        "overridden": _share(sum(n for action, n in actions.items() if action != "accepted"), len(judged)),
        "under_triage": _share(under, len(judged)),
    }


def _share(part: int, whole: int) -> float | None:
    return round(part / whole, 4) if whole else None


def _latency(values_ms: Sequence[float]) -> dict[str, float | None]:
    """Quantiles of the time to an answer, in seconds."""
    ordered = sorted(values_ms)
    found: dict[str, float | None] = {}
    for quantile in QUANTILES:
        place = min(len(ordered) - 1, int(quantile * len(ordered)))
        found[f"p{quantile * 100:.0f}_s"] = round(ordered[place] / 1000, 3) if ordered else None
    return found
