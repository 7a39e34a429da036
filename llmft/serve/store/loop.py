"""From the desk back to training: judgements become rows for ``prepare`` and pairs for ``prefer``.

An answer is judged by whoever saw it; of each operator the last judgement counts. A call becomes a row to learn from where
enough of them hold the same triage, and never when it stands in the test split of a set that is in use, by its id, its family
or its patient's words.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

from llmft.dialogue import Dialogue, Labels, Turn, read_dialogues, write_dialogues
from llmft.errors import StoreError
from llmft.preference import JudgedAnswer
from llmft.run import write_json, write_text
from llmft.serve.store.answers import Answer, answer_row
from llmft.serve.store.calls import Call, call_of
from llmft.serve.store.database import Store
from llmft.serve.store.feedback import Feedback, feedback_rows
from llmft.serve.store.target import Target, agreed, says, target_of
from llmft.vocabulary import plain

ROWS, PAIRS, REPORT = "calls.jsonl", "judged.jsonl", "export.json"


@dataclass(frozen=True)
class Exported:
    """What was written, and why the rest was not."""

    rows: int  # of calls.jsonl
    pairs: int  # of judged.jsonl
    judgements: int
    in_test: int  # answers whose call stands in a test split
    disputed: int  # answers that too few operators agree on
    unusable: int  # answers without a triage, or without a patient's words before them
    too_few: int  # answers that fewer operators have judged than were asked for


@dataclass(frozen=True)
class Judged:
    """An answer with the last judgement of each operator."""

    call: Call
    answer: Answer
    judgements: tuple[Feedback, ...]


@dataclass(frozen=True)
class TestSplit:
    """What must not be learnt from: ids, families and patients' words of test splits."""

    __test__ = False  # no test of pytest's

    names: frozenset[str] = frozenset()
    words: frozenset[str] = frozenset()

    def holds(self, call: Call, turns: Sequence[Turn]) -> bool:
        """Whether the call is one of them."""
        return call.id in self.names or _words(turns) in self.words


def export_feedback(
    store: Store, output_dir: Path, beside: Iterable[Path] = (), *, agreement: float = 2 / 3, operators: int = 1
) -> Exported:
    """Write ``calls.jsonl`` (dialogues), ``judged.jsonl`` (judged answers) and ``export.json`` (the counts) to ``output_dir``.

    ``beside`` names prepared sets whose test split must stay unseen. ``agreement`` is the share of an answer's judges who must
    hold the same urgency and specialty, ``operators`` how many must have judged it.
    """
    if not 0.5 < agreement <= 1 or operators < 1:
        raise StoreError(
            f"agreement {agreement:g} of {operators} operators: give more than 0.5 and at most 1, of at least 1 operator"
        )
    split = _test_split(beside)
    with store.reading() as connection:
        judgements = feedback_rows(connection)
        judged = _by_answer(judgements)
        found = [
            Judged(call_of(connection, answer.given.call_id), answer, tuple(last.values()))
            for answer_id, last in judged.items()
            if (answer := answer_row(connection, answer_id)).given.call_id is not None
        ]
    rows: dict[str, Dialogue] = {}  # one a call: its latest answer that is agreed on
    pairs: list[JudgedAnswer] = []
    left: Counter[str] = Counter()
    for one in found:
        why = _sort(one, split, agreement, operators, rows, pairs)
        left[why] += 1
    exported = Exported(
        len(rows), len(pairs), len(judgements), left["in_test"], left["disputed"],
        left["unusable"] + len(judged) - len(found), left["too_few"],
    )  # fmt: skip
    write_dialogues(output_dir / ROWS, rows.values())
    write_text(output_dir / PAIRS, "".join(pair.model_dump_json(exclude_defaults=True) + "\n" for pair in pairs))
    write_json(output_dir / REPORT, asdict(exported))
    return exported


def _sort(
    one: Judged, split: TestSplit, agreement: float, operators: int, rows: dict[str, Dialogue], pairs: list[JudgedAnswer]
) -> str:
    """Put an answer where it belongs; returns why it is left out, or an empty text."""
    turns, given = _turns(one), one.answer.given
    if not turns or given.triage is None:
        return "unusable"
    if split.holds(one.call, turns):
        return "in_test"
    if len(one.judgements) < operators:
        return "too_few"
    votes = [target_of(given, judgement.given, one.call) for judgement in one.judgements]
    target, share = agreed(votes)
    if target is None and any(votes) or target is not None and share < agreement:
        return "disputed"
    if given.text.strip():  # the model may have said nothing at all
        pairs.append(_pair(one, turns, target))
    if target is not None:
        rows[one.call.id] = _row(one, turns, target, share)
    return ""


def _by_answer(judgements: Iterable[Feedback]) -> dict[str, dict[str, Feedback]]:
    """Answer ─▶ operator ─▶ the last judgement."""
    found: dict[str, dict[str, Feedback]] = {}
    for judgement in judgements:
        found.setdefault(judgement.given.answer_id, {})[judgement.operator] = judgement
    return found


def _turns(one: Judged) -> tuple[Turn, ...]:
    """What the answer was given to: turns of one speaker joined, up to the patient's last words."""
    joined: list[Turn] = []
    for turn in one.call.turns[: one.answer.given.turns_read]:
        if joined and joined[-1].speaker == turn.speaker:
            joined[-1] = joined[-1].model_copy(update={"text": f"{joined[-1].text} {turn.text}"})
        else:
            joined.append(Turn.model_validate({"speaker": turn.speaker, "text": turn.text}))
    while joined and joined[-1].speaker != "patient":
        joined.pop()
    return tuple(joined)


def _row(one: Judged, turns: tuple[Turn, ...], target: Target, share: float) -> Dialogue:
    triage, judges = target.triage, len(one.judgements)
    labels = Labels(
        urgency=triage.urgency,
        specialty=triage.specialty,
        icd10_primary=triage.icd10[0] if triage.icd10 else None,
        red_flags=triage.red_flags,
        annotators=judges,
        agreement=round(share, 3) if judges > 1 else None,
        corrected=not says(one.answer.given.text, target),
        confidence="gold" if share == 1 else "silver",
    )
    return Dialogue(
        schema_version="1",
        id=one.call.id,
        family_id=one.call.id,
        lang=one.call.lang,
        turns=(*turns, Turn(speaker="operator", text=target.text)),
        labels=labels,
        collected_on=one.call.created[:7],
        split="train",
    )


def _pair(one: Judged, turns: tuple[Turn, ...], target: Target | None) -> JudgedAnswer:
    """The answer with a thumb, or with what it should have been; None: all say that it is wrong, nobody what is right."""
    said = one.answer.given.text
    is_good = target is not None and says(said, target)
    return JudgedAnswer(
        schema_version="1",
        id=one.answer.id,
        lang=one.call.lang,
        turns=turns,
        answer=said,
        thumb="up" if is_good else "down" if target is None else None,
        corrected=None if target is None or is_good else target.text,
    )


def _test_split(folders: Iterable[Path]) -> TestSplit:
    names: set[str] = set()
    words: set[str] = set()
    for folder in folders:
        for dialogue in read_dialogues(folder / "test.jsonl"):
            names |= {dialogue.id, dialogue.family_id}
            words.add(_words(dialogue.turns))
    return TestSplit(frozenset(names), frozenset(words))


def _words(turns: Iterable[Turn]) -> str:
    """What the patient says, as names are compared: no case, accents or marks."""
    return " ".join(plain(turn.text) for turn in turns if turn.speaker == "patient")
