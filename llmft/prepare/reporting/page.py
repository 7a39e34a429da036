"""``report.html``: the report as a page that a clinician, a data steward and a developer can read offline."""

from __future__ import annotations

from pathlib import Path

from llmft.page.document import Words, both, document, note, number, safe, section, share, table
from llmft.page.plots import bars
from llmft.prepare.reporting import names
from llmft.prepare.reporting.calls_section import labels_section, lengths_section
from llmft.prepare.reporting.card import data_card
from llmft.prepare.reporting.counted import counts_table
from llmft.prepare.reporting.counts import NONE, SPLITS
from llmft.prepare.reporting.french import in_french
from llmft.prepare.reporting.names import CALLS, ROWS
from llmft.prepare.reporting.privacy_section import privacy_section
from llmft.prepare.reporting.report import Report, write_report
from llmft.run import write_text


def write_reports(folder: Path, name: str, report: Report) -> None:
    """Write DATA_CARD.md, report.html and, last, report.json: where it stands, the set is whole."""
    write_text(folder / "DATA_CARD.md", data_card(name, report))
    write_text(folder / "report.html", page(name, report))
    write_report(folder / "report.json", report)


def page(name: str, report: Report) -> str:
    """The whole page of the set called ``name``."""
    parts = (
        _lead(),
        _look_at(report),
        _rows(report),
        _splits(report),
        labels_section(report),
        lengths_section(report),
        privacy_section(report),
        _sources(report),
    )
    return document(f"Données préparées : {name}", f"Prepared data: {name}", "".join(parts))


def _lead() -> str:
    return note(
        "Ce que llmft a fait des appels qu'on lui a donnés, pour qu'on puisse entraîner un assistant de tri avec eux. "
        "Aucune parole d'appel n'est montrée ici, et la page n'envoie rien.",
        "What llmft has made of the calls that it was given, so that a triage assistant can be trained on them. "
        "No word of any call is shown here, and the page sends nothing.",
    )


def _look_at(report: Report) -> str:
    """What a person has to know or decide before training; first, because it is what the page is opened for."""
    warnings = [*((in_french(warning), warning) for warning in report.warnings), *_too_long(report), *_unlawful(report)]
    parts = [f'<p class="warning">{both(*map(_sentence, words))}</p>' for words in warnings]
    found = report.check_warnings
    parts.append(counts_table(("Lignes gardées où quelque chose ne va pas (voir warnings.jsonl)",
                               "Rows kept although something does not fit (see warnings.jsonl)"), found, ROWS))  # fmt: skip
    if report.guessed:
        parts.append(f"<h3>{both('Ce qui a été deviné, à confirmer', 'What was guessed, to be confirmed')}</h3>")
        parts.append(f"<ul>{''.join(f'<li>{safe(guess)}</li>' for guess in report.guessed)}</ul>")
    return section("À regarder avant d'entraîner", "To look at before training", *parts) if any(parts) else ""


def _sentence(text: str) -> str:
    return f"{text[:1].upper()}{text[1:].rstrip('.')}."


def _too_long(report: Report) -> list[Words]:
    """Calls that the recipe's training would not take whole."""
    above, limit = (int(report.tokens_by.get(name) or 0) for name in ("above", "limit"))
    if not above:
        return []
    return [
        (
            f"{number(above)} appels dépassent les {number(limit)} tokens que prend la recette (train.max_tokens)",
            f"{number(above)} calls are longer than the {number(limit)} tokens that the recipe takes (train.max_tokens)",
        )
    ]


def _unlawful(report: Report) -> list[Words]:
    """Real calls whose lawful basis nobody has recorded."""
    real, without = report.origins.get("real", 0), report.consents.get(NONE, 0)
    if not real or not without:
        return []
    return [
        (
            f"{number(without)} appels n'indiquent aucune base légale, et {number(real)} appels du jeu sont réels : ce sont des "
            "données de santé (RGPD art. 9). Notez la base de chacun dans son champ consent.",
            f"{number(without)} calls name no lawful basis, and {number(real)} calls of the set are real: they are health data "
            "(GDPR art. 9). Record the basis of each in its field consent.",
        )
    ]


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
    return section(
        "Chaque ligne est comptée",
        "Every row is accounted for",
        f'<div class="tiles">{tiles}</div>',
        bars([(words, {css: count}) for css, words, count in kinds], ROWS) if report.rows_out < report.rows_in else "",
        counts_table(("Pourquoi en quarantaine", "Why quarantined"), report.quarantine_reasons, ROWS),
        counts_table(("Pourquoi refusées", "Why refused"), report.refusal_reasons, ROWS),
        counts_table(("Doublons", "Duplicates"), report.duplicate_kinds, ROWS),
    )


def _tile(count: int, words: Words) -> str:
    return f'<div class="tile"><b>{number(count)}</b>{both(*words)}</div>'


def _splits(report: Report) -> str:
    urgencies_of = report.by_split["urgencies"]
    rows = [
        (
            both(*names.SPLITS[split]),
            number(report.splits[split]),
            share(report.splits[split], report.rows_out),
            number(urgencies_of[split].get("U1", 0)),
            number(report.without_triage[split]),
        )
        for split in SPLITS
    ]
    head = ["", both(*CALLS), both("part", "share"), both("urgences vitales (U1)", "emergencies (U1)")]
    head.append(both("sans bloc de tri", "without triage block"))
    block = note(
        "Le bloc de tri est la réponse structurée (JSON) qui termine un appel : sans elle, l'appel n'apprend pas à trier.",
        "The triage block is the structured answer (JSON) that ends a call: without it a call does not teach triage.",
    )
    missing = block if any(report.without_triage.values()) else ""
    return section("Répartition", "Splits", table(head, rows), missing, note(*_how(report)), _leaks(report))


def _how(report: Report) -> Words:
    """What decided who stands where."""
    families = number(report.families)
    if report.split_by == "record":
        return (
            f"Chaque ligne nommait déjà sa partie, qui a été suivie. {families} scénarios (familles).",
            f"Each row named its split already, and it was followed. {families} scenarios (families).",
        )
    fr, en = (
        f"Par patient et par scénario : tout ce qui se tient est du même côté ({families} groupes, graine {report.seed}).",
        f"By patient and by scenario: what hangs together is on one side ({families} groups, seed {report.seed}).",
    )
    if report.recent_from:
        fr += f" Le test contient les groupes avec un appel récent, à partir du {report.recent_from}."
        en += f" The test set holds the groups with a recent call, from {report.recent_from} on."
    else:
        fr += " Aucune date n'a décidé : tous les appels n'en ont pas, ou trop ont la même."
        en += " No date decided: not all calls have one, or too many share it."
    return fr, en


def _leaks(report: Report) -> str:
    """One line a check: does anything stand on both sides of a split."""
    title = f"<h3>{both('Rien de commun entre les parties ?', 'Nothing shared between the splits?')}</h3>"
    if not report.leaks:
        return title + note("Aucun contrôle n'a été fait.", "No check was made.")
    rows = [
        (
            both(*names.CHECKS.get(check, (check, check))),
            f'<span class="good">✓ {both("jamais dans deux parties", "never in two splits")}</span>'
            if not crossing
            else f'<span class="bad">✗ {number(crossing)} {both("dans plusieurs parties", "in more than one split")}</span>',
        )
        for check, crossing in report.leaks.items()
    ]
    return title + table(["", ""], rows, narrow=True)


def _sources(report: Report) -> str:
    rows = [
        (safe(source["path"]), safe(source.get("format", "")), number(source["rows"]), number(source["quarantined"]))
        for source in report.sources
    ]
    head = [both("fichier", "file"), both("forme", "form"), both("lignes", "rows"), both("quarantaine", "quarantined")]
    files = [
        (f"<code>{safe(name)}</code>{both(*names.FILES.get(name, ('', '')))}", f"<code>{safe(digest)}</code>")
        for name, digest in report.files.items()
    ]
    return section(
        "Sources et fichiers",
        "Sources and files",
        table(head, rows),
        counts_table(("Nature des appels", "Nature of the calls"), report.origins, CALLS, names.ORIGINS),
        counts_table(("Base légale", "Lawful basis"), report.consents, CALLS, names.BASES),
        counts_table(("Licence", "Licence"), report.licenses, CALLS, names.BASES),
        f"<h3>{both('Fichiers écrits', 'Files written')}</h3>{table(['', 'sha256'], files)}",
    )
