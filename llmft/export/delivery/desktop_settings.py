"""GPT4All desktop's settings file, changed line by line so that everything of the user's stays as it is.

It is an INI file of Qt's: groups in brackets, ``key=value`` lines, names compared without case.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

Lines = list[str]


def settings_path(platform: str, home: Path, environment: Mapping[str, str]) -> Path:
    """Where GPT4All desktop 3.10 keeps its settings on ``platform`` (``linux``, ``darwin`` or ``win32``)."""
    if platform == "win32":
        roaming = environment.get("APPDATA")
        return (Path(roaming) if roaming else home / "AppData" / "Roaming") / "nomic.ai" / "GPT4All.ini"
    if platform == "darwin":
        return home / ".config" / "gpt4all.io" / "GPT4All.ini"
    config = environment.get("XDG_CONFIG_HOME")
    return (Path(config) if config else home / ".config") / "nomic.ai" / "GPT4All.ini"


def read_group(text: str, group: str) -> dict[str, str]:
    """Keys and values of one group, as they are written."""
    inside, found = False, {}
    for line in text.splitlines():
        if name := group_name(line):
            inside = name == group.casefold()
        elif inside and "=" in line:
            key, _, value = line.partition("=")
            found[key.strip()] = value.strip()
    return found


def model_path(text: str) -> Path | None:
    """The models folder that the user chose in the app, if any."""
    value = {key.casefold(): value for key, value in read_group(text, "General").items()}.get("modelpath", "")
    return Path(value.strip('"')) if value.strip('"') else None


def with_keys(text: str, group: str, wanted: Mapping[str, str]) -> tuple[str, list[str]]:
    """``text`` with those ``wanted`` keys that the group does not have, and their names: the user's own values stay."""
    present = {key.casefold() for key in read_group(text, group)}
    added = [key for key in wanted if key.casefold() not in present]
    if not added:
        return text, []
    new = [f"{key}={wanted[key]}" for key in added]
    lines = text.splitlines()
    place = _end_of_group(lines, group)
    if place is None:
        gap = [""] if lines and lines[-1].strip() else []
        lines += [*gap, f"[{group}]", *new]
    else:
        lines[place:place] = new
    return "\n".join(lines) + "\n", added


def without_keys(text: str, group: str, keys: Mapping[str, str]) -> str:
    """``text`` without those ``keys`` of the group that still have the value that was given; an empty group goes too."""
    lines: Lines = []
    inside = False
    given = {key.casefold(): value for key, value in keys.items()}
    for line in text.splitlines():
        if name := group_name(line):
            inside = name == group.casefold()
        key, _, value = line.partition("=")
        if not (inside and given.get(key.strip().casefold()) == value.strip()):
            lines.append(line)
    if not read_group("\n".join(lines), group):
        lines = _without_heading(lines, group)
    return "\n".join(lines) + ("\n" if lines else "")


def group_name(line: str) -> str | None:
    """The group that begins at a line, in lower case; None for another line."""
    stripped = line.strip()
    return stripped[1:-1].casefold() if stripped.startswith("[") and stripped.endswith("]") else None


def _end_of_group(lines: Lines, group: str) -> int | None:
    """The place behind the last setting of a group."""
    start = next((number for number, line in enumerate(lines) if group_name(line) == group.casefold()), None)
    if start is None:
        return None
    stop = next((number for number in range(start + 1, len(lines)) if group_name(lines[number])), len(lines))
    while not lines[stop - 1].strip():
        stop -= 1
    return stop


def _without_heading(lines: Lines, group: str) -> Lines:
    kept = [line for line in lines if group_name(line) != group.casefold()]
    while kept and not kept[-1].strip():
        kept.pop()
    return kept
