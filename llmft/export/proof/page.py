"""``verify.html``: what verify measured of each file of a folder, as a page that opens offline, with its plots."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from llmft.export.delivery.facts import read_verified
from llmft.page.document import Words, both, document, note, safe, section, table
from llmft.run import write_text

WIDTH, LABELS, ROW, RIGHT = 760, 250, 26, 90  # pixels: of the picture, of the names, of a bar with its gap, of the figure
SMALLEST_KL = 1e-7  # nats, where the logarithmic axis begins
PLOTS: tuple[tuple[str, Words, Words], ...] = (
    (
        "logits, KL",
        ("Divergence des probabilités", "Divergence of the probabilities"),
        ("KL en nats, échelle logarithmique ; plus court est mieux", "KL in nats, logarithmic; shorter is better"),
    ),
    (
        "logits, top-1",
        ("Même mot le plus probable", "Same likeliest token"),
        ("part des positions ; plus long est mieux", "share of the positions; longer is better"),
    ),
    (
        "perplexity",
        ("Perplexité sur des appels de validation", "Perplexity on validation calls"),
        ("perplexité des mots de l'opérateur ; plus court est mieux", "of the operator's words; shorter is better"),
    ),
)


def write_page(folder: Path) -> Path:
    """Write ``verify.html`` from the ``verify.json`` beside it."""
    verified, path = read_verified(folder / "verify.json"), folder / "verify.html"
    write_text(path, page(folder.resolve().name, verified))
    return path


def page(name: str, verified: Mapping[str, Any]) -> str:
    """The page of the export called ``name``; ``verified`` is file ─▶ its report."""
    parts = [_verdict(verified)]
    for check, title, axis in PLOTS:
        values = {file: value for file, report in verified.items() if (value := _measured(report, check)) is not None}
        if values:
            parts.append(section(*title, _bars(values, axis, _scale(check, list(values.values())))))
    parts += [_checks(file, report) for file, report in verified.items()]
    return document(f"Vérification : {name}", f"Verification: {name}", "".join(parts))


def _verdict(verified: Mapping[str, Any]) -> str:
    rows = [[f"<code>{safe(file)}</code>", _mark(report["passed"])] for file, report in verified.items()]
    lead = note(
        "Chaque fichier a été comparé au modèle entraîné (base et adaptateur non fusionnés, float32) : texte, tokens, "
        "probabilités, mots, et fin de réponse. Un fichier qui échoue n'est pas le modèle entraîné.",
        "Each file was compared with the trained model (base and unmerged adapter, float32): text, tokens, probabilities, "
        "words, and the end of answers. A file that fails is not the model that was trained.",
    )
    return section("Verdict", "Verdict", table([both("fichier", "file"), ""], rows, narrow=True), lead)


def _mark(passed: bool) -> str:
    words = ("vérifié", "verified") if passed else ("ÉCHEC", "FAILED")
    return f'<span class="{"good" if passed else "bad"}">{both(*words)}</span>'


def _measured(report: Mapping[str, Any], name: str) -> float | None:
    value = next((check["measured"] for check in report["checks"] if check["name"] == name), None)
    return value if isinstance(value, float) and math.isfinite(value) else None


def _scale(check: str, values: Sequence[float]) -> Callable[[float], float]:
    """Value ─▶ share of the plot's width."""
    if check == "logits, KL":
        decades = math.log10(max(*values, 1e-3) / SMALLEST_KL)
        return lambda value: math.log10(max(value, SMALLEST_KL) / SMALLEST_KL) / decades
    most = max(*values, 1.0)
    return lambda value: value / most


def _bars(values: Mapping[str, float], axis: Words, share_of: Callable[[float], float]) -> str:
    """A horizontal bar a file, its figure behind it."""
    drawn, room = [], WIDTH - LABELS - RIGHT
    for place, (file, value) in enumerate(values.items()):
        top, width = place * ROW + 4, max(1.0, room * min(1.0, share_of(value)))
        label = file.removesuffix(".gguf")
        drawn.append(
            f'<text x="{LABELS - 10}" y="{top + 14}" text-anchor="end">{safe(label[-32:])}</text>'
            f'<rect class="only" x="{LABELS}" y="{top}" width="{width:.1f}" height="{ROW - 8}">'
            f"<title>{safe(label)}</title></rect>"
            f'<text class="soft" x="{LABELS + width + 6:.1f}" y="{top + 14}">{value:.4g}</text>'
        )
    bottom = len(values) * ROW + 6
    drawn.append(f'<line class="axis" x1="{LABELS}" y1="0" x2="{LABELS}" y2="{bottom}"/>')
    spans = "".join(f'<tspan class="{lang}">{safe(text)}</tspan>' for lang, text in zip(("fr", "en"), axis, strict=True))
    drawn.append(f'<text class="soft" x="{LABELS}" y="{bottom + 18}">{spans}</text>')
    view = f'viewBox="0 0 {WIDTH} {bottom + 26}" role="img" aria-label="{safe(" · ".join(axis))}"'
    return f'<div class="wide"><svg {view}>{"".join(drawn)}</svg></div>'


def _checks(file: str, report: Mapping[str, Any]) -> str:
    head = [both("contrôle", "check"), "", both("mesuré", "measured"), both("attendu", "due"), both("détail", "detail")]
    rows = [
        [safe(check["name"]), _mark(check["passed"]), _figure(check["measured"]), safe(check["threshold"]), safe(check["detail"])]
        for check in report["checks"]
    ]
    return section(file, file, table(head, rows))


def _figure(value: float | str | None) -> str:
    return f"{value:.3g}" if isinstance(value, float) else safe("–" if value is None else value)
