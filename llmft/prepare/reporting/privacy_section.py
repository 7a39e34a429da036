"""What was taken out of the texts, how well that works, and what a person who looked has signed."""

from __future__ import annotations

from collections.abc import Sequence

from llmft.page.document import Words, both, note, number, section, share, table
from llmft.page.plots import bars
from llmft.prepare.reporting import names
from llmft.prepare.reporting.card import recall_interval
from llmft.prepare.reporting.report import Report

LAYERS_TITLE: Words = ("Par méthode, dans l'ordre où elles passent", "By method, in the order of their turn")


def privacy_section(report: Report) -> str:
    """Replacements by type and by layer, recall on planted data, the audit."""
    replaced, done = sum(report.placeholders.values()), report.deidentified.get("done", 0)
    mean = f"{report.placeholders_per_dialogue:.1f}"
    by_number = sorted(report.placeholders, key=lambda name: (-report.placeholders[name], name))
    in_turn = sorted(report.layers, key=lambda name: (*names.LAYERS, name).index(name))
    return section(
        "Dé-identification",
        "De-identification",
        "<p>"
        + both(
            f"{number(done)} appels sur {number(report.rows_out)} dé-identifiés ; {number(replaced)} mentions remplacées par un "
            f"repère comme [NOM_1], {mean.replace('.', ',')} par appel.",
            f"{number(done)} of {number(report.rows_out)} calls de-identified; {number(replaced)} mentions replaced by a mark "
            f"such as [NOM_1], {mean} a call.",
        )
        + "</p>",
        *_bars_of([(names.placeholder(name), report.placeholders[name]) for name in by_number], ("Par type", "By type")),
        *_bars_of([(names.LAYERS.get(name, (name, name)), report.layers[name]) for name in in_turn], LAYERS_TITLE),
        _recall(report),
        _audit(report),
    )


def _bars_of(counts: Sequence[tuple[Words, int]], title: Words) -> list[str]:
    if not counts:
        return []
    rows = [(name, {"only": count}) for name, count in counts]
    return [f"<h3>{both(*title)}</h3>", bars(rows, ("mentions remplacées", "mentions replaced"))]


def _recall(report: Report) -> str:
    title = f"<h3>{both('Épreuve : données inventées, retrouvées', 'Test: invented data, found again')}</h3>"
    if not report.recall:
        return title + note("Le rappel n'a pas été mesuré sur ce jeu.", "Recall was not measured on this set.")
    rows = []
    for name, entry in sorted(report.recall.items()):
        low, high = recall_interval(entry["found"], entry["planted"])
        found = share(entry["found"], entry["planted"])
        numbers = (number(entry["planted"]), number(entry["found"]), found, f"{100 * low:.0f}–{100 * high:.0f}")
        rows.append((both(*names.placeholder(name)), *numbers))
    head = ["", both("placées", "planted"), both("retrouvées", "found"), both("rappel", "recall")]
    head.append(both("intervalle à 95 %", "95 % interval"))
    explained = note(
        "À chaque préparation, llmft place les données de personnes inventées dans des appels qu'il a écrits, et compte ce que "
        "ces méthodes y retrouvent. De vrais appels peuvent être plus difficiles : l'audit les mesure.",
        "At each preparation llmft plants the data of invented people in calls of its own and counts what these methods find "
        "again. Real calls may be harder: the audit measures them.",
    )
    return title + explained + table(head, rows)


def _audit(report: Report) -> str:
    title = f"<h3>{both('Audit humain', 'Human audit')}</h3>"
    audit = report.audit
    if audit is None:
        return title + note(
            "Personne n'a encore relu un échantillon. Ajoutez --audit 100 à llmft prepare, ouvrez audit.html, cochez, signez, "
            "puis : llmft data sign FICHIER --set DOSSIER.",
            "Nobody has read a sample yet. Add --audit 100 to llmft prepare, open audit.html, tick, sign, then: "
            "llmft data sign FILE --set FOLDER.",
        )
    leaks, wrong, reviewed, bound = len(audit["leaks"]), len(audit["wrong"]), audit["reviewed"], 100 * audit["leak_bound"]
    words: Words = (
        f"{reviewed} appels relus : une donnée personnelle était restée dans {leaks}, un mot était remplacé à tort dans {wrong}. "
        f"Au plus {f'{bound:.2f}'.replace('.', ',')} % des appels contiennent donc une fuite (borne à 95 %). "
        f"Signé : {audit['signed_by']}, {audit['signed_on']}.",
        f"{reviewed} calls read: personal data was left in {leaks}, a word replaced wrongly in {wrong}. "
        f"So at most {bound:.2f} % of the calls hold a leak (95 % bound). Signed: {audit['signed_by']}, {audit['signed_on']}.",
    )
    return f"{title}<p>{both(*words)}</p>"
