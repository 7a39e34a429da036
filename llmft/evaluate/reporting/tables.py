"""Everybody in one table, what quantisation cost, the differences on the same calls, and every figure."""

from __future__ import annotations

from llmft.evaluate.comparison import Comparison
from llmft.evaluate.contest import BESIDE_RULES
from llmft.evaluate.figures.resampling import Difference
from llmft.evaluate.figures.triage import FIGURES as DEFINED
from llmft.evaluate.reporting.names import FIGURES, KINDS, contestant
from llmft.page.curves import Whisker, whiskers
from llmft.page.document import PER_CENT, both, decimal, note, number, safe, section, table

COLUMNS = (
    "emergency_recall", "severe_under_triage", "under_triage", "over_triage_not_urgent", "urgency_kappa", "specialty_macro_f1",
    "icd10_category", "triage_success", "format_valid",
)  # fmt: skip
HEADS = {  # short, so that the table fits
    "emergency_recall": ("Urgences vues", "Emerg. seen"),
    "severe_under_triage": ("Sous-tri. grave", "Severe under"),
    "under_triage": ("Sous-triage", "Under-triage"),
    "over_triage_not_urgent": ("Sur-tri. non urg.", "Over, not urgent"),
    "urgency_kappa": ("Kappa", "Kappa"),
    "specialty_macro_f1": ("Spéc. F1", "Spec. F1"),
    "icd10_category": ("CIM-10", "ICD-10"),
    "triage_success": ("Tri réussi", "Success"),
    "format_valid": ("Format", "Format"),
}
NOT_SHARES = ("urgency_kappa",)
QUANT_FIGURES = ("emergency_recall", "severe_under_triage", "specialty_macro_f1")
NO_BREAK = "\u00a0;\u00a0"
REMAINS = 0.02  # what quantisation may cost
TESTED = ("emergency_recall", "urgency_accuracy")  # shares, so McNemar's test applies


def figure(name: str, value: float | None) -> str:
    """A figure as a cell: shares in per cent."""
    if value is None:
        return "–"
    return decimal(value, 2) if name in NOT_SHARES else decimal(100 * value, 1, PER_CENT)


def contest_section(comparison: Comparison, run_name: str) -> str:
    """Base, adapter, quants, the models beside the rules, and the rivals."""
    head = ["", *(both(*HEADS[name]) for name in COLUMNS)]
    rows = []
    for kind in KINDS:
        for name in (name for name, of in comparison.kinds.items() if of == kind):
            title = both(*contestant(name, run_name))
            title = f"<b>{title}</b>" if name == comparison.main else title
            kind_told = f" <small>{both(*KINDS[kind])}</small>" if kind == "rival" else ""
            rows.append((title + kind_told, *_cells(comparison, name)))
    main = comparison.measured[comparison.main]
    return section(
        "Tous sur les mêmes appels",
        "Everybody on the same calls",
        table(head, rows),
        note(
            f"{main.calls} appels de {main.families} scénarios, dont {main.emergencies} urgences vitales. Sous-triage : jugé "
            f"moins "
            "urgent qu'il ne l'est, sur tous les appels. Grave : un appel U1 ou U2 jugé U3 ou U4. Sur-triage : ici un appel "
            "U3 ou U4 jugé U1 ou U2. Une réponse illisible "
            "compte comme "
            "une urgence manquée.",
            f"{main.calls} calls of {main.families} scenarios, {main.emergencies} of them emergencies. Under-triage: called less "
            "urgent than it is, over all calls. Severe: a U1 or U2 call called U3 or U4. Over-triage: here a U3 or U4 call "
            "called U1 or U2. An answer that cannot be read "
            "counts as a "
            "missed emergency.",
        ),
        whiskers(
            [
                Whisker(contestant(name, run_name), value, found.intervals["emergency_recall"], _colour(comparison.kinds[name]))
                for name, found in comparison.measured.items()
                if (value := found.values["emergency_recall"]) is not None
            ],
            ("urgences vitales reconnues, intervalle à 95 %", "emergencies recognised, 95 % interval"),
        )
        if main.emergencies
        else "",
    )


def _colour(kind: str) -> str:
    return {"model": "train", "rules": "test", "rival": "validation"}[kind]


def _cells(comparison: Comparison, name: str) -> list[str]:
    values = comparison.measured[name].values
    return [figure(column, values[column]) for column in COLUMNS]


def quants_section(comparison: Comparison, run_name: str) -> str:
    """What each GGUF lost against the adapter; nothing without both."""
    quants = [name for name in comparison.kinds if name.endswith(".gguf")]
    if not quants or comparison.main != "adapter":
        return ""
    rows = []
    for name in quants:
        found = {d.figure: d for d in comparison.differences[name]}
        rows.append((both(*contestant(name, run_name)), *(_change(found.get(of)) for of in QUANT_FIGURES)))
    shown = [
        Whisker(_joined(contestant(name, run_name), HEADS[of]), value, measured.intervals.get(of), colour)
        for of, colour in zip(QUANT_FIGURES, ("train", "test", "validation"), strict=True)
        for name in ("adapter", *quants)
        if (measured := comparison.measured[name]) and (value := measured.values[of]) is not None
    ]
    return section(
        "Ce que la quantification a coûté",
        "What quantisation cost",
        table(["", *(both(*FIGURES[of]) for of in QUANT_FIGURES)], rows, narrow=True),
        whiskers(shown, ("avec l'intervalle à 95 %", "with the 95 % interval")),
        note("En points, par rapport au modèle affiné, sur les mêmes appels ; entre crochets l'intervalle à 95 %.",
             "In points, against the tuned model, on the same calls; in brackets the 95 % interval."),
    )  # fmt: skip


def _joined(first: tuple[str, str], second: tuple[str, str]) -> tuple[str, str]:
    """A model and a figure; only the figure's first letter is small in the middle of a line ("F1" is not "f1")."""
    fr, en = (f"{model}, {of[0].lower()}{of[1:]}" for model, of in zip(first, second, strict=True))
    return fr, en


def _change(found: Difference | None) -> str:
    if found is None:
        return "–"
    shown = _signed(found.value)
    if found.interval is not None:
        shown += f" <small>[{NO_BREAK.join(map(_signed, found.interval))}]</small>"
    worse = found.value if DEFINED[found.figure].better == "low" else -found.value
    return shown if worse <= REMAINS else f'<span class="bad">{shown}</span>'


def differences_section(comparison: Comparison, run_name: str) -> str:
    """Paired: bootstrap over families, and McNemar's test where the figure is a share; a row a contestant."""
    if not comparison.differences:
        return ""
    rows = []
    for name, differences in comparison.differences.items():
        found = {difference.figure: difference for difference in differences}
        row = [both(*contestant(name, run_name))]
        for of in TESTED:
            row += [_change(found.get(of)), _pairs(found.get(of)), _p(found.get(of))]
        rows.append((*row, _change(found.get("specialty_macro_f1"))))
    alone = both("seul juste", "alone right")
    head = ["", *(cell for of in TESTED for cell in (both(*FIGURES[of]), alone, "p")), both(*FIGURES["specialty_macro_f1"])]
    fr, en = contestant(comparison.main, run_name)
    return section(
        f"Écarts avec : {fr}",
        f"Differences from: {en}",
        table(head, rows),
        note(
            "En points ; entre crochets l'intervalle à 95 %, bootstrap apparié sur les scénarios. Seul juste : appels où ce "
            "modèle est juste et l'autre non, puis l'inverse. p : test exact de McNemar, qui tient les appels pour "
            "indépendants ; plusieurs comparaisons à la fois en rendent de petits par hasard.",
            "In points; in brackets the 95 % interval, a paired bootstrap over scenarios. Alone right: calls where this one is "
            "right and the other is not, then the reverse. p: McNemar's exact test, which takes calls for independent; several "
            "comparisons at once make small ones by chance.",
        ),
    )


def _signed(value: float) -> str:
    text = f"{100 * value:+.1f}"
    return both(text.replace(".", ","), text)


def _pairs(found: Difference | None) -> str:
    return "–" if found is None or found.only_second is None else f"{found.only_second}\u00a0:\u00a0{found.only_first}"


def _p(found: Difference | None) -> str:
    if found is None or found.p is None:
        return "–"
    return both("<\u00a00,001", "<\u00a00.001") if found.p < 0.001 else decimal(found.p, 3)


def seeds_section(comparison: Comparison) -> str:
    """The main model over trainings that differ in their seed alone; nothing with one."""
    if not comparison.seeds:
        return ""
    rows = [
        (both(*FIGURES[name]), number(found.seeds), figure(name, found.mean), figure(name, found.deviation),
         f"{figure(name, found.low)} – {figure(name, found.high)}")
        for name, found in comparison.seeds.items()
    ]  # fmt: skip
    head = ["", both("graines", "seeds"), both("moyenne", "mean"), both("écart type", "deviation"), both("étendue", "range")]
    return section("Avec d'autres graines", "With other seeds", table(head, rows, narrow=True))


def all_figures(comparison: Comparison, run_name: str) -> str:
    """Every figure of the model, and beside the rules, with its interval."""
    shown = [name for name in (comparison.main, f"{comparison.main}{BESIDE_RULES}") if name in comparison.measured]
    rows = []
    for name in DEFINED:
        if any(comparison.measured[who].values[name] is not None for who in shown):
            title = both(*FIGURES[name]) if name in FIGURES else safe(name)
            cells = [cell for who in shown for cell in _with_interval(comparison, who, name)]
            rows.append((f"{title} <code>{safe(name)}</code>", *cells))
    head = [""]
    for who in shown:
        head += [both(*contestant(who, run_name)), "95 %"]
    return section("Tous les chiffres", "Every figure", table(head, rows))


def _with_interval(comparison: Comparison, who: str, name: str) -> tuple[str, str]:
    measured = comparison.measured[who]
    interval = measured.intervals.get(name)
    bounds = "" if interval is None else "\u00a0–\u00a0".join(figure(name, bound) for bound in interval)
    return figure(name, measured.values[name]), bounds
