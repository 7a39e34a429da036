"""What the model card says that only other files know: the base's licence, and what verify measured."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from llmft.run import write_text

UNKNOWN = "not stated in the base's folder; look it up where the base comes from"
LICENCE_LINE = re.compile(r"^licen[sc]e:\s*(.+?)\s*$", re.IGNORECASE | re.MULTILINE)
START, END = "<!-- measured -->", "<!-- end of measured -->"
MEASURED = {
    "logits, KL": "KL (nats)",
    "logits, top-1": "same likeliest token",
    "perplexity": "perplexity",
    "stops": "stops",
    "greedy, gpt4all 2.8.2": "GPT4All",
}


def licence_of(base_dir: Path) -> str:
    """The licence that a base's README names in its front matter, or the file that holds its text."""
    readme = base_dir / "README.md"
    if readme.is_file():
        head = readme.read_text("utf-8", "replace").partition("\n---")[0]
        if found := LICENCE_LINE.search(head):
            return found.group(1).strip("\"'")
    text = next((path.name for path in sorted(base_dir.iterdir()) if path.name.upper().startswith(("LICENSE", "LICENCE"))), None)
    return f"see {text} in the base's folder" if text else UNKNOWN


def measured_section(verified: Mapping[str, Any]) -> str:
    """A table of what verify measured of each file, between two marks by which a later run finds it."""
    if not verified:
        return f"{START}\nNot verified yet: run `llmft verify`.\n{END}"
    titles = " | ".join(MEASURED.values())
    rows = [f"| `{file}` | {_verdict(report)} | {_figures(report)} |" for file, report in sorted(verified.items())]
    head = f"| file | verified | {titles} |\n|---|---|{'---|' * len(MEASURED)}"
    return "\n".join([START, head, *rows, END])


def _verdict(report: Mapping[str, Any]) -> str:
    return "yes" if report["passed"] else "**no**"


def _figures(report: Mapping[str, Any]) -> str:
    found = {check["name"]: check["measured"] for check in report["checks"]}
    return " | ".join(_figure(found.get(name)) for name in MEASURED)


def _figure(value: Any) -> str:
    return f"{value:.3g}" if isinstance(value, float) else str(value if value is not None else "–")


def read_verified(path: Path) -> dict[str, Any]:
    """The entries of a verify.json for files that are still there and were not written again since."""
    try:
        entries, written = json.loads(path.read_text("utf-8")), path.stat().st_mtime
        files = {file: path.parent / file for file, report in entries.items() if "checks" in report}
        return {name: entries[name] for name, file in files.items() if file.is_file() and file.stat().st_mtime <= written}
    except (OSError, ValueError, AttributeError, TypeError):
        return {}


def evaluated_files(folder: Path, evaluation_dir: Path) -> list[str]:
    """The files of ``folder``'s manifest whose very bytes were evaluated; those written anew since have no figures yet."""
    try:
        written = json.loads((folder / "manifest.json").read_text("utf-8"))["files"]
        measured = json.loads((evaluation_dir / "metrics.json").read_text("utf-8"))["models"]
        return [
            name for name, facts in written.items() if measured.get(name, {}).get("made_of", {}).get("file") == facts["sha256"]
        ]
    except (OSError, ValueError, KeyError, TypeError, AttributeError):
        return []


def refresh_card(card_path: Path, verify_path: Path) -> None:
    """Put what verify measured into a model card that export wrote; a card without the marks is someone else's."""
    if not card_path.is_file():
        return
    text = card_path.read_text("utf-8")
    before, start, rest = text.partition(START)
    _, end, after = rest.partition(END)
    if start and end:
        write_text(card_path, before + measured_section(read_verified(verify_path)) + after)
