"""Calls from a dataset of the Hugging Face hub, when the user names one, or from a folder that ``datasets`` saved.

    hub:owner/name    hub:owner/name:split

Each split is a source of its own. Where they are named as ours (train, validation, test) their rows keep them, as
rows of our own record do; otherwise, and where one split alone is named, all rows are split anew.
The only place of this stage that goes to the network; no code of the dataset is ever run.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Iterator, Sequence
from collections.abc import Mapping as AbcMapping
from itertools import islice
from pathlib import Path
from typing import Any

from llmft.dialogue import Fault, Split
from llmft.errors import DialogueError, MissingExtraError
from llmft.prepare.call import RawCall
from llmft.prepare.readers.chats import call_of_record, is_chat
from llmft.prepare.readers.mapping import Mapping, guess_mapping, no_words, override, shown
from llmft.prepare.readers.table_rows import Row
from llmft.prepare.readers.tables import calls_of_rows
from llmft.prepare.readers.workbooks import cell_text

_NAME = re.compile(r"hub:(?P<name>[\w-][\w.-]*/[\w-][\w.-]*)(?::(?P<split>[\w.-]+))?")
_ONE, _SEVERAL = "dataset_info.json", "dataset_dict.json"  # one of them lies in a folder that datasets saved
_OURS: dict[str, Split] = {
    **dict.fromkeys(("train", "training"), "train"),
    **dict.fromkeys(("validation", "valid", "val", "dev", "eval"), "validation"),
    **dict.fromkeys(("test", "testing"), "test"),
}
_SAMPLE_ROWS = 50


def is_hub_name(source: str) -> bool:
    """Whether ``source`` is meant for the hub; the process must then not be offline."""
    return source.startswith("hub:")


def is_dataset_folder(path: Path) -> bool:
    """Whether ``datasets`` saved the folder."""
    return any((path / name).is_file() for name in (_ONE, _SEVERAL))


def hub_splits(source: str) -> tuple[str, ...]:
    """``hub:owner/name:split`` for each split of a dataset, or for the one that ``source`` names.

    Raises :class:`DialogueError` for a name that is none, and for a dataset that cannot be reached.
    """
    match = _NAME.fullmatch(source)
    if match is None:
        raise DialogueError(f"{source!r} names no dataset; write hub:owner/name or hub:owner/name:split")
    found = tuple(_from_hub(match["name"], source))
    if match["split"] and match["split"] not in found:
        raise DialogueError(f"{source}: no split {match['split']!r} among {', '.join(found)}; name one of them")
    return tuple(f"hub:{match['name']}:{split}" for split in ([match["split"]] if match["split"] else found))


def folder_splits(path: Path) -> tuple[Path, ...]:
    """The folder of each split, or the folder itself when it holds one dataset; raises :class:`DialogueError`."""
    if not (path / _SEVERAL).is_file():
        return (path,)
    try:
        return tuple(path / str(name) for name in json.loads((path / _SEVERAL).read_text("utf-8"))["splits"])
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise _damaged(path, error) from error


def our_splits(names: Sequence[str]) -> dict[str, Split]:
    """A dataset's split ─▶ ours, when all are named as ours and there are both train and test; empty otherwise."""
    known = {name: _OURS[name.lower()] for name in names if name.lower() in _OURS}
    return known if len(known) == len(names) and {"train", "test"} <= set(known.values()) else {}


def open_rows(source: str) -> Iterable[dict[str, Any]]:
    """The rows of one split: ``hub:owner/name:split``, streamed, or a folder; raises :class:`DialogueError`."""
    if match := _NAME.fullmatch(source):
        rows: Iterable[dict[str, Any]] = _from_hub(match["name"], source)[str(match["split"])]
        return rows
    datasets = _datasets()
    try:
        loaded: Iterable[dict[str, Any]] = datasets.load_from_disk(source)
    except Exception as error:  # the library raises whatever went wrong below it
        raise _damaged(Path(source), error) from error
    return loaded


def map_rows(
    rows: Iterable[dict[str, Any]], source: str, columns: AbcMapping[str, Sequence[str]] | None
) -> tuple[Mapping | None, list[str]]:
    """How the rows are read, and that in words: None for chats, else which column holds what, ``columns`` first.

    Raises :class:`DialogueError` when a column is missing, or none holds the words of the call.
    """
    sample = [row for row in islice(_until_broken(rows, source), _SAMPLE_ROWS) if not isinstance(row, Fault)]
    first = sample[0] if sample else {}
    if not columns and is_chat(first):
        return None, ["rows of messages"]
    header = tuple(first)
    mapping = guess_mapping(header, [_cells(row, header) for row in sample])
    if columns:
        mapping = override(mapping, columns)
    if sample and mapping.form == "unknown":
        raise DialogueError(f"{source}: {no_words(mapping)}")
    return mapping, [shown(mapping)]


def read_rows(rows: Iterable[dict[str, Any]], file: str, mapping: Mapping | None) -> Iterator[RawCall | Fault]:
    """Rows as calls: as chats without a ``mapping``, else as rows of a table."""
    numbered = enumerate(_until_broken(rows, file), start=1)
    if mapping is None:
        for number, row in numbered:
            yield row if isinstance(row, Fault) else call_of_record(row, file, number)
        return
    cells = (row if isinstance(row, Fault) else Row(number, _cells(row, mapping.header)) for number, row in numbered)
    yield from calls_of_rows(cells, mapping, file)


def _cells(record: dict[str, Any], header: tuple[str, ...]) -> list[str]:
    return [cell_text(record.get(name)) for name in header]


def _until_broken(records: Iterable[dict[str, Any]], file: str) -> Iterator[dict[str, Any] | Fault]:
    number = 0
    try:
        for record in records:
            number += 1
            yield record
    except Exception:  # a lost connection, a damaged file: the library raises what it meets
        yield Fault(file, number + 1, "", "the dataset cannot be read from here on")


def _from_hub(name: str, source: str) -> dict[str, Any]:
    """Split ─▶ its rows, none of them loaded yet."""
    datasets = _datasets()
    try:
        return dict(datasets.load_dataset(name, streaming=True))
    except Exception as error:  # the library raises whatever went wrong below it
        raise DialogueError(
            f"{source} cannot be loaded ({type(error).__name__}); check its name, your access and the network"
        ) from error


def _damaged(path: Path, error: Exception) -> DialogueError:
    return DialogueError(f"{path} is no whole dataset folder ({type(error).__name__}); save it again")


def _datasets() -> Any:
    try:
        import datasets
    except ImportError as error:
        raise MissingExtraError("datasets", "train") from error
    return datasets
