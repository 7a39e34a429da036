"""The explanation as one page: the transcript with the weight of each clause, deletion curves, nearest training calls."""

from __future__ import annotations

from collections.abc import Sequence

from llmft.dialogue import Dialogue, Triage
from llmft.evaluate.explain.clauses import Clause
from llmft.evaluate.explain.neighbours import Neighbour
from llmft.evaluate.explain.occlusion import Explanation
from llmft.evaluate.prediction import Verdict
from llmft.evaluate.reporting.names import specialty
from llmft.evaluate.spoken import sentence_of
from llmft.evaluate.truth import gold_verdict, verdict_of
from llmft.page.curves import Curve, curves
from llmft.page.document import both, decimal, document, note, safe, section, table
from llmft.vocabulary import specialties, urgencies

SHADES = 4
LEAST = 0.05  # of an effect that is shown, natural logarithm
TITLES = {"urgency": ("Urgence", "Urgency"), "specialty": ("Spécialité", "Specialty")}


def page(
    dialogue: Dialogue,
    model: str,
    answered: tuple[str, Triage | None],
    clauses: Sequence[Clause],
    found: Sequence[Explanation],
    near: Sequence[Neighbour],
) -> str:
    """The whole page, of which ``answered`` is the model's sentence and triage. It holds the patient's words."""
    body = "".join(
        [
            note(
                f"Modèle {model}. Cette page contient les paroles du patient : à garder là où sont les appels.",
                f"Model {model}. This page holds the patient's words: keep it where the calls are.",
            ),
            _answer(dialogue, *answered),
            *(_explained(dialogue, clauses, one) for one in found),
            _near(near),
        ]
    )
    return document(f"Pourquoi ? Appel {dialogue.id}", f"Why? Call {dialogue.id}", body)


def _answer(dialogue: Dialogue, sentence: str, triage: Triage | None) -> str:
    """What the model said, and what the record says is right."""
    rows = [(both("Dans le dossier", "In the record"), *_labels(gold_verdict(dialogue)))]
    rows.insert(0, (both("Réponse du modèle", "Answer of the model"), *_labels(verdict_of(triage) if triage else None)))
    unread = note(
        "Aucun tri lisible : ce qui suit explique ce qui aurait été le plus probable.",
        "No triage that can be read: what follows explains what would have been likeliest.",
    )
    return section(
        "La réponse",
        "The answer",
        f'<div class="turn"><b>{both("Modèle", "Model")}</b>{safe(sentence or "–")}</div>',
        table(["", both(*TITLES["urgency"]), both(*TITLES["specialty"])], rows, narrow=True),
        "" if triage else unread,
    )


def _labels(verdict: Verdict | None) -> tuple[str, str]:
    if verdict is None:
        return "–", "–"
    return safe(verdict.urgency), both(*specialty(verdict.specialty))


def _explained(dialogue: Dialogue, clauses: Sequence[Clause], one: Explanation) -> str:
    fr, en = TITLES[one.field]
    label = (urgencies() if one.field == "urgency" else specialties())[one.label]
    said = f"<p><b>{safe(one.label)}</b> · {both(label.fr, label.en)} · {decimal(100 * one.probability, 1, ' %')}</p>"
    told = note(
        "Bleu : sans ces mots le modèle serait moins sûr de ce choix. Rouge : ils parlent contre lui. La probabilité est celle "
        "du choix avant que la phrase du modèle soit dite.",
        "Blue: without these words the model would be less sure of this choice. Red: they speak against it. The probability is "
        "that of the choice before the model's sentence is spoken.",
    )
    return section(fr, en, said, _transcript(dialogue, clauses, one), told, _weightiest(dialogue, clauses, one), _deletion(one))


def _transcript(dialogue: Dialogue, clauses: Sequence[Clause], one: Explanation) -> str:
    most = max((abs(effect) for effect in one.effects), default=0.0)
    marks = {clause: _mark(effect, most) for clause, effect in zip(clauses, one.effects, strict=True) if abs(effect) >= LEAST}
    lines = []
    for number, turn in enumerate(dialogue.turns[:-1]):  # the last one is the record's own triage, which the model never saw
        who = both("Patient", "Patient") if turn.speaker == "patient" else both("Opérateur", "Operator")
        mine = [clause for clause in clauses if clause.turn == number]
        text = "".join(_shown(turn.text[c.start : c.end], marks.get(c)) for c in mine) or safe(sentence_of(turn.text))
        lines.append(f'<div class="turn"><b>{who}</b>{text}</div>')
    return "".join(lines)


def _mark(effect: float, most: float) -> str:
    """The class of a shade, from 1 to SHADES."""
    return f"{'for' if effect > 0 else 'against'}{max(1, round(SHADES * abs(effect) / most))}"


def _shown(text: str, shade: str | None) -> str:
    return safe(text) if shade is None else f'<mark class="{shade}">{safe(text)}</mark>'


def _weightiest(dialogue: Dialogue, clauses: Sequence[Clause], one: Explanation) -> str:
    """The clauses that speak most for the label, and by how much."""
    order = sorted(range(len(clauses)), key=lambda index: -one.effects[index])[:5]
    rows = [
        (safe(dialogue.turns[clauses[i].turn].text[clauses[i].start : clauses[i].end].strip()), decimal(one.effects[i], 2))
        for i in order
        if one.effects[i] >= LEAST
    ]
    return table([both("Mots qui pèsent le plus", "Weightiest words"), both("Δ log p", "Δ log p")], rows) if rows else ""


def _deletion(one: Explanation) -> str:
    steps = max(len(one.ranked) - 1, 1)
    drawn = [
        Curve(words, colour, [(index / steps, value) for index, value in enumerate(values)])
        for words, colour, values in (
            (("les plus lourds d'abord", "weightiest first"), "train", one.ranked),
            (("au hasard", "at random"), "test", one.at_random),
        )
    ]
    picture = curves(drawn, ("mots retirés", "words taken out"), ("probabilité de ce choix", "probability of this choice"))
    title = both("Contrôle : retrait des mots", "Check: taking words out")
    gain = f"<p>{both('Gain sur le hasard', 'Gain over chance')} : {decimal(one.deletion_gain, 3)}</p>"
    return f"<h3>{title}</h3>{picture}{gain}"


def _near(near: Sequence[Neighbour]) -> str:
    head = [both("Appel", "Call"), both("ressemblance", "likeness"), both("urgence", "urgency"), both("spécialité", "specialty")]
    rows = [(f"<code>{safe(n.id)}</code>", decimal(n.likeness, 2), safe(n.urgency), safe(n.specialty)) for n in near]
    return section("Appels d'entraînement les plus proches", "Nearest training calls", table(head, rows)) if rows else ""
