"""Bars and histograms as inline SVG: drawn in the page's own colours, with axes, in two languages."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence

from llmft.page.document import Words, number, safe

Pairs = Sequence[tuple[int, int]]  # lower edge, rows
WIDTH, LABELS, ROW = 760, 250, 26  # pixels: of the picture, of the names at its left, of a bar with its gap
RIGHT = 70  # pixels left free for the number after a bar
PLOT_HEIGHT, MOST_BARS = 190, 40
TAIL = 0.995  # of the rows; what is longer shares the last bar


def bars(rows: Sequence[tuple[Words, Mapping[str, int]]], axis: Words) -> str:
    """A horizontal bar a row, stacked from CSS class ─▶ number."""
    most = max((sum(parts.values()) for _, parts in rows), default=0)
    step = step_of(most)
    end = max(step * math.ceil(most / step), 1)
    scale = (WIDTH - LABELS - RIGHT) / end
    bottom = len(rows) * ROW + 6
    drawn = [
        f'<line class="grid" x1="{x:.1f}" y1="0" x2="{x:.1f}" y2="{bottom}"/>'
        f'<text class="soft" x="{x:.1f}" y="{bottom + 16}" text-anchor="middle">{number(value)}</text>'
        for value in range(0, end + 1, step)
        for x in [LABELS + value * scale]
    ]
    for place, (words, parts) in enumerate(rows):
        drawn.append(_bar(words, parts, place * ROW + 4, scale))
    drawn.append(f'<line class="axis" x1="{LABELS}" y1="0" x2="{LABELS}" y2="{bottom}"/>')
    drawn.append(text_at((LABELS + WIDTH - RIGHT) / 2, bottom + 36, axis, "middle", "soft"))
    return picture(bottom + 44, axis, drawn)


def _bar(words: Words, parts: Mapping[str, int], top: int, scale: float) -> str:
    pieces, x = [text_at(LABELS - 10, top + 14, words, "end")], float(LABELS)
    for name, value in parts.items():
        width = value * scale
        pieces.append(
            f'<rect class="{safe(name)}" x="{x:.1f}" y="{top}" width="{width:.1f}" height="{ROW - 8}">'
            f"<title>{safe(name)}: {number(value)}</title></rect>"
        )
        x += width
    pieces.append(f'<text class="soft" x="{x + 6:.1f}" y="{top + 14}">{number(sum(parts.values()))}</text>')
    return "".join(pieces)


def histogram(pairs: Pairs, bin_width: int, x_axis: Words, y_axis: Words) -> str:
    """Vertical bars over (lower edge, rows); bins are joined until ``MOST_BARS`` are enough, the long tail is one bar."""
    edges = _binned(pairs, bin_width)
    most = max((rows for _, rows in edges), default=0)
    step = step_of(most)
    end = max(step * math.ceil(most / step), 1)
    left, width = 64, (WIDTH - 64 - 10) / max(len(edges), 1)
    drawn = []
    for value in range(0, end + 1, step):
        y = 10 + PLOT_HEIGHT * (1 - value / end)
        drawn.append(f'<line class="grid" x1="{left}" y1="{y:.1f}" x2="{WIDTH - 10}" y2="{y:.1f}"/>')
        drawn.append(f'<text class="soft" x="{left - 8}" y="{y + 4:.1f}" text-anchor="end">{number(value)}</text>')
    every = math.ceil(len(edges) / 12)
    for place, (label, rows) in enumerate(edges):
        x, height = left + place * width, PLOT_HEIGHT * rows / end
        drawn.append(
            f'<rect class="only" x="{x + 1:.1f}" y="{10 + PLOT_HEIGHT - height:.1f}" width="{max(width - 2, 1):.1f}" '
            f'height="{height:.1f}"><title>{safe(label)}: {number(rows)}</title></rect>'
        )
        last = place == len(edges) - 1
        if last or (place % every == 0 and place + every / 2 < len(edges) - 1):
            drawn.append(
                f'<text class="soft" x="{x + width / 2:.1f}" y="{PLOT_HEIGHT + 28}" text-anchor="middle">{safe(label)}</text>'
            )
    drawn.append(f'<line class="axis" x1="{left}" y1="{10 + PLOT_HEIGHT}" x2="{WIDTH - 10}" y2="{10 + PLOT_HEIGHT}"/>')
    drawn.append(text_at((left + WIDTH) / 2, PLOT_HEIGHT + 50, x_axis, "middle", "soft"))
    drawn.append(text_at(14, 10 + PLOT_HEIGHT / 2, y_axis, "middle", "soft", f"rotate(-90 14 {10 + PLOT_HEIGHT / 2})"))
    return picture(PLOT_HEIGHT + 58, x_axis, drawn)


def quantile(pairs: Pairs, part: float) -> int:
    """The lower edge below or at which ``part`` of the rows lie; 0 without rows."""
    total, seen = sum(rows for _, rows in pairs), 0
    for edge, rows in pairs:
        seen += rows
        if seen >= part * total:
            return edge
    return 0


def legend(names: Sequence[tuple[str, Words]]) -> str:
    """Coloured squares with their meaning."""
    drawn, x = [], 0
    for name, words in names:
        drawn.append(f'<rect class="{safe(name)}" x="{x}" y="3" width="13" height="13" rx="2"/>')
        drawn.append(text_at(x + 19, 14, words, "start"))
        x += 60 + 7 * max(map(len, words))
    return picture(22, ("légende", "legend"), drawn)


def _binned(pairs: Pairs, bin_width: int) -> list[tuple[str, int]]:
    if not pairs:
        return []
    first, cut = pairs[0][0], quantile(pairs, TAIL)
    wide = bin_width * max(1, math.ceil(((cut - first) // bin_width + 1) / MOST_BARS))
    first = first // wide * wide
    bins = dict.fromkeys(range(first, cut + 1, wide), 0)
    last = max(bins)
    for edge, rows in pairs:
        bins[min(edge // wide * wide, last)] += rows
    longer = pairs[-1][0] >= last + wide
    return [(f"≥ {edge}" if longer and edge == last else str(edge), rows) for edge, rows in bins.items()]


def step_of(most: int) -> int:
    """A round distance between grid lines, so that there are about five."""
    if most <= 5:
        return 1
    power = 10 ** int(math.log10(most / 5))
    return int(next(power * factor for factor in (1, 2, 5, 10) if power * factor * 5 >= most))


def text_at(x: float, y: float, words: Words, anchor: str, name: str = "", transform: str = "") -> str:
    """A text of a picture in both languages."""
    turned = f' transform="{transform}"' if transform else ""
    spans = "".join(f'<tspan class="{lang}">{safe(text)}</tspan>' for lang, text in zip(("fr", "en"), words, strict=True))
    return f'<text class="{name}" x="{x:.1f}" y="{y:.1f}" text-anchor="{anchor}"{turned}>{spans}</text>'


def picture(height: float, words: Words, drawn: Sequence[str]) -> str:
    """What was drawn as one picture; ``words`` say what it shows to those who cannot see it."""
    label = safe(" · ".join(words))
    svg = f'<svg viewBox="0 0 {WIDTH} {height:.0f}" role="img" aria-label="{label}">{"".join(drawn)}</svg>'
    return f'<div class="wide">{svg}</div>'
