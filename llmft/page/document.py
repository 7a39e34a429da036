"""A self-contained HTML document in two languages: everything inside, nothing fetched, every value escaped.

The switch between French and English is CSS alone. The content security policy forbids any request, and any
style or script but the ones written here.
"""

from __future__ import annotations

import base64
import hashlib
import html
import re
from collections.abc import Iterable, Sequence

Words = tuple[str, str]  # French, English

# Characters that could change how the text around them is read: controls, zero-width, bidirectional marks, surrogates.
_INVISIBLE = re.compile("[\x00-\x08\x0b-\x1f\x7f-\x9f\u061c\u200b-\u200f\u2028-\u202e\u2060-\u206f\ufeff\ud800-\udfff]")
THIN_SPACE = "\u202f"
PER_CENT = f"{THIN_SPACE}%"


def safe(text: object) -> str:
    """Any text as HTML: markup escaped, invisible characters shown."""
    return html.escape(_INVISIBLE.sub("\ufffd", str(text)), quote=True)


def both(fr: object, en: object) -> str:
    """A text in both languages, of which one is seen."""
    return f'<span class="fr" lang="fr">{safe(fr)}</span><span class="en" lang="en">{safe(en)}</span>'


def number(value: float) -> str:
    """Digits in groups of three, as both languages can read them."""
    return f"{value:,}".replace(",", THIN_SPACE)


def decimal(value: float, digits: int, unit: str = "") -> str:
    """A number with a comma in French and a point in English."""
    text = f"{value:.{digits}f}{unit}"
    return both(text.replace(".", ","), text)


def share(part: float, whole: float) -> str:
    """A percentage; a dash when there is no whole."""
    return decimal(100 * part / whole, 1, PER_CENT) if whole else "–"


def table(head: Sequence[str], rows: Iterable[Sequence[str]], *, narrow: bool = False) -> str:
    """A table from cells that are HTML already; every column but the first is to the right.

    ``narrow``: as wide as its cells, so that a number stands near its name.
    """
    lines = ["".join(f"<td>{cell}</td>" for cell in row) for row in rows]
    titles = "".join(f'<th scope="col">{cell}</th>' for cell in head)
    top = f"<thead><tr>{titles}</tr></thead>" if any(head) else ""
    return (
        f'<div class="wide"><table{" class=narrow" if narrow else ""}>{top}<tbody>'
        f"{''.join(f'<tr>{line}</tr>' for line in lines)}</tbody></table></div>"
    )


def section(fr: str, en: str, *parts: str) -> str:
    """A card with a title."""
    return f"<section><h2>{both(fr, en)}</h2>{''.join(parts)}</section>"


def note(fr: str, en: str) -> str:
    """A paragraph in small letters."""
    return f'<p class="note">{both(fr, en)}</p>'


def document(fr: str, en: str, body: str, *, script: str = "") -> str:
    """The whole page; ``body`` is HTML already, ``script`` runs at its end."""
    policy = "; ".join(
        [
            "default-src 'none'",
            f"style-src '{_fingerprint(STYLE)}'",
            f"script-src '{_fingerprint(script)}'" if script else "script-src 'none'",
            "base-uri 'none'",
            "form-action 'none'",
        ]
    )
    return f"""<!DOCTYPE html>
<html lang="fr">
<head>
<meta charset="utf-8">
<meta http-equiv="Content-Security-Policy" content="{policy}">
<meta name="viewport" content="width=device-width, initial-scale=1">
<meta name="referrer" content="no-referrer">
<meta name="robots" content="noindex">
<title>{safe(fr)} · {safe(en)}</title>
<style>{STYLE}</style>
</head>
<body>
<input type="radio" name="language" id="fr" checked><input type="radio" name="language" id="en">
<nav><label for="fr" lang="fr">Français</label><label for="en" lang="en">English</label></nav>
<main>
<h1>{both(fr, en)}</h1>
{body}
</main>
{f"<script>{script}</script>" if script else ""}
</body>
</html>
"""


def _fingerprint(text: str) -> str:
    """What the policy knows an inline style or script by."""
    return "sha256-" + base64.b64encode(hashlib.sha256(text.encode()).digest()).decode()


STYLE = """
:root { color-scheme: light dark;
  --page: #f5f6f8; --card: #ffffff; --ink: #1c232b; --soft: #5b6875; --line: #dde2e8; --mark: #ffedb8; --mark-ink: #5c4300;
  --train: #2b6cb0; --validation: #c77f12; --test: #7b4fb8; --good: #2c7a51; --bad: #c0322b; --quiet: #9aa5b1; }
@media (prefers-color-scheme: dark) { :root {
  --page: #12161b; --card: #1a2027; --ink: #e4e9ee; --soft: #9caab7; --line: #2f3841; --mark: #54430f; --mark-ink: #ffe6a3;
  --train: #63a4e8; --validation: #e3ad55; --test: #b493f0; --good: #5fc08d; --bad: #f0847c; --quiet: #5f6b77; } }
* { box-sizing: border-box; }
body { margin: 0; background: var(--page); color: var(--ink); font: 16px/1.5 system-ui, "Segoe UI", Roboto, sans-serif; }
main { max-width: 60rem; margin: 0 auto; padding: 0 1.25rem 4rem; }
h1 { font-size: 1.7rem; line-height: 1.25; margin: .5rem 0 1.25rem; overflow-wrap: anywhere; }
h2 { font-size: 1.15rem; margin: 0 0 .9rem; }
h3 { font-size: .95rem; margin: 1.4rem 0 .5rem; color: var(--soft); }
section { background: var(--card); border: 1px solid var(--line); border-radius: 10px; padding: 1.2rem 1.4rem; margin: 1rem 0; }
input[name=language] { position: absolute; opacity: 0; }
nav { max-width: 60rem; margin: 0 auto; padding: 1.25rem 1.25rem 0; display: flex; gap: .4rem; }
nav label { border: 1px solid var(--line); border-radius: 99px; padding: .1rem .8rem; font-size: .85rem; color: var(--soft);
  cursor: pointer; }
#fr:checked ~ nav label[for=fr], #en:checked ~ nav label[for=en] { background: var(--ink); color: var(--page); }
#fr:focus-visible ~ nav label[for=fr], #en:focus-visible ~ nav label[for=en] { outline: 3px solid var(--train); }
#fr:checked ~ main .en, #en:checked ~ main .fr { display: none; }
.note { color: var(--soft); font-size: .88rem; margin: .6rem 0 0; max-width: 48rem; }
.warning { border-left: 4px solid var(--validation); padding: .1rem .8rem; margin: .6rem 0; overflow-wrap: anywhere; }
.tiles { display: flex; flex-wrap: wrap; align-items: center; gap: .6rem; margin-bottom: 1rem; }
.tile { flex: 1 1 6.5rem; border: 1px solid var(--line); border-radius: 8px; padding: .5rem .8rem; }
.tile b { display: block; font-size: 1.45rem; line-height: 1.2; font-variant-numeric: tabular-nums; }
.tile span { color: var(--soft); font-size: .85rem; }
.sign { color: var(--soft); font-size: 1.2rem; }
.wide { overflow-x: auto; }
table { border-collapse: collapse; width: 100%; font-size: .92rem; font-variant-numeric: tabular-nums; }
table.narrow { width: auto; min-width: 55%; max-width: 100%; }
th, td { text-align: right; padding: .35rem .6rem; border-bottom: 1px solid var(--line); vertical-align: top; }
th:first-child, td:first-child { text-align: left; padding-left: 0; min-width: 9rem; overflow-wrap: anywhere; }
th { color: var(--soft); font-weight: 600; font-size: .85rem; }
code { font: .85em ui-monospace, Menlo, Consolas, monospace; overflow-wrap: anywhere; }
td:last-child > code { font-size: .76em; } td:first-child > code { margin-right: .8em; }
.good { color: var(--good); font-weight: 600; } .bad { color: var(--bad); font-weight: 600; }
svg { display: block; width: 100%; height: auto; max-width: 52rem; min-width: 36rem; }
svg text { fill: var(--ink); font: 13px system-ui, "Segoe UI", Roboto, sans-serif; }
svg .soft { fill: var(--soft); font-size: 12px; } svg .grid { stroke: var(--line); } svg .axis { stroke: var(--quiet); }
.train { fill: var(--train); } .validation { fill: var(--validation); } .test { fill: var(--test); } .only { fill: var(--train); }
.line { fill: none; stroke-width: 2.5; } .line.train { stroke: var(--train); } .line.validation { stroke: var(--validation); }
.line.test { stroke: var(--test); } .line.dropped { stroke: var(--quiet); stroke-dasharray: 5 4; }
.verdict { border-left: 6px solid var(--validation); } .verdict.yes { border-color: var(--good); }
.verdict.no { border-color: var(--bad); }
.verdict p { margin: .35rem 0; } .verdict p:first-of-type { font-size: 1.2rem; font-weight: 600; }
.dropped { fill: var(--quiet); } .stopped { fill: var(--bad); } .doubled { fill: var(--validation); }
.call { border-top: 1px solid var(--line); padding: 1rem 0; }
.turn { margin: .35rem 0; padding-left: 7.2rem; position: relative; white-space: pre-wrap; overflow-wrap: anywhere; }
.turn > b { position: absolute; left: 0; color: var(--soft); font-weight: 600; font-size: .85rem; }
mark { background: var(--mark); color: var(--mark-ink); border-radius: 4px; padding: 0 .2em; }
.for1 { background: color-mix(in srgb, var(--train) 12%, transparent); color: inherit; }
.for2 { background: color-mix(in srgb, var(--train) 25%, transparent); color: inherit; }
.for3 { background: color-mix(in srgb, var(--train) 40%, transparent); color: inherit; }
.for4 { background: color-mix(in srgb, var(--train) 58%, transparent); color: inherit; }
.against1, .against2 { background: color-mix(in srgb, var(--bad) 18%, transparent); color: inherit; }
.against3, .against4 { background: color-mix(in srgb, var(--bad) 42%, transparent); color: inherit; }
.boxes { display: flex; flex-wrap: wrap; gap: .3rem 1.4rem; margin-top: .7rem; font-size: .92rem; }
form { display: grid; gap: .8rem; max-width: 32rem; }
input[type=text] { font: inherit; width: 100%; padding: .35rem .5rem; border: 1px solid var(--quiet); border-radius: 6px;
  background: var(--page); color: var(--ink); }
button { font: inherit; padding: .45rem 1rem; border: 0; border-radius: 6px; background: var(--ink); color: var(--page);
  cursor: pointer; justify-self: start; }
button:disabled { opacity: .4; cursor: default; }
@media (max-width: 34rem) { .turn { padding-left: 0; } .turn > b { position: static; display: block; } }
@media print { body { background: #fff; } nav { display: none; } section { break-inside: avoid; } }
"""
