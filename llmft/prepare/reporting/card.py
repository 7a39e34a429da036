"""``DATA_CARD.md``: what the set is, where it comes from, on what lawful basis, and what it cannot show."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping

from llmft.prepare.reporting.counts import NONE, SPLITS
from llmft.prepare.reporting.report import Report
from llmft.proportion import upper_bound


def data_card(name: str, report: Report) -> str:
    """The card of the set called ``name``, in Markdown."""
    parts = (
        f"# Data card: {_plain(name)}",
        f"{report.rows_out:,} calls between patients and operators of a medical call centre, prepared with llmft for training "
        "a triage assistant. Not for diagnosis, not for decisions without a human.",
        f"## Lawful basis\n{_basis(report)}",
        f"## Licence and provenance\n{_provenance(report)}",
        f"## Splits\n{_splits(report)}",
        f"## Labels\n{_labels(report)}",
        f"## De-identification\n{_deidentification(report)}",
        f"## Limits\n{_limits(report)}",
        f"## Files\n{_table(('file', 'sha256'), ((f'`{n}`', f'`{d}`') for n, d in report.files.items()))}",
    )
    return "\n\n".join(parts) + "\n"


def recall_interval(found: int, planted: int) -> tuple[float, float]:
    """Clopper-Pearson interval of a recall, 95 %."""
    tail = 0.025
    return 1 - upper_bound(planted - found, planted, tail), upper_bound(found, planted, tail)


def _basis(report: Report) -> str:
    rows = _table(("basis, purpose", "calls"), _counts(report.consents))
    without, real = report.consents.get(NONE, 0), report.origins.get("real", 0)
    if real and without:
        rows += (
            f"\n\n**{without:,} calls name no lawful basis, and {real:,} calls of the set are real.** Calls are health data "
            "(GDPR art. 9): record the basis of each in its `consent` field before training on it."
        )
    return rows + (
        "\n\nPlaceholders make pseudonymised data, which remain personal data (GDPR art. 4(5)). A person's calls are removed "
        "with `llmft data erase` (art. 17); the runs trained on them are listed then."
    )


def _provenance(report: Report) -> str:
    head = ("source", "form", "rows", "quarantined")
    sources = _table(head, ((s["path"], s.get("format", ""), f"{s['rows']:,}", f"{s['quarantined']:,}") for s in report.sources))
    return "\n\n".join(
        (
            _table(("licence", "calls"), _counts(report.licenses)),
            _table(("nature", "calls"), _counts(report.origins)),
            sources,
            f"{report.rows_in:,} rows in = {report.rows_out:,} out + {report.quarantined:,} quarantined + "
            f"{report.duplicates:,} duplicates + {report.refused:,} refused.",
        )
    )


def _splits(report: Report) -> str:
    rows = ((s, f"{report.splits[s]:,}", f"{report.by_split['urgencies'][s].get('U1', 0):,}") for s in SPLITS)
    leaks = "; ".join(f"{check}: {crossing}" for check, crossing in report.leaks.items()) or "not checked"
    return (
        f"{_table(('split', 'calls', 'emergencies (U1)'), rows)}\n\n"
        f"By {report.split_by}, seed {report.seed}, {report.families:,} families. Crossing splits: {_plain(leaks)}."
        + (f" The test set is the calls from {report.recent_from} on." if report.recent_from else "")
    )


def _labels(report: Report) -> str:
    table = _table(("where the label comes from", "calls"), _counts(report.confidences))
    if not report.agreement:
        return f"{table}\n\nNo call was labelled twice, so how far annotators agree is not known."
    head = ("two annotators on", "calls", "same", "Cohen's kappa")
    rows = (
        (name, f"{found['calls']:,}", f"{found['same']:,}", "–" if found["kappa"] is None else f"{found['kappa']:.3f}")
        for name, found in report.agreement.items()
    )
    return f"{table}\n\n{_table(head, rows)}"


def _deidentification(report: Report) -> str:
    done, replaced = report.deidentified.get("done", 0), sum(report.placeholders.values())
    lines = [f"{done:,} of {report.rows_out:,} calls de-identified, {replaced:,} mentions replaced by placeholders."]
    if report.recall:
        lines.append(_table(("type", "planted", "found", "recall", "95 % interval"), map(_recall_row, report.recall.items())))
        lines.append("Measured on personal data of invented people planted into generated calls; real calls may be harder.")
    else:
        lines.append("Recall was not measured on this set.")
    if report.audit is None:
        lines.append("No human has signed an audit of this set.")
    else:
        audit = report.audit
        lines.append(
            f"Human audit: {len(audit['leaks'])} of {audit['reviewed']} calls read held a leak, so at most "
            f"{100 * audit['leak_bound']:.2f} % of the calls do (one-sided 95 % bound). "
            f"Signed: {_plain(audit['signed_by'])}, {audit['signed_on']}."
        )
    return "\n\n".join(lines)


def _recall_row(item: tuple[str, Mapping[str, int]]) -> tuple[str, ...]:
    name, entry = item
    found, planted = entry["found"], entry["planted"]
    low, high = recall_interval(found, planted)
    return name, f"{planted:,}", f"{found:,}", f"{found / planted:.3f}" if planted else "–", f"{low:.3f}–{high:.3f}"


def _limits(report: Report) -> str:
    lines = list(report.warnings)
    if report.origins.get("synthetic"):
        lines.append(f"{report.origins['synthetic']:,} calls are synthetic; figures measured on them say little of real callers.")
    if report.confidences.get("silver"):
        lines.append(f"{report.confidences['silver']:,} calls have weak labels (silver), given by rules and not by people.")
    if report.erasures:
        lines.append(f"{sum(entry['rows'] for entry in report.erasures):,} calls were erased at a person's request.")
    lines.append("The labels are no clinical validation; a clinician has to review the set before any use in care.")
    return "\n".join(f"- {_plain(line)}" for line in lines)


def _counts(counts: Mapping[str, int]) -> Iterable[tuple[str, str]]:
    return ((name, f"{count:,}") for name, count in sorted(counts.items(), key=lambda item: (-item[1], item[0])))


def _table(head: tuple[str, ...], rows: Iterable[tuple[object, ...]]) -> str:
    """A Markdown table; a cell between backticks stands as it is."""
    lines = [head, ("---",) * len(head), *(map(_cell, row) for row in rows)]
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)


def _cell(cell: object) -> str:
    text = str(cell)
    return text if re.fullmatch(r"`[^`|\n]+`", text) else _plain(text)


def _plain(text: object) -> str:
    """One line that Markdown does not take for markup."""
    return re.sub(r"([|<>*\[\]\\])", r"\\\1", re.sub(r"\s+", " ", str(text)))
