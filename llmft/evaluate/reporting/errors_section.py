"""Where the model is wrong: the worst errors by id, and who is taken for whom."""

from __future__ import annotations

from llmft.evaluate.contest import CallSet, Contestant
from llmft.evaluate.figures.certainty import confidence
from llmft.evaluate.figures.specialty import accepted, class_scores, confusion, said_specialty
from llmft.evaluate.figures.urgency import UNREADABLE, ranks, said_rank
from llmft.evaluate.prediction import Prediction
from llmft.evaluate.reporting.names import NO_TRIAGE, contestant, specialty, urgency
from llmft.page.curves import shades
from llmft.page.document import PER_CENT, both, decimal, note, number, safe, section, table
from llmft.vocabulary import UNDECIDED

WORST = 20


def worst_errors(predictions: list[Prediction]) -> list[Prediction]:
    """The twenty that would do most harm: emergencies first, then by how far too low, then wrong specialties, surest first."""
    wrong = [p for p in predictions if _harm(p) > (0, 0, 0, 0.0)]
    return sorted(wrong, key=lambda p: (*(-x for x in _harm(p)), p.id))[:WORST]


def _harm(p: Prediction) -> tuple[int, int, int, float]:
    """Missed emergency, levels too low, wrong specialty or too high, confidence."""
    true, said = ranks()[p.gold.urgency], said_rank(p.predicted)
    low = max(said - true, 0) if true and said else 0
    other = int(said_specialty(p) not in accepted(p)) + int(bool(true) and 0 < said < true)
    return (int(low > 0 and true == 1), low, other, confidence(p) if low or other else 0.0)


def errors_section(main: Contestant, beside: Contestant | None, test: CallSet, run_name: str) -> str:
    """The worst errors of the model alone, by id, so that a reader can open the calls themselves; beside the rules, too."""
    with_rules = {p.id: p for p in beside.predictions} if beside else {}
    left = {p.id for p in with_rules.values() if _harm(p)[:2] > (0, 0)}
    rows = []
    for p in worst_errors(main.predictions):
        named = said_specialty(p)
        cells = [f"<code>{safe(p.id)}</code>", both(*urgency(p.gold.urgency)), _answered(p)]
        cells += [_answered(with_rules[p.id])] if beside else []
        cells += [
            both(*specialty(p.gold.specialty)),
            both(*(specialty(named) if named else urgency(NO_TRIAGE))),
            decimal(100 * confidence(p), 0, PER_CENT) if p.urgency_probabilities and p.predicted else "–",
            safe(test.groups[p.id]["lang"]),
        ]
        rows.append(cells)
    head = [both("appel", "call"), both("urgence", "urgency"), both("réponse", "answer"),
            *([both("avec les règles", "with the rules")] if beside else []), both("spécialité", "specialty"),
            both("réponse", "answer"), both("sûr à", "sure"), both("langue", "language")]  # fmt: skip
    rest = ", ".join(sorted(left)[:WORST])
    fr, en = contestant(main.name, run_name)
    return section(
        "Les vingt erreurs les plus graves",
        "The worst twenty errors",
        table(head, rows) if rows else note("Aucune erreur.", "No error."),
        note(
            f"De : {fr}. Urgences manquées d'abord. Les paroles sont dans test.jsonl, sous cet identifiant.",
            f"Of: {en}. Missed emergencies first. What was said lies in test.jsonl under this id.",
        ),
        note(
            f"Jugés moins urgents qu'ils ne le sont, même avec les règles : {len(left)} ({rest}).",
            f"Called less urgent than they are, even with the rules: {len(left)} ({rest}).",
        )
        if left
        else "",
    )


def _answered(p: Prediction) -> str:
    """The urgency that was answered, marked where it is wrong."""
    said = NO_TRIAGE if said_rank(p.predicted) == UNREADABLE or p.predicted is None else p.predicted.urgency
    told = both(*urgency(said))
    return told if said == p.gold.urgency else f'<span class="bad">{told}</span>'


def confusion_section(main: Contestant, run_name: str) -> str:
    """Urgency by urgency and specialty by specialty, and each specialty's scores."""
    levels = [*(name for name in ranks() if name != UNDECIDED), UNDECIDED]
    counts: dict[tuple[str, str], int] = {}
    for p in main.predictions:
        pair = p.gold.urgency, p.predicted.urgency if p.predicted is not None else NO_TRIAGE
        counts[pair] = counts.get(pair, 0) + 1
    true = [(name, urgency(name)) for name in levels if any(row == name for row, _ in counts)]
    said = [(name, urgency(name)) for name in (*levels, NO_TRIAGE)]
    axes = ("vrai", "true"), ("réponse", "answer")
    specialties = {(t, s or NO_TRIAGE): n for (t, s), n in confusion(main.predictions).items()}
    rows = sorted({t for t, _ in specialties})
    columns = [*sorted({*rows, *(s for _, s in specialties if s != NO_TRIAGE)}), NO_TRIAGE]
    scores = [
        (both(*specialty(s.name)), number(s.calls), decimal(s.precision, 2), decimal(s.recall, 2),
         f"{decimal(s.recall_interval[0], 2)} – {decimal(s.recall_interval[1], 2)}", decimal(s.f1, 2))
        for s in class_scores(main.predictions)
    ]  # fmt: skip
    head = ["", both("appels", "calls"), both("précision", "precision"), both("rappel", "recall"), "95 % (Wilson)", "F1"]
    named = [(name, specialty(name) if name != NO_TRIAGE else urgency(name)) for name in columns]
    fr, en = contestant(main.name, run_name)
    return section(
        f"Qu'est-ce qui est pris pour quoi ? ({fr})",
        f"What is taken for what? ({en})",
        f"<h3>{both('Urgence', 'Urgency')}</h3>{shades(true, said, counts, axes)}",
        f"<h3>{both('Spécialité', 'Specialty')}</h3>{shades([(r, specialty(r)) for r in rows], named, specialties, axes)}",
        table(head, scores),
    )
