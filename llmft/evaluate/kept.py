"""Figures of earlier runs: a JSON file with an entry a model, each with the key of what it was made from."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any


def kept_models(path: Path) -> dict[str, Any]:
    """Model ─▶ its entry; empty when there is no such file."""
    try:
        found = json.loads(path.read_text("utf-8"))["models"]
    except (OSError, ValueError, KeyError, TypeError):
        return {}
    return {name: entry for name, entry in found.items() if isinstance(entry, dict)} if isinstance(found, dict) else {}
