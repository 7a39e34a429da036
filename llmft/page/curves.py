"""Curves, a table of shades, and dots with whiskers as inline SVG, in the page's own colours and two languages."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from llmft.page.document import Words, safe
from llmft.page.plots import picture, text_at

LEFT, TOP, SIDE, DOWN = 64, 12, 420, 260  # pixels of a plot's area
LEGEND = LEFT + SIDE + 24
TICKS = (0.0, 0.25, 0.5, 0.75, 1.0)
ROW, NAMES, AXIS = 26, 250, 400  # pixels: of a row of whiskers, of the names at its left, of the axis from 0 to 1
LARGEST_CELL, CELLS = 34, 530  # pixels of a shaded cell, of all cells of a row


@dataclass(frozen=True)
class Curve:
    """Points whose x and y lie between 0 and 1, in the colour of a CSS class."""

    words: Words
    colour: str
    points: Sequence[tuple[float, float]]
    dots: bool = False


@dataclass(frozen=True)
class Whisker:
    """A share with its interval."""

    words: Words
    value: float
    interval: tuple[float, float] | None
    colour: str = "train"


def curves(drawn: Sequence[Curve], x_axis: Words, y_axis: Words, *, highest: float = 1.0, x_ticks: Sequence[str] = ()) -> str:
    """Curves over the unit square; ``highest`` is the value at its top, ``x_ticks`` replace 0 to 100 % below it."""
    parts = [*_frame(highest, x_ticks)]
    for number, curve in enumerate(drawn):
        places = [(LEFT + x * SIDE, TOP + DOWN * (1 - min(y / highest, 1.0))) for x, y in curve.points]
        path = " ".join(f"{'L' if place else 'M'}{x:.1f} {y:.1f}" for place, (x, y) in enumerate(places))
        parts.append(f'<path class="line {curve.colour}" d="{path}"/>')
        if curve.dots:
            parts += [f'<circle class="{curve.colour}" cx="{x:.1f}" cy="{y:.1f}" r="4"/>' for x, y in places]
        parts.append(f'<rect class="{curve.colour}" x="{LEGEND}" y="{TOP + 22 * number}" width="13" height="13" rx="2"/>')
        parts.append(text_at(LEGEND + 20, TOP + 11 + 22 * number, curve.words, "start"))
    parts.append(text_at(LEFT + SIDE / 2, TOP + DOWN + 42, x_axis, "middle", "soft"))
    middle = TOP + DOWN / 2
    parts.append(text_at(14, middle, y_axis, "middle", "soft", f"rotate(-90 14 {middle})"))
    return picture(TOP + DOWN + 52, x_axis, parts)


def _frame(highest: float, x_ticks: Sequence[str]) -> list[str]:
    """Grid, axes and their numbers."""
    parts = []
    for share in TICKS:
        y, x = TOP + DOWN * (1 - share), LEFT + SIDE * share
        parts.append(f'<line class="grid" x1="{LEFT}" y1="{y:.1f}" x2="{LEFT + SIDE}" y2="{y:.1f}"/>')
        parts.append(text_at(LEFT - 8, y + 4, _per_cent(f"{100 * share * highest:.3g}"), "end", "soft"))
        if not x_ticks:
            parts.append(f'<text class="soft" x="{x:.1f}" y="{TOP + DOWN + 18}" text-anchor="middle">{100 * share:.0f} %</text>')
    for place, tick in enumerate(x_ticks):
        x = LEFT + SIDE * place / max(len(x_ticks) - 1, 1)
        parts.append(f'<text class="soft" x="{x:.1f}" y="{TOP + DOWN + 18}" text-anchor="middle">{safe(tick)}</text>')
    parts.append(f'<line class="axis" x1="{LEFT}" y1="{TOP + DOWN}" x2="{LEFT + SIDE}" y2="{TOP + DOWN}"/>')
    return parts


def whiskers(rows: Sequence[Whisker], axis: Words) -> str:
    """A dot a row on an axis from 0 to 100 %, with its interval as a line through it."""
    bottom = len(rows) * ROW + 6
    parts = []
    for share in TICKS:
        x = NAMES + AXIS * share
        parts.append(f'<line class="grid" x1="{x:.1f}" y1="0" x2="{x:.1f}" y2="{bottom}"/>')
        parts.append(f'<text class="soft" x="{x:.1f}" y="{bottom + 16}" text-anchor="middle">{100 * share:.0f} %</text>')
    for place, row in enumerate(rows):
        y, x = place * ROW + 14, NAMES + AXIS * row.value
        parts.append(text_at(NAMES - 10, y + 4, row.words, "end"))
        if row.interval is not None:
            low, high = (NAMES + AXIS * bound for bound in row.interval)
            parts.append(f'<line class="line {row.colour}" x1="{low:.1f}" y1="{y}" x2="{high:.1f}" y2="{y}"/>')
        parts.append(f'<circle class="{row.colour}" cx="{x:.1f}" cy="{y}" r="5"/>')
        parts.append(text_at(NAMES + AXIS + 14, y + 4, _per_cent(f"{100 * row.value:.1f}"), "start", "soft"))
    parts.append(text_at(NAMES + AXIS / 2, bottom + 36, axis, "middle", "soft"))
    return picture(bottom + 44, axis, parts)


def _per_cent(number: str) -> Words:
    """A number with a comma in French and a point in English."""
    return f"{number.replace('.', ',')} %", f"{number} %"


def shades(
    rows: Sequence[tuple[str, Words]], columns: Sequence[tuple[str, Words]], counts: Mapping[tuple[str, str], int],
    axes: tuple[Words, Words],
) -> str:  # fmt: skip
    """A table of counts, each cell shaded by its share of its row; the names of the columns stand upright."""
    left, size = 220, min(LARGEST_CELL, CELLS // max(len(columns), 1))
    top = 30 + max((7 * max(map(len, words)) for _, words in columns), default=0)
    parts = [text_at(left, 16, axes[1], "start", "soft"), text_at(left - 10, top - 8, axes[0], "end", "soft")]
    for place, (_, words) in enumerate(columns):
        x = left + place * size + size / 2 + 4
        parts.append(text_at(x, top - 6, words, "start", "", f"rotate(-90 {x:.1f} {top - 6})"))
    for line, (row, words) in enumerate(rows):
        y = top + line * size
        whole = sum(counts.get((row, column), 0) for column, _ in columns)
        parts.append(text_at(left - 10, y + size / 2 + 4, words, "end"))
        for place, (column, _) in enumerate(columns):
            count = counts.get((row, column), 0)
            colour, x = "train" if row == column else "stopped", left + place * size
            shade = 0.06 if not count else 0.15 + 0.75 * count / whole
            place_and_size = f'x="{x}" y="{y}" width="{size - 2}" height="{size - 2}"'
            parts.append(f'<rect class="{colour}" fill-opacity="{shade:.2f}" {place_and_size} rx="3"/>')
            if count:
                parts.append(f'<text x="{x + size / 2 - 1:.1f}" y="{y + size / 2 + 4}" text-anchor="middle">{count}</text>')
    return picture(top + len(rows) * size + 8, axes[0], parts)
