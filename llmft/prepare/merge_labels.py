"""Labels that people gave in Label Studio or Argilla, merged into a prepared set: ``llmft data label --import``.

annotations.jsonl    in the set, one call a line: {"id", "answers": [{"annotator", "urgency", "specialty", "icd10", "red_flags"}]}

Every answer is kept, so that a second person's, imported later, meets the first one's. One answer takes the place of
the label that the call had; several become one label, silver where they differ, and no test set takes that. The
annotations are written first and the report last, so that a killed import is finished by doing it again.
"""

from __future__ import annotations

import dataclasses
import json
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import date
from functools import reduce
from itertools import combinations
from pathlib import Path
from typing import Any

from llmft.dialogue import Dialogue, Fault, Labels, as_line, read_triage, scan_dialogues
from llmft.errors import DialogueError
from llmft.prepare.call import RawCall
from llmft.prepare.cleaning.checks import check_dialogue
from llmft.prepare.cleaning.normalise import FENCE
from llmft.prepare.database import build_database
from llmft.prepare.extras import write_parquets
from llmft.prepare.labels.agreement import agreement, rated_twice
from llmft.prepare.labels.label import combined, labels_from, triage_of
from llmft.prepare.labels.labelling import QUESTIONS, import_labelling
from llmft.prepare.lineage import remember_version
from llmft.prepare.output import ANNOTATIONS
from llmft.prepare.reporting.audit import audit_of, forget_calls
from llmft.prepare.reporting.counts import Counts, facts
from llmft.prepare.reporting.page import write_reports
from llmft.prepare.reporting.report import Report, few_emergencies, read_report, recounted
from llmft.prepare.splits import SPLITS
from llmft.prepare.token_lengths import with_exact_tokens
from llmft.run import atomic_path, sha256, write_text

NO_CALL = "no call of this set; import the answers into the set that was exported"
TWICE = "an earlier item is of the same call; export the project once"
LABELS_LEFT = "{} labels of people contradict the calls as they are now and were not taken; the first: {}"
DECIDING = ("urgency", "specialty", "icd10_primary", "red_flags")
Answers = dict[str, dict[str, Any]]  # annotator ─▶ what they wrote


@dataclass
class Merged:
    """What an import did."""

    labelled: int = 0  # calls of the file that now have a label of people's
    unanswered: int = 0  # calls of the file that nobody labelled
    changed: Counter[str] = field(default_factory=Counter)  # field ─▶ calls whose label was another one
    disputed: list[str] = field(default_factory=list)  # ids: people differ in urgency or specialty
    unused: list[str] = field(default_factory=list)  # ids of those of the test set: their labels stayed as they were
    faults: list[Fault] = field(default_factory=list)
    agreement: dict[str, dict[str, Any]] = field(default_factory=dict)  # as the report has it


def merge_labels(folder: Path, answers_path: Path) -> Merged:
    """Merge the answers of ``answers_path`` into the set in ``folder``; what cannot be used is told of in ``faults``.

    Raises :class:`DialogueError` when the folder is no whole set, or no answer can be used.
    """
    report_path = folder / "report.json"
    report = read_report(report_path)
    merged, places = Merged(), {}
    known = read_annotations(folder)
    for item in import_labelling(answers_path):
        if isinstance(item, Fault):
            merged.faults.append(item)
        elif item.id in places:
            merged.faults.append(Fault(str(answers_path), item.number, "id", TWICE))
        else:
            places[item.id] = item.number
            merged.unanswered += not item.answers
            if item.answers:
                known.setdefault(item.id, {}).update({answer.annotator: dict(answer.written) for answer in item.answers})
    lines = _relabelled(folder, known, places, str(answers_path), merged)
    if not lines and merged.faults:
        raise DialogueError(f"{merged.faults[0]}; no answer of {answers_path} could be used")
    write_text(folder / ANNOTATIONS, "".join(_annotation_line(name, given) for name, given in known.items()))
    _rewrite(folder, lines)
    merged.agreement = _agreement(known)
    _publish(folder, dataclasses.replace(report, agreement={**report.agreement, **merged.agreement}))
    return merged


def with_peoples_labels(folder: Path, report: Report) -> Report:
    """The set that was just made in ``folder``, with the labels that people gave its calls before, and its report.

    Answers to calls that are not in the set now are kept for a set in which they are.
    """
    known, merged = read_annotations(folder), Merged()
    lines = _relabelled(folder, dict(known), {}, ANNOTATIONS, merged) if known else {}
    if not lines and not merged.faults:
        return report
    _rewrite(folder, lines)
    here = {name: known[name] for rows in lines.values() for name in rows}
    said = tuple(f"{fault.field}: {fault.reason}" for fault in merged.faults)
    warnings = (*report.warnings, *(LABELS_LEFT.format(len(said), said[0]) for _ in said[:1]))
    together_say = {**report.agreement, **_agreement(here)}
    unsigned = audit_of(folder, report.files)[1]  # of the set without these labels; a signature may be of the one with them
    changed = _publish(folder, dataclasses.replace(report, agreement=together_say, warnings=warnings, audit=None))
    audit, still = audit_of(folder, changed.files)
    warnings = (*(said for said in changed.warnings if said not in unsigned), *still)
    if (audit, warnings) != (changed.audit, changed.warnings):
        changed = dataclasses.replace(changed, audit=audit, warnings=warnings)
        write_reports(folder, folder.name, changed)
    return changed


def read_annotations(folder: Path) -> dict[str, Answers]:
    """Call ─▶ every answer that was imported so far; raises :class:`DialogueError` for a damaged file."""
    path = folder / ANNOTATIONS
    found: dict[str, Answers] = {}
    try:
        for line in path.read_text("utf-8").splitlines() if path.is_file() else ():
            row = json.loads(line)
            found[row["id"]] = {answer.pop("annotator"): answer for answer in row["answers"]}
    except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
        raise DialogueError(f"{path} is damaged; remove it and import the answers again") from error
    return found


def describe(merged: Merged, folder: Path) -> list[str]:
    """What happened and what is left to do, a sentence a line."""
    changes = ", ".join(f"{name} {count}" for name, count in merged.changed.most_common()) or "nothing"
    lines = [f"{folder}: {merged.labelled} calls labelled by people; changed: {changes}"]
    if merged.unanswered:
        lines.append(f"{merged.unanswered} calls have no answer yet")
    for name, found in merged.agreement.items():
        kappa = "–" if found["kappa"] is None else f"{found['kappa']:.2f}"
        lines.append(f"two annotators on {name}: {found['calls']} calls, {found['same']} alike, kappa {kappa}")
    if merged.disputed:
        lines.append(f"annotators differ on {len(merged.disputed)} calls, marked silver: {_listed(merged.disputed)}")
    if merged.unused:
        lines.append(f"of these {len(merged.unused)} are of the test set and keep their label: {_listed(merged.unused)}")
    return lines


def _listed(names: Sequence[str], most: int = 10) -> str:
    return ", ".join(names[:most]) + (f" and {len(names) - most} more" if len(names) > most else "")


def _relabelled(
    folder: Path, known: dict[str, Answers], places: Mapping[str, int], file: str, merged: Merged
) -> dict[str, dict[str, str]]:
    """Split ─▶ id ─▶ the new line of each call that people labelled; answers of calls that are gone leave ``known``."""
    lines: dict[str, dict[str, str]] = {}
    seen = set()
    for dialogue in (row for split in SPLITS for row in _dialogues(folder, split)):
        if dialogue.id not in known:
            continue
        seen.add(dialogue.id)
        made = _labelled(dialogue, known[dialogue.id], merged)
        if isinstance(made, Fault):
            merged.faults.append(dataclasses.replace(made, file=file, line=places.get(dialogue.id, 0)))
            del known[dialogue.id]
            continue
        lines.setdefault(str(dialogue.split), {})[dialogue.id] = as_line(made)
        merged.labelled += dialogue.id in places and dialogue.id not in merged.unused
    for name in known.keys() - seen:
        if name in places:
            merged.faults.append(Fault(file, places[name], "id", NO_CALL))
        del known[name]
    merged.faults.sort(key=lambda fault: fault.line)
    return lines


def _labelled(dialogue: Dialogue, answers: Answers, merged: Merged) -> Dialogue | Fault:
    """The call with what people say of it, in its labels and in its triage block."""
    given = [labels_from(answers[name], "real", dialogue.lang) for name in sorted(answers)]
    labels = together([labels for labels in given if labels is not None])
    if labels.confidence == "silver":
        merged.disputed.append(dialogue.id)
        if dialogue.split == "test":
            merged.unused.append(dialogue.id)
            return dialogue
    before = dialogue.labels
    if before is not None:  # what nobody was asked for
        kept = {name: getattr(before, name) for name in ("disposition", "differential", "required_slots", "corrected")}
        labels = labels.model_copy(update=kept)
    made = _with_block(dialogue, labels)
    found = check_dialogue(made, read_triage(made.turns[-1].text), "", 0)
    if found.faults:
        return found.faults[0]
    merged.changed.update(name for name in DECIDING if (getattr(before, name, None) or None) != (getattr(labels, name) or None))
    return made


def together(answers: Sequence[Labels]) -> Labels:
    """What several people say as one label: gold where all agree in urgency and specialty, silver where they differ."""
    one = reduce(combined, answers)
    if len(answers) == 1:
        return one
    same = [(a.urgency == b.urgency) + (a.specialty == b.specialty) for a, b in combinations(answers, 2)]
    share = sum(same) / (2 * len(same))
    acceptable = tuple(dict.fromkeys([one.specialty, *(labels.specialty for labels in answers)]))
    return one.model_copy(
        update={
            "annotators": len(answers),
            "agreement": round(share, 3),
            "specialty_acceptable": acceptable if len(acceptable) > 1 else (),
            "confidence": "gold" if share == 1 else "silver",
        }
    )


def _with_block(dialogue: Dialogue, labels: Labels) -> Dialogue:
    """The block follows the labels; a summary that says more than the old label's names stays."""
    last = dialogue.turns[-1]
    block, old = triage_of(labels, dialogue.lang), read_triage(last.text)
    was = triage_of(dialogue.labels, dialogue.lang).summary if dialogue.labels else None
    if old is not None and old.summary != was:
        block = block.model_copy(update={"summary": old.summary, "missing_info": old.missing_info})
    said = last.text.partition(FENCE)[0].rstrip()
    text = f"{said}\n{block.as_block()}" if said else block.as_block()
    return dialogue.model_copy(update={"labels": labels, "turns": (*dialogue.turns[:-1], last.model_copy(update={"text": text}))})


def _dialogues(folder: Path, split: str) -> Iterator[Dialogue]:
    for row in scan_dialogues(folder / f"{split}.jsonl"):
        if isinstance(row, Fault):
            raise DialogueError(f"{row}; the set is damaged: make it again with: llmft prepare")
        yield row


def _annotation_line(name: str, answers: Answers) -> str:
    listed = [{"annotator": annotator, **{q: written.get(q) for q in QUESTIONS}} for annotator, written in answers.items()]
    return json.dumps({"id": name, "answers": listed}, ensure_ascii=False) + "\n"


def _rewrite(folder: Path, lines: Mapping[str, Mapping[str, str]]) -> None:
    for split, new in lines.items():
        path = folder / f"{split}.jsonl"
        with (
            path.open(encoding="utf-8", newline="\n") as old,
            atomic_path(path) as partial,
            partial.open("w", encoding="utf-8", newline="\n") as file,
        ):
            file.writelines(new.get(json.loads(line)["id"], line) for line in old)


def _agreement(known: Mapping[str, Answers]) -> dict[str, dict[str, Any]]:
    """Of the calls that at least two people labelled; with more, the first two by name count."""
    pairs: dict[str, Counter[tuple[str, str]]] = {}
    for answers in known.values():
        if len(answers) > 1:
            first, second = (answers[name] for name in sorted(answers)[:2])
            for name, a, b in rated_twice(RawCall("", 0, (), labels=first, labels_second=second)):
                pairs.setdefault(name, Counter())[a, b] += 1
    return agreement(pairs)


def _publish(folder: Path, report: Report) -> Report:
    """Report, page, card, database and Parquet once more; a signed audit holds, for labels name nobody."""
    names = [f"{split}.jsonl" for split in SPLITS]
    files = {**report.files, **{name: sha256(folder / name) for name in names}}
    kept = Counts()
    for split in SPLITS:
        for dialogue in _dialogues(folder, split):
            kept.keep(facts(dialogue.model_dump(exclude_defaults=True)), split)
    changed = with_exact_tokens(recounted(report, kept, files=files, day=date.today().isoformat()), report, folder)
    outdated, warnings = _few(report), _few(changed)
    changed = dataclasses.replace(changed, warnings=(*(w for w in report.warnings if w not in outdated), *warnings))
    audit = forget_calls(folder, (), files) if report.audit is not None else None
    remember_version(folder, files)
    if (folder / "train.parquet").is_file():
        write_parquets(folder)
    build_database(folder)
    changed = dataclasses.replace(changed, audit=audit)
    write_reports(folder, folder.name, changed)
    return changed


def _few(report: Report) -> tuple[str, ...]:
    """What the emergencies of the test set allow to claim."""
    urgent = report.by_split.get("urgencies", {}).get("test", {}).get("U1", 0)
    return few_emergencies(urgent, report.splits.get("test", 0))
