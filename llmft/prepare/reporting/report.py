"""The figures of a prepared set: what ``report.json``, the page and the data card are written from.

It holds no time and no machine, so that the same sources give the same bytes.
"""

from __future__ import annotations

import dataclasses
import json
from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from datetime import date
from pathlib import Path
from typing import Any

from llmft.errors import DialogueError
from llmft.prepare.reporting.counts import CHARACTERS_A_TOKEN, SPLITS, TOKENS_A_TURN, Counts, Pairs
from llmft.run import write_json

ENOUGH_EMERGENCIES = 150  # in a test set, before its emergency recall can be claimed within a few points
ESTIMATE = f"{CHARACTERS_A_TOKEN} characters a token, {TOKENS_A_TURN} tokens a turn"
ERASED = "erased"  # the reason of rows refused because a person asked for it


@dataclass(frozen=True)
class Report:
    """What went in and what came out; ``rows_in = rows_out + quarantined + duplicates + refused``."""

    rows_in: int
    rows_out: int
    quarantined: int
    duplicates: int
    refused: int
    splits: dict[str, int]
    without_triage: dict[str, int]
    languages: dict[str, int]
    specialties: dict[str, int]
    urgencies: dict[str, int]
    confidences: dict[str, int]
    origins: dict[str, int]  # real, synthetic, simulated
    licenses: dict[str, int]
    consents: dict[str, int]  # lawful basis, purpose and end ─▶ rows
    by_split: dict[str, dict[str, dict[str, int]]]  # specialties, urgencies, languages ─▶ split ─▶ value ─▶ rows
    turns: Pairs  # histogram: (turns, rows)
    words: Pairs  # histogram: (lower edge of WORDS_BIN words, rows)
    deidentified: dict[str, int]  # done, not done
    placeholders: dict[str, int]
    layers: dict[str, int]
    quarantine_reasons: dict[str, int]
    refusal_reasons: dict[str, int]
    duplicate_kinds: dict[str, int]
    seed: int
    split_by: str
    families: int
    leaks: dict[str, int]  # check ─▶ groups or rows that stand in more than one split; 0 is a pass
    sources: tuple[dict[str, Any], ...]
    guessed: tuple[str, ...]
    warnings: tuple[str, ...]
    files: dict[str, str]  # name ─▶ sha256
    recall: dict[str, dict[str, int]] = field(default_factory=dict)  # planted type ─▶ {"planted": n, "found": n}
    agreement: dict[str, dict[str, Any]] = field(default_factory=dict)  # label ─▶ {"calls", "same", "kappa"} of two annotators
    audit: dict[str, Any] | None = None  # a signed audit sheet
    erasures: tuple[dict[str, Any], ...] = ()  # {"date", "rows"} a person who was removed
    recent_from: str | None = None  # the test set is the calls from this day on; None: no date decided
    check_warnings: dict[str, int] = field(default_factory=dict)  # what does not fit in rows that went out ─▶ how often
    characters: Pairs = ()  # histogram: (lower edge of CHARACTERS_BIN characters, rows)
    tokens: Pairs = ()  # histogram: (lower edge of TOKENS_BIN tokens, rows)
    turns_dropped: dict[str, int] = field(default_factory=dict)  # of rows that went out: "trailing" a patient's, "system"
    tokens_by: dict[str, Any] = field(default_factory=dict)  # {"rule"} of an estimate, or what has counted (token_lengths)

    @property
    def placeholders_per_dialogue(self) -> float:
        """Personal details replaced, a dialogue."""
        return sum(self.placeholders.values()) / self.rows_out if self.rows_out else 0.0


def make_report(
    counts: Counts,
    *,
    seed: int,
    split_by: str,
    families: int,
    files: Mapping[str, str],
    sources: Iterable[Mapping[str, Any]] = (),
    leaks: Mapping[str, int] | None = None,
    guessed: Iterable[str] = (),
    warnings: Iterable[str] = (),
    recall: Mapping[str, Mapping[str, int]] | None = None,
    agreement: Mapping[str, Mapping[str, Any]] | None = None,
    audit: Mapping[str, Any] | None = None,
    recent_from: date | None = None,
    tokens: tuple[Pairs, Mapping[str, Any]] | None = None,
) -> Report:
    """The report of one preparation. Raises :class:`DialogueError` when the rows do not add up.

    ``sources`` are {"path", "format", "sha256"}; the rows of each are added here. ``tokens``, where a tokenizer
    has counted them, take the place of the estimate.
    """
    emergencies = counts.total("urgency", "test", "U1")
    counted = _counted(counts)
    if tokens is not None:
        counted |= {"tokens": tokens[0], "tokens_by": dict(tokens[1])}
    return Report(
        **counted,
        seed=seed,
        split_by=split_by,
        families=families,
        leaks=dict(leaks or {}),
        sources=tuple(_with_rows(source, counts) for source in sources),
        guessed=tuple(guessed),
        warnings=(*warnings, *few_emergencies(emergencies, counts.total("split", "test"))),
        files=dict(files),
        recall={name: dict(entry) for name, entry in (recall or {}).items()},
        agreement={name: dict(entry) for name, entry in (agreement or {}).items()},
        audit=dict(audit) if audit else None,
        recent_from=recent_from.isoformat() if recent_from else None,
    )


def recounted(report: Report, kept: Counts, *, files: Mapping[str, str], day: str) -> Report:
    """The report after ``day`` took rows away at a person's request: ``kept`` counts what is left.

    Rows in stay as they were; what is gone is refused. Doing it twice changes nothing.
    """
    gone = report.rows_out - kept.total("rows", "out")
    reasons = dict(report.refusal_reasons)
    if gone:
        reasons[ERASED] = reasons.get(ERASED, 0) + gone
    return dataclasses.replace(
        report,
        **_of_kept(kept),
        rows_out=kept.total("rows", "out"),
        refused=report.refused + gone,
        refusal_reasons=dict(sorted(reasons.items())),
        erasures=(*report.erasures, {"date": day, "rows": gone}) if gone else report.erasures,
        files=dict(files),
    )


def few_emergencies(emergencies: int, dialogues: int) -> tuple[str, ...]:
    """What a test set with too few emergencies can claim, in a sentence; nothing when it has enough or is empty."""
    if not dialogues or emergencies >= ENOUGH_EMERGENCIES:
        return ()
    if not emergencies:
        return ("the test set holds no emergency (U1); nothing can be said of emergency recall: add emergencies",)
    low = 0.025 ** (1 / emergencies)  # Clopper-Pearson's lower end when all of n are found
    return (
        f"the test set holds {emergencies} emergencies (U1), fewer than {ENOUGH_EMERGENCIES}; even a model that finds all "
        f"of them shows an emergency recall of at least {low:.3f} only (95 % interval): add emergencies",
    )


def read_report(path: Path) -> Report:
    """A report.json; raises :class:`DialogueError` when it is absent or of another form."""
    try:
        values = json.loads(path.read_text("utf-8"))
        for name in ("turns", "words", "characters", "tokens"):
            values[name] = tuple((int(edge), int(rows)) for edge, rows in values.get(name, ()))
        for name in ("sources", "guessed", "warnings", "erasures"):
            values[name] = tuple(values[name])
        return Report(**values)
    except OSError as error:
        raise DialogueError(f"{path} cannot be read: {error.strerror}; make it with: llmft prepare") from error
    except (ValueError, KeyError, TypeError, AttributeError, RecursionError) as error:
        raise DialogueError(f"{path} is no report of this version of llmft; run llmft prepare again") from error


def write_report(path: Path, report: Report) -> None:
    """Write report.json, a whole file."""
    write_json(path, dataclasses.asdict(report))


def _balance(counts: Counts) -> dict[str, int]:
    rows = {name: counts.total("rows", name) for name in ("in", "out", "quarantined", "duplicates", "refused")}
    if rows["in"] != sum(rows.values()) - rows["in"]:
        raise DialogueError(
            f"{rows['in']} rows came in, but {rows['out']} out + {rows['quarantined']} quarantined + {rows['duplicates']} "
            f"duplicates + {rows['refused']} refused do not make that; nothing was published: run llmft prepare again"
        )
    return {"rows_in": rows.pop("in"), "rows_out": rows.pop("out"), **rows}


def _counted(counts: Counts) -> dict[str, Any]:
    """The fields that the counts alone decide."""
    return {**_balance(counts), **_of_kept(counts), **_of_dropped(counts)}


def _of_kept(counts: Counts) -> dict[str, Any]:
    """What the rows that went out look like."""
    names = {
        "languages": "lang",
        "specialties": "specialty",
        "urgencies": "urgency",
        "confidences": "confidence",
        "origins": "source",
        "licenses": "license",
        "consents": "consent",
    }
    parts = {name: {split: counts.of(key, split) for split in SPLITS} for name, key in names.items()}
    return {
        **{name: _added(of_split.values()) for name, of_split in parts.items()},
        "by_split": {name: parts[name] for name in ("languages", "specialties", "urgencies", "confidences")},
        "splits": {split: counts.total("split", split) for split in SPLITS},
        "without_triage": {split: counts.total("without triage", split) for split in SPLITS},
        "turns": counts.histogram("turns"),
        "words": counts.histogram("words"),
        "characters": counts.histogram("characters"),
        "tokens": counts.histogram("tokens"),
        "tokens_by": {"rule": ESTIMATE},
        "deidentified": counts.of("deidentified"),
        "placeholders": counts.of("placeholder"),
        "layers": counts.of("layer"),
    }


def _of_dropped(counts: Counts) -> dict[str, Any]:
    """Why the others did not, and what is to be looked at before it is believed."""
    return {
        "quarantine_reasons": counts.of("quarantine"),
        "refusal_reasons": counts.of("refusal"),
        "duplicate_kinds": counts.of("duplicate"),
        "check_warnings": counts.of("warning"),
        "turns_dropped": counts.of("turns dropped"),
    }


def _added(parts: Iterable[Mapping[str, int]]) -> dict[str, int]:
    total: Counter[str] = Counter()
    for part in parts:
        total.update(part)
    return dict(sorted(total.items()))


def _with_rows(source: Mapping[str, Any], counts: Counts) -> dict[str, Any]:
    path = str(source["path"])
    return {**source, "rows": counts.total("file", path, "rows"), "quarantined": counts.total("file", path, "quarantined")}
