"""``report.html``: the report as a page that a clinician, a data steward and a developer can read offline."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

from llmft.prepare.reporting.card import data_card
from llmft.prepare.reporting.counts import NONE, SPLITS, UNKNOWN, WORDS_BIN
from llmft.prepare.reporting.document import both, document, note, number, safe, section, share, table
from llmft.prepare.reporting.plots import Words, bars, histogram, legend, quantile
from llmft.prepare.reporting.report import Report, write_report
from llmft.run import write_text
from llmft.vocabulary import UNDECIDED, specialties, urgencies

SPLIT_NAMES: dict[str, Words] = {
    "train": ("entraînement", "training"),
    "validation": ("validation", "validation"),
    "test": ("test", "test"),
}
WITHOUT_LABEL: Words = ("sans étiquette", "without label")
URGENCY_NAMES: dict[str, Words] = {  # short enough to stand beside a bar
    "U1": ("U1 · urgence vitale", "U1 · life-threatening"),
    "U2": ("U2 · dans la journée", "U2 · within a day"),
    "U3": ("U3 · sur rendez-vous", "U3 · appointment"),
    "U4": ("U4 · conseil", "U4 · advice"),
    UNDECIDED: ("à décider par un humain", "for a human to decide"),
    UNKNOWN: WITHOUT_LABEL,
}
CALLS: Words = ("appels", "calls")


def write_reports(folder: Path, name: str, report: Report) -> None:
    """Write DATA_CARD.md, report.html and, last, report.json: where it stands, the set is whole."""
    write_text(folder / "DATA_CARD.md", data_card(name, report))
    write_text(folder / "report.html", page(name, report))
    write_report(folder / "report.json", report)


def page(name: str, report: Report) -> str:
    """The whole page of the set called ``name``."""
    parts = (
        _rows(report),
        _splits(report),
        _labels(report),
        _lengths(report),
        _deidentification(report),
        _notes(report),
        _sources(report),
    )
    return document(f"Données préparées : {name}", f"Prepared data: {name}", "".join(parts))


def _rows(report: Report) -> str:
    """The sum that must come out, with the reasons of what was left aside."""
    kinds: tuple[tuple[str, Words, int], ...] = (
        ("train", ("gardées", "kept"), report.rows_out),
        ("stopped", ("en quarantaine", "quarantined"), report.quarantined),
        ("doubled", ("doublons", "duplicates"), report.duplicates),
        ("dropped", ("refusées", "refused"), report.refused),
    )
    tiles = _tile(report.rows_in, ("lignes lues", "rows in"))
    for sign, (_, words, count) in zip("=+++", kinds, strict=True):
        tiles += f'<span class="sign">{sign}</span>{_tile(count, words)}'
    picture = bars([(words, {css: count}) for css, words, count in kinds], ("lignes", "rows"))
    reasons = "".join(
        _counts_table(title, counts)
        for title, counts in (
            (("Pourquoi en quarantaine", "Why quarantined"), report.quarantine_reasons),
            (("Pourquoi refusées", "Why refused"), report.refusal_reasons),
            (("Doublons", "Duplicates"), report.duplicate_kinds),
        )
        if counts
    )
    return section(
        "Chaque ligne est comptée", "Every row is accounted for", f'<div class="tiles">{tiles}</div>', picture, reasons
    )


def _tile(count: int, words: Words) -> str:
    return f'<div class="tile"><b>{number(count)}</b>{both(*words)}</div>'


def _counts_table(title: Words, counts: Mapping[str, int]) -> str:
    rows = [(safe(name), number(count)) for name, count in sorted(counts.items(), key=lambda item: (-item[1], item[0]))]
    return f"<h3>{both(*title)}</h3>{table(['', both('lignes', 'rows')], rows)}"


def _splits(report: Report) -> str:
    urgencies_of = report.by_split["urgencies"]
    rows = [
        (
            both(*SPLIT_NAMES[split]),
            number(report.splits[split]),
            share(report.splits[split], report.rows_out),
            number(urgencies_of[split].get("U1", 0)),
            number(report.without_triage[split]),
        )
        for split in SPLITS
    ]
    head = ["", both(*CALLS), both("part", "share"), both("urgences vitales (U1)", "emergencies (U1)")]
    head.append(both("sans bloc de tri", "without triage block"))
    how = note(
        f"Répartis par « {report.split_by} », graine {report.seed}, {report.families} familles.",
        f"Split by “{report.split_by}”, seed {report.seed}, {report.families} families.",
    )
    return section("Répartition", "Splits", table(head, rows), how, _leaks(report))


def _leaks(report: Report) -> str:
    """One line a check: does anything stand on both sides of a split."""
    if not report.leaks:
        return note("Aucun contrôle de fuite n'a été fait.", "No leak check was made.")
    rows = [
        (
            safe(check),
            f'<span class="good">✓ {both("aucune fuite", "no leak")}</span>'
            if not crossing
            else f'<span class="bad">✗ {number(crossing)} {both("à cheval", "crossing")}</span>',
        )
        for check, crossing in report.leaks.items()
    ]
    return f"<h3>{both('Contrôles de fuite entre parties', 'Leak checks between splits')}</h3>{table(['', ''], rows)}"


def _labels(report: Report) -> str:
    known = legend([(split, SPLIT_NAMES[split]) for split in SPLITS])
    names = specialties()
    urgency_rows = [
        (URGENCY_NAMES.get(level, (level, level)), _stack(report, "urgencies", level))
        for level in (*urgencies(), UNKNOWN)
        if report.urgencies.get(level)
    ]
    specialty_rows = [
        ((names[name].fr, names[name].en) if name in names else WITHOUT_LABEL, _stack(report, "specialties", name))
        for name, _ in sorted(report.specialties.items(), key=lambda item: (-item[1], item[0]))
    ]
    parts = [
        known,
        f"<h3>{both('Urgence', 'Urgency')}</h3>",
        bars(urgency_rows, CALLS),
        f"<h3>{both('Spécialité', 'Specialty')}</h3>",
        bars(specialty_rows, CALLS),
        _counts_table(("Origine de l'étiquette", "Where the label comes from"), report.confidences),
        _counts_table(("Langue", "Language"), report.languages),
    ]
    if report.agreement:
        kappas = [(safe(label), f"{value:.2f}") for label, value in sorted(report.agreement.items())]
        parts.append(f"<h3>{both('Accord entre deux annotateurs', 'Agreement of two annotators')}</h3>")
        parts.append(table(["", "κ (Cohen)"], kappas))
    return section("Étiquettes", "Labels", *parts)


def _stack(report: Report, kind: str, value: str) -> dict[str, int]:
    return {split: report.by_split[kind][split].get(value, 0) for split in SPLITS}


def _lengths(report: Report) -> str:
    middle, long = quantile(report.turns, 0.5), quantile(report.turns, 0.95)
    words = quantile(report.words, 0.5), quantile(report.words, 0.95)
    return section(
        "Longueur des appels",
        "Length of the calls",
        histogram(report.turns, 1, ("tours de parole par appel", "turns a call"), CALLS),
        note(f"Médiane {middle} ; 95 % ont au plus {long}.", f"Median {middle}; 95 % have at most {long}."),
        histogram(report.words, WORDS_BIN, (f"mots par appel (par {WORDS_BIN})", f"words a call (bins of {WORDS_BIN})"), CALLS),
        note(
            f"Médiane environ {words[0]} mots ; 95 % en ont moins de {words[1] + WORDS_BIN}.",
            f"Median about {words[0]} words; 95 % have fewer than {words[1] + WORDS_BIN}.",
        ),
    )


def _deidentification(report: Report) -> str:
    replaced = sum(report.placeholders.values())
    done = report.deidentified.get("done", 0)
    parts = [
        f"<p>{both(*_replaced(report, done, replaced))}</p>",
        *_bars_of(report.placeholders, ("par type", "by type")),
        *_bars_of(report.layers, ("par couche", "by layer")),
        _recall(report),
        _audit(report),
    ]
    return section("Dé-identification", "De-identification", *parts)


def _replaced(report: Report, done: int, replaced: int) -> Words:
    mean = f"{report.placeholders_per_dialogue:.1f}"
    return (
        f"{number(done)} appels sur {number(report.rows_out)} dé-identifiés ; {number(replaced)} mentions remplacées, "
        f"{mean} par appel.",
        f"{number(done)} of {number(report.rows_out)} calls de-identified; {number(replaced)} mentions replaced, {mean} a call.",
    )


def _bars_of(counts: Mapping[str, int], title: Words) -> list[str]:
    if not counts:
        return []
    rows = [((name, name), {"only": count}) for name, count in sorted(counts.items(), key=lambda item: (-item[1], item[0]))]
    return [f"<h3>{both(*title)}</h3>", bars(rows, ("mentions remplacées", "mentions replaced"))]


def _recall(report: Report) -> str:
    if not report.recall:
        return note("Le rappel n'a pas été mesuré sur ce jeu.", "Recall was not measured on this set.")
    rows = [
        (safe(name), number(entry["planted"]), number(entry["found"]), share(entry["found"], entry["planted"]))
        for name, entry in sorted(report.recall.items())
    ]
    head = ["", both("plantées", "planted"), both("trouvées", "found"), both("rappel", "recall")]
    return (
        f"<h3>{both('Données personnelles plantées, retrouvées', 'Planted personal data, found again')}</h3>{table(head, rows)}"
    )


def _audit(report: Report) -> str:
    audit = report.audit
    if audit is None:
        return note("Aucun audit humain n'a été signé.", "No human audit has been signed.")
    leaks, reviewed, bound = len(audit["leaks"]), audit["reviewed"], 100 * audit["leak_bound"]
    return (
        f"<h3>{both('Audit humain', 'Human audit')}</h3><p>"
        + both(
            f"{leaks} appel(s) avec une fuite sur {reviewed} relus : au plus {bound:.2f} % (borne à 95 %). "
            f"Signé : {audit['signed_by']}, {audit['signed_on']}.",
            f"{leaks} call(s) with a leak among {reviewed} read: at most {bound:.2f} % (95 % bound). "
            f"Signed: {audit['signed_by']}, {audit['signed_on']}.",
        )
        + "</p>"
    )


def _notes(report: Report) -> str:
    if not report.warnings and not report.guessed:
        return ""
    parts = [f'<p class="warning">{safe(warning)}</p>' for warning in report.warnings]
    if report.guessed:
        parts.append(f"<h3>{both('Ce qui a été deviné, à confirmer', 'What was guessed, to be confirmed')}</h3>")
        parts.append(f"<ul>{''.join(f'<li>{safe(guess)}</li>' for guess in report.guessed)}</ul>")
    return section("À savoir", "Good to know", *parts)


def _sources(report: Report) -> str:
    rows = [
        (safe(source["path"]), safe(source.get("format", "")), number(source["rows"]), number(source["quarantined"]))
        for source in report.sources
    ]
    head = [both("fichier", "file"), both("forme", "form"), both("lignes", "rows"), both("quarantaine", "quarantined")]
    files = [(f"<code>{safe(name)}</code>", f"<code>{safe(digest)}</code>") for name, digest in report.files.items()]
    basis = {(name if name != NONE else "–"): count for name, count in report.consents.items()}
    parts = [table(head, rows), _counts_table(("Base légale", "Lawful basis"), basis)]
    parts += [_counts_table(("Licence", "Licence"), report.licenses), _counts_table(("Nature", "Nature"), report.origins)]
    parts.append(f"<h3>{both('Fichiers écrits', 'Files written')}</h3>{table(['', 'sha256'], files)}")
    return section("Sources et fichiers", "Sources and files", *parts)
