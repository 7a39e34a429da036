"""What was counted as a table: a value a line, the largest number first."""

from __future__ import annotations

import re
from collections.abc import Mapping

from llmft.page.document import Words, both, number, table
from llmft.prepare.reporting.french import in_french


def counts_table(title: Words, counts: Mapping[str, int], unit: Words, names: Mapping[str, Words] | None = None) -> str:
    """A title, and a line a value with its number, the largest first; nothing without values.

    ``names`` say what a value is called; one without a name stands as it is, and its sentence in French where that is known.
    """
    if not counts:
        return ""
    ordered = sorted(counts.items(), key=lambda item: (-item[1], item[0]))
    rows = [(both(*(names or {}).get(name, (_french(name), name))), number(count)) for name, count in ordered]
    return f"<h3>{both(*title)}</h3>{table(['', both(*unit)], rows, narrow=True)}"


def _french(text: str) -> str:
    """A fault in French; the field before its colon stays."""
    found = re.fullmatch(r"([\w.\[\]]+: )?(.+)", text, re.DOTALL)
    return f"{found[1] or ''}{in_french(found[2])}" if found else text
