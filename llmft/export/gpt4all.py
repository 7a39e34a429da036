"""Bring a GGUF into GPT4All desktop: the right folder on each system, a whole file, nothing overwritten."""

from __future__ import annotations

import os
import shutil
import sys
from collections.abc import Mapping
from pathlib import Path

from llmft.errors import ExportError
from llmft.run import atomic_path, require_space


def models_folder(platform: str, home: Path, environment: Mapping[str, str]) -> Path:
    """Where GPT4All desktop 3.10 keeps its models on ``platform`` (``linux``, ``darwin`` or ``win32``)."""
    if platform == "win32":
        local = environment.get("LOCALAPPDATA")
        return (Path(local) if local else home / "AppData" / "Local") / "nomic.ai" / "GPT4All"
    if platform == "darwin":
        return home / "Library" / "Application Support" / "nomic.ai" / "GPT4All"
    data = environment.get("XDG_DATA_HOME")
    return (Path(data) if data else home / ".local" / "share") / "nomic.ai" / "GPT4All"


def install(gguf_path: Path, models_dir: Path | None, *, dry_run: bool = False, force: bool = False) -> str:
    """Copy ``gguf_path`` into the models folder; returns the sentence to show.

    GPT4All lists every file there whose name ends in ``.gguf``, under that name.
    """
    if not gguf_path.is_file() or gguf_path.suffix != ".gguf":
        raise ExportError(f"{gguf_path} is no GGUF file; make one with: llmft export")
    folder = models_dir or models_folder(sys.platform, Path.home(), os.environ)
    target = folder / gguf_path.name
    if dry_run:
        return f"would copy {gguf_path} to {target}"
    if target.exists() and not force:
        raise ExportError(f"{target} exists; replace it with --force")
    require_space(folder, gguf_path.stat().st_size)
    with atomic_path(target) as partial:
        shutil.copyfile(gguf_path, partial)
    return f"{target}\nOpen GPT4All, choose this file in the model menu, and start a chat; it needs no network."
