"""What a GGUF file was made from, as the manifest that its export wrote beside it says."""

from __future__ import annotations

import json
from pathlib import Path


def adapter_of(file: Path, sha256: str) -> str | None:
    """SHA-256 of the adapter that was merged into the file, of several with + between; None where no manifest knows this file."""
    try:
        entry = json.loads((file.parent / "manifest.json").read_text("utf-8"))["files"][file.name]
        adapters = [str(adapter["sha256"]) for adapter in entry["made_from"]["adapters"]]
        return "+".join(adapters) or None if entry["sha256"] == sha256 else None
    except (OSError, ValueError, KeyError, TypeError):
        return None
