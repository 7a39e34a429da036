"""The preview as one HTML file that asks nothing of the network and lets no word of a call become markup."""

from __future__ import annotations

from html import escape

from llmft.train.preview import Bin, Piece, Preview, visible
from llmft.train.rows import trained_tokens

STYLE = """
body { font: 16px/1.5 system-ui, sans-serif; max-width: 60rem; margin: 2rem auto; padding: 0 1rem; color-scheme: light dark }
pre { white-space: pre-wrap; overflow-wrap: anywhere; padding: 1rem; border: 1px solid #8886; border-radius: .5rem }
span { color: #777 } span:nth-child(even) { background: #8882 }
b { font-weight: 600; color: #063; background: #cec } b:nth-child(even) { background: #adb }
table { border-collapse: collapse } td { padding: 0 .6rem; text-align: right }
td i { display: block; height: .9rem; background: #48a; min-width: 1px } tr.over i { background: #c33 }
@media (prefers-color-scheme: dark) { b { color: #cfc; background: #153 } b:nth-child(even) { background: #264 } }
"""


def page(shown: Preview) -> str:
    """The whole page; a token's number shows when the pointer rests on it."""
    rows = "".join(
        f"<h2>{escape(row.id)}</h2><p>{len(row.input_ids):,} tokens, {trained_tokens(row):,} trained</p>"
        f"<pre>{''.join(map(_token, pieces))}</pre>"
        for row, pieces in shown.rows
    )
    facts = "".join(f"<li>{escape(visible(fact))}</li>" for fact in shown.facts)
    return (
        '<!doctype html><html lang="en"><meta charset="utf-8">'
        "<meta http-equiv=\"Content-Security-Policy\" content=\"default-src 'none'; style-src 'unsafe-inline'\">"
        f"<title>{escape(shown.title)}</title><style>{STYLE}</style>"
        f"<h1>{escape(shown.title)}</h1><ul>{facts}</ul>{_histogram(shown.bins, shown.limit)}"
        "<p><b>Green</b> tokens are trained, <span>grey</span> ones are only read.</p>"
        f"{rows}</html>\n"
    )


def _token(piece: Piece) -> str:
    tag = "b" if piece.trained else "span"
    return f'<{tag} title="{" ".join(map(str, piece.ids))}">{escape(visible(piece.text))}</{tag}>'


def _histogram(bins: list[Bin], limit: int) -> str:
    most = max((bin.count for bin in bins), default=1)
    lines = "".join(
        f"<tr{' class=over' if bin.first > limit else ''}><td>{bin.first:,}</td><td>{bin.last:,}</td><td>{bin.count:,}</td>"
        f'<td><i style="width:{20 * bin.count / most:.2f}rem"></i></td></tr>'
        for bin in bins
    )
    return f"<h2>Tokens a dialogue</h2><p>train.max_tokens is {limit:,}</p><table>{lines}</table>"
