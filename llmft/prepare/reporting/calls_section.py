"""What the calls of a set are like: labels, agreement of annotators, lengths."""

from __future__ import annotations

from llmft.page.document import Words, both, decimal, note, number, section, share, table
from llmft.page.plots import bars, histogram, legend, quantile
from llmft.prepare.reporting import names
from llmft.prepare.reporting.counted import counts_table
from llmft.prepare.reporting.counts import CHARACTERS_A_TOKEN, SPLITS, TOKENS_A_TURN, TOKENS_BIN, UNKNOWN, WORDS_BIN, Pairs
from llmft.prepare.reporting.names import CALLS
from llmft.prepare.reporting.report import Report
from llmft.vocabulary import urgencies


def labels_section(report: Report) -> str:
    """Distributions by split, where labels come from, and how far two annotators agree."""
    urgency_rows = [
        (names.URGENCIES.get(level, (level, level)), _stack(report, "urgencies", level))
        for level in (*urgencies(), UNKNOWN)
        if report.urgencies.get(level)
    ]
    specialty_rows = [
        (names.specialty(name), _stack(report, "specialties", name))
        for name, _ in sorted(report.specialties.items(), key=lambda item: (-item[1], item[0]))
    ]
    return section(
        "Étiquettes",
        "Labels",
        legend([(split, names.SPLITS[split]) for split in SPLITS]),
        f"<h3>{both('Urgence', 'Urgency')}</h3>",
        bars(urgency_rows, CALLS),
        f"<h3>{both('Spécialité', 'Specialty')}</h3>",
        bars(specialty_rows, CALLS),
        counts_table(("Origine de l'étiquette", "Where the label comes from"), report.confidences, CALLS, names.CONFIDENCES),
        _agreement(report),
        counts_table(("Langue", "Language"), report.languages, CALLS, names.LANGUAGES),
    )


def _stack(report: Report, kind: str, value: str) -> dict[str, int]:
    return {split: report.by_split[kind][split].get(value, 0) for split in SPLITS}


def _agreement(report: Report) -> str:
    if not report.agreement:
        return ""
    rows = [
        (
            both(*names.RATED.get(name, (name, name))),
            number(found["calls"]),
            share(found["same"], found["calls"]),
            "–" if found["kappa"] is None else decimal(found["kappa"], 2),
        )
        for name, found in sorted(report.agreement.items(), key=lambda item: (*names.RATED, item[0]).index(item[0]))
    ]
    head = [
        "",
        both("appels étiquetés deux fois", "calls labelled twice"),
        both("même avis", "same"),
        both("κ de Cohen", "Cohen's κ"),
    ]
    return f"<h3>{both('Accord entre deux annotateurs', 'Agreement of two annotators')}</h3>{table(head, rows)}" + note(
        "κ = 1 : toujours d'accord ; 0 : pas plus que le hasard ; – : les deux n'ont posé qu'une seule étiquette. "
        "Les appels en désaccord sont comptés, même ceux que le test n'a pas pris.",
        "κ = 1: always agreed; 0: no more than by chance; –: both only ever gave one label. "
        "Calls on which they differ count, also those that the test set did not take.",
    )


def lengths_section(report: Report) -> str:
    """Turns, words, characters and tokens."""
    words: Words = (f"mots par appel (par {WORDS_BIN})", f"words a call (bins of {WORDS_BIN})")
    return section(
        "Longueur des appels",
        "Length of the calls",
        f"<h3>{both('Tours de parole', 'Turns')}</h3>",
        histogram(report.turns, 1, ("tours de parole par appel", "turns a call"), CALLS),
        note(
            f"Médiane {quantile(report.turns, 0.5)} ; 95 % ont au plus {quantile(report.turns, 0.95)}.",
            f"Median {quantile(report.turns, 0.5)}; 95 % have at most {quantile(report.turns, 0.95)}.",
        ),
        _dropped(report),
        f"<h3>{both('Mots', 'Words')}</h3>",
        histogram(report.words, WORDS_BIN, words, CALLS),
        _middle(report.words, WORDS_BIN, ("mots", "words")),
        *_tokens(report),
    )


def _dropped(report: Report) -> str:
    """Turns of the source that no call has: what is learnt ends with the operator's last words."""
    trailing, system = report.turns_dropped.get("trailing", 0), report.turns_dropped.get("system", 0)
    if not trailing and not system:
        return ""
    return note(
        f"Tours laissés de côté : {number(trailing)} de patients après les derniers mots de l'opérateur, "
        f"{number(system)} d'un système.",
        f"Turns left out: {number(trailing)} of patients after the operator's last words, {number(system)} of a system.",
    )


def _tokens(report: Report) -> list[str]:
    """What a model reads, counted or estimated, and which of the two."""
    if not report.tokens:
        return []
    by = report.tokens_by
    axis: Words = (f"tokens par appel (par {TOKENS_BIN})", f"tokens a call (bins of {TOKENS_BIN})")
    if "rule" in by:
        title: Words = ("Tokens, estimés", "Tokens, estimated")
        how = note(
            f"Estimation, sans tokeniseur : {CHARACTERS_A_TOKEN} caractères par token, {TOKENS_A_TURN} tokens par tour pour le "
            "balisage ; à 25 % près en moyenne, selon le modèle et la langue. Pour compter : --tokenizer RECETTE.",
            f"An estimate, without tokenizer: {by['rule']} for the markup; within 25 % on average, by model and language. "
            "To count instead: --tokenizer RECIPE.",
        )
    else:
        title = ("Tokens, comptés", "Tokens, counted")
        how = note(*_counted(by))
    return [
        f"<h3>{both(*title)}</h3>",
        histogram(report.tokens, TOKENS_BIN, axis, CALLS),
        _middle(report.tokens, TOKENS_BIN, ("tokens", "tokens")),
        how,
    ]


def _counted(by: dict[str, object]) -> Words:
    fr = f"Comptés avec {by['tokenizer']}, balisage compris ; le plus long appel en a {by['longest']}"
    en = f"Counted with {by['tokenizer']}, markup included; the longest call has {by['longest']}"
    if by.get("limit") is None:
        return f"{fr}.", f"{en}."
    return (
        f"{fr}, et la recette en prend {by['limit']} (train.max_tokens).",
        f"{en}, and the recipe takes {by['limit']} (train.max_tokens).",
    )


def _middle(pairs: Pairs, width: int, unit: Words) -> str:
    middle, most = quantile(pairs, 0.5), quantile(pairs, 0.95) + width
    return note(
        f"Médiane environ {number(middle)} {unit[0]} ; 95 % en ont moins de {number(most)}.",
        f"Median about {number(middle)} {unit[1]}; 95 % have fewer than {number(most)}.",
    )
