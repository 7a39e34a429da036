"""Bring a GGUF into GPT4All desktop, with its settings, and take it out again: nothing of the user's is lost."""

from __future__ import annotations

import json
import os
import shutil
import sys
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from llmft.engine.gguf_header import read_gguf_header
from llmft.errors import ExportError
from llmft.export.delivery.desktop import ARCHITECTURES, OWN_FILES, OWN_NAMES
from llmft.export.delivery.desktop_settings import group_name, model_path, read_group, settings_path, with_keys, without_keys
from llmft.run import atomic_path, require_space, write_json, write_text

RECORD = ".llmft.json"  # behind the file's name: what an installation changed, for undo
BACKUP = ".llmft-backup"  # the desktop lists names that end in .gguf alone


@dataclass(frozen=True)
class Desktop:
    """The places of one GPT4All desktop."""

    models_dir: Path
    settings: Path


def models_folder(platform: str, home: Path, environment: Mapping[str, str]) -> Path:
    """Where GPT4All desktop 3.10 keeps its models on ``platform`` (``linux``, ``darwin`` or ``win32``)."""
    if platform == "win32":
        local = environment.get("LOCALAPPDATA")
        return (Path(local) if local else home / "AppData" / "Local") / "nomic.ai" / "GPT4All"
    if platform == "darwin":
        return home / "Library" / "Application Support" / "nomic.ai" / "GPT4All"
    data = environment.get("XDG_DATA_HOME")
    return (Path(data) if data else home / ".local" / "share") / "nomic.ai" / "GPT4All"


def find_desktop(models_dir: Path | None, settings: Path | None) -> Desktop:
    """This machine's desktop, or the places that were given; a folder that the user chose in the app counts."""
    where = settings or settings_path(sys.platform, Path.home(), os.environ)
    if models_dir is not None:
        # another models folder than the app's is a try-out: the app's own settings stay out of it
        return Desktop(models_dir, settings or models_dir / "GPT4All.ini")
    return Desktop(model_path(_read(where)) or models_folder(sys.platform, Path.home(), os.environ), where)


def install(
    gguf_path: Path,
    models_dir: Path | None,
    *,
    settings: Path | None = None,
    dry_run: bool = False,
    force: bool = False,
) -> str:
    """Copy ``gguf_path`` into the models folder and add its settings; returns the sentence to show.

    GPT4All lists every file there whose name ends in ``.gguf``, under that name. Settings of the user's stay; with
    ``force`` a file of this name is kept as a backup.
    """
    _require_runnable(gguf_path)
    desktop = find_desktop(models_dir, settings)
    target, present = desktop.models_dir / gguf_path.name, _read(desktop.settings)
    wanted = _without_taken_name(_wanted_settings(gguf_path), present, _group(gguf_path))
    changed, added = with_keys(present, _group(gguf_path), wanted)
    if dry_run:
        settings_words = f"\nwould add to {desktop.settings}: {', '.join(added)}" if added else ""
        return f"would copy {gguf_path} to {target}{settings_words}"
    if target.exists() and not force:
        raise ExportError(f"{target} exists; replace it with --force")
    require_space(desktop.models_dir, gguf_path.stat().st_size)
    record = _earlier_record(target)
    if target.exists() and not _backup(target).exists() and not record:
        target.rename(_backup(target))
    with atomic_path(target) as partial:
        shutil.copyfile(gguf_path, partial)
    if added:
        if desktop.settings.is_file() and not _backup(desktop.settings).exists():
            shutil.copy2(desktop.settings, _backup(desktop.settings))
        write_text(desktop.settings, changed)
    given = {**record.get("keys", {}), **{key: wanted[key] for key in added}}
    write_json(_record(target), {"settings": str(desktop.settings), "group": _group(gguf_path), "keys": given})
    return f"{target}\nOpen GPT4All (again, if it was open), choose this file in the model menu; it needs no network."


def uninstall(name: str, models_dir: Path | None, *, settings: Path | None = None, dry_run: bool = False) -> str:
    """Undo what :func:`install` did for the file called ``name``; settings that the user changed since stay."""
    desktop = find_desktop(models_dir, settings)
    target = desktop.models_dir / Path(name).name
    record = _earlier_record(target)
    if not record:
        raise ExportError(f"{target} was not put there by llmft, so there is nothing to undo; delete it in GPT4All itself")
    if dry_run:
        return f"would remove {target} and its settings" + (", and put back what was there" if _backup(target).exists() else "")
    where = Path(record["settings"])
    if where.is_file():
        write_text(where, without_keys(_read(where), record["group"], record["keys"]))
    if _backup(target).exists():
        _backup(target).replace(target)
        words = f"{target} is again what it was"
    else:
        target.unlink(missing_ok=True)
        words = f"{target} is removed"
    _record(target).unlink()
    return words


def _require_runnable(path: Path) -> None:
    """A damaged file, or one that the desktop would refuse, is not copied."""
    if not path.is_file() or path.suffix != ".gguf":
        raise ExportError(f"{path} is no GGUF file; make one with: llmft export")
    header = read_gguf_header(path)
    if header.architecture not in ARCHITECTURES:
        known = ", ".join(ARCHITECTURES)
        raise ExportError(
            f"GPT4All desktop 3.10 cannot run {header.architecture!r} (it runs {known}); use llama.cpp: llmft chat {path}"
        )
    if path.name.casefold() in OWN_FILES:
        raise ExportError(f"{path.name} is the name of one of GPT4All's own models, and would be taken for it; rename the file")
    if "split.count" in header.metadata:
        raise ExportError(f"{path} is a part of a split file, which GPT4All desktop cannot use; export it whole")


def _wanted_settings(gguf_path: Path) -> dict[str, str]:
    """The file's group in the settings that export wrote beside it."""
    for name in ("gpt4all.ini", f"{gguf_path.stem}.gpt4all.ini"):
        if found := read_group(_read(gguf_path.with_name(name)), _group(gguf_path)):
            return found
    return {}


def _without_taken_name(wanted: dict[str, str], present: str, group: str) -> dict[str, str]:
    """``wanted`` without a display name that another model has: the desktop then shows the file's own, which is unique."""
    groups = {name for line in present.splitlines() if (name := group_name(line)) and name != group.casefold()}
    taken = {read_group(present, name).get("name", "").strip('"').casefold() for name in groups} | OWN_NAMES
    return {key: value for key, value in wanted.items() if key != "name" or value.strip('"').casefold() not in taken}


def _group(gguf_path: Path) -> str:
    from llmft.export.delivery.card import ini_group

    return ini_group(gguf_path.name)


def _earlier_record(target: Path) -> dict[str, Any]:
    try:
        record = json.loads(_record(target).read_text("utf-8"))
    except (OSError, ValueError):
        return {}
    return record if isinstance(record, dict) and {"settings", "group", "keys"} <= set(record) else {}


def _record(target: Path) -> Path:
    return target.with_name(target.name + RECORD)


def _backup(path: Path) -> Path:
    return path.with_name(path.name + BACKUP)


def _read(path: Path) -> str:
    try:
        return path.read_text("utf-8")
    except FileNotFoundError:
        return ""
    except (OSError, UnicodeDecodeError) as error:
        raise ExportError(f"{path} cannot be read ({type(error).__name__}); close GPT4All and look at the file") from error
