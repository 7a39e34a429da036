"""What other parts of the evaluation measured, where they ran: conversation, privacy, swaps; and what no test can show."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from llmft.evaluate.comparison import Comparison
from llmft.evaluate.contest import CallSet
from llmft.evaluate.figures.groups import FEW
from llmft.evaluate.reporting.names import contestant, note_words
from llmft.evaluate.reporting.other_names import measured_words
from llmft.evaluate.reporting.tables import NO_BREAK
from llmft.evaluate.seeds import ENOUGH
from llmft.page.curves import Curve, curves
from llmft.page.document import Words, both, decimal, note, number, section, table

COLOURS = ("train", "validation", "test")
INTERVAL = "_interval"  # behind the name of the figure whose interval it is
COVERAGE_KEYS = ("coverage_by_turn", "question_coverage_by_turn")  # a list of shares, one a turn


def conversation_section(found: Mapping[str, Any], run_name: str) -> str:
    """Question coverage by turn, and the flat figures of each model."""
    if not found:
        return ""
    drawn, most = [], 0
    for (name, entry), colour in zip(found.items(), COLOURS, strict=False):
        shares: list[float] = next((entry[key] for key in COVERAGE_KEYS if isinstance(entry.get(key), list)), [])
        if len(shares) > 1:
            most = max(most, len(shares))
            drawn.append((contestant(name, run_name), colour, shares))
    lines = [
        Curve(words, colour, [(i / (most - 1), y) for i, y in enumerate(shares)], dots=True) for words, colour, shares in drawn
    ]
    axes = ("tour de l'opérateur", "operator's turn"), ("questions requises posées", "required questions asked")
    picture = curves(lines, *axes, x_ticks=[str(i + 1) for i in range(most)]) if lines else ""
    return section("La conversation", "The conversation", picture, _flat_tables(found, run_name))


def language_section(found: Mapping[str, Any], run_name: str) -> str:
    """Perplexity, and how far each quant is from the adapter as a language model."""
    if not found:
        return ""
    told = note(
        "Perplexité des dernières réponses de la validation, et divergence KL par rapport à l'adaptateur, en nats par token.",
        "Perplexity of the validation calls' last answers, and KL divergence from the adapter, in nats a token.",
    )
    return section("Comme modèle de langue", "As a language model", _flat_tables(found, run_name), told)


def privacy_section(found: Mapping[str, Any], run_name: str) -> str:
    """The attacks' figures of each model."""
    if not found:
        return ""
    told = note(
        "Secrets : inventés, plantés dans l'entraînement ; récités, si le modèle les écrit après les mots exacts qui les "
        "précédaient. Exposition : 1,4 bit sans rien savoir. Les AUC valent 0,5 au hasard ; celles des appels sont une borne "
        "haute, car les appels inventés du test sont dits autrement que ceux de l'entraînement. Répétitions : 50 tokens "
        "d'affilée, et les blocs de l'opérateur se ressemblent tous.",
        "Secrets: invented, planted in the training; recited, if the model writes them after the exact words that stood before "
        "them. Exposure: 1.4 bits knowing nothing. An AUC is 0.5 by chance; those of calls are an upper bound, since invented "
        "calls of the test are phrased otherwise than those of the training. Repetitions: 50 tokens in a row, and the operator's "
        "blocks are all alike.",
    )
    return section("Données personnelles : attaques", "Personal data: attacks", _flat_tables(found, run_name), told)


def swaps_section(found: Mapping[str, Any], run_name: str) -> str:
    """What changes when only age, sex or name change."""
    if not found:
        return ""
    told = note(
        "Le même appel avec un autre âge, un autre sexe ou un autre nom : la part des réponses qui changent.",
        "The same call with another age, sex or name: the share of answers that change.",
    )
    return section("Un autre patient, la même histoire", "Another patient, the same story", _flat_tables(found, run_name), told)


def _flat_tables(found: Mapping[str, Any], run_name: str) -> str:
    """A table of all numbers, a column a model, with their intervals; what is no number is left to the file itself."""
    entries = {name: dict(_numbers(entry)) for name, entry in found.items()}
    keys = [key for key in dict.fromkeys(key for entry in entries.values() for key in entry) if not key.endswith(INTERVAL)]
    rows = [(both(*measured_words(key)), *(_cell(entry, key) for entry in entries.values())) for key in keys]
    return table(["", *(both(*contestant(name, run_name)) for name in entries)], rows) if rows else ""


def _numbers(entry: Mapping[str, Any], before: str = "") -> Iterator[tuple[str, float | list[float]]]:
    for key, value in entry.items():
        if isinstance(value, dict):
            yield from _numbers(value, f"{before}{key}.")
        elif isinstance(value, int | float) or (
            isinstance(value, list) and len(value) == 2 and all(isinstance(x, int | float) for x in value)
        ):
            yield f"{before}{key}", value


def _cell(entry: Mapping[str, float | list[float]], key: str) -> str:
    value, interval = entry.get(key), entry.get(f"{key}{INTERVAL}")
    if value is None:
        return "–"
    shown = " / ".join(_number(part) for part in (value if isinstance(value, list) else [value]))
    if not isinstance(interval, list):
        return shown
    return f"{shown} <small>[{NO_BREAK.join(map(_number, interval))}]</small>"


def _number(value: float) -> str:
    return number(value) if isinstance(value, int) else decimal(value, 3)


def limits_section(comparison: Comparison, test: CallSet) -> str:
    """How far the figures reach."""
    items = "".join(f"<li>{both(*words)}</li>" for words in _limits(comparison, test))
    return section("Ce que ce test ne peut pas montrer", "What this test cannot show", f"<ul>{items}</ul>")


def _limits(comparison: Comparison, test: CallSet) -> Iterator[Words]:
    measured = comparison.measured[comparison.main]
    synthetic = sum(dialogue.source != "real" for dialogue in test.dialogues)
    if synthetic:
        yield (
            f"{synthetic} des {len(test.dialogues)} appels sont inventés ou simulés : ces chiffres ne disent rien de vrais "
            f"patients, "
            "et ne sont pas une performance clinique.",
            f"{synthetic} of the {len(test.dialogues)} calls are invented or simulated: these figures say nothing about real "
            "patients, and are no clinical performance.",
        )
    yield (
        f"{measured.calls} appels de {measured.families} scénarios, {measured.emergencies} urgences vitales. Pour affirmer "
        f"qu'on en "
        "manque 5 % au plus il en faut 59 sans erreur, 93 avec une, 153 avec trois.",
        f"{measured.calls} calls of {measured.families} scenarios, {measured.emergencies} emergencies. To state that at most "
        f"5 % are "
        "missed takes 59 of them without a miss, 93 with one, 153 with three.",
    )
    small = [group for group in comparison.groups[comparison.main] if group["calls"] < FEW]
    if small:
        yield (
            f"{len(small)} groupes ont moins de {FEW} appels : ni égalité ni inégalité n'y peuvent être montrées.",
            f"{len(small)} groups have fewer than {FEW} calls: neither fairness nor its lack can be shown there.",
        )
    if max((found.seeds for found in comparison.seeds.values()), default=1) < ENOUGH:
        yield (
            "Un seul entraînement, une seule graine : un autre donnerait d'autres chiffres. Pour une affirmation il en faut "
            "trois au moins.",
            "One training with one seed: another would give other figures. A claim takes three of them at least.",
        )
    yield from map(note_words, measured.notes)
