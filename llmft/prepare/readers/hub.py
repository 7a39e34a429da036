"""Calls from a dataset of the Hugging Face hub, when the user names one, or from a folder that ``datasets`` saved.

    hub:owner/name    hub:owner/name:split

The only place of this stage that goes to the network; no code of the dataset is ever run.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator
from itertools import chain, islice
from pathlib import Path
from typing import Any

from llmft.dialogue import Fault
from llmft.errors import DialogueError, MissingExtraError
from llmft.prepare.call import RawCall
from llmft.prepare.readers.chats import call_of_record, is_chat
from llmft.prepare.readers.mapping import Mapping, guess_mapping
from llmft.prepare.readers.table_rows import Row
from llmft.prepare.readers.tables import calls_of_rows
from llmft.prepare.readers.workbooks import cell_text

_NAME = re.compile(r"hub:(?P<name>[\w-][\w.-]*/[\w-][\w.-]*)(?::(?P<split>[\w.-]+))?")
_SAVED = ("dataset_info.json", "dataset_dict.json")  # one of them lies in a folder that datasets saved
_SAMPLE_ROWS = 50


def is_hub_name(source: str) -> bool:
    """Whether ``source`` is meant for the hub; the process must then not be offline."""
    return source.startswith("hub:")


def is_dataset_folder(path: Path) -> bool:
    """Whether ``datasets`` saved the folder."""
    return any((path / name).is_file() for name in _SAVED)


def read_hub(source: str, mapping: Mapping | None = None) -> Iterator[RawCall | Fault]:
    """Every row of a dataset of the hub, streamed; raises :class:`DialogueError` when it cannot be reached."""
    match = _NAME.fullmatch(source)
    if match is None:
        raise DialogueError(f"{source!r} names no dataset; write hub:owner/name or hub:owner/name:split")
    datasets = _datasets()
    try:
        loaded = datasets.load_dataset(match["name"], streaming=True)
    except Exception as error:  # the library raises whatever went wrong below it
        raise DialogueError(
            f"{source} cannot be loaded ({type(error).__name__}); check its name, your access and the network"
        ) from error
    return read_records(_of_split(loaded, match["split"], source), source, mapping)


def read_dataset_folder(path: Path, split: str | None = None, mapping: Mapping | None = None) -> Iterator[RawCall | Fault]:
    """Every row of a saved dataset; raises :class:`DialogueError` when it cannot be opened."""
    datasets = _datasets()
    try:
        loaded = datasets.load_from_disk(str(path))
    except Exception as error:  # the library raises whatever went wrong below it
        raise DialogueError(f"{path} is no whole dataset folder ({type(error).__name__}); save it again") from error
    return read_records(_of_split(loaded, split, str(path)), str(path), mapping)


def read_records(records: Iterable[dict[str, Any]], file: str, mapping: Mapping | None = None) -> Iterator[RawCall | Fault]:
    """Records as calls: as chats when they hold messages, else as rows of a table."""
    safe = _until_broken(records, file)
    sample = list(islice(safe, _SAMPLE_ROWS))
    first = next((record for record in sample if not isinstance(record, Fault)), {})
    everything = enumerate(chain(sample, safe), start=1)
    if mapping is None and is_chat(first):
        for number, record in everything:
            yield record if isinstance(record, Fault) else call_of_record(record, file, number)
        return
    header = tuple(first)
    mapping = mapping or guess_mapping(header, [_cells(record, header) for record in sample if not isinstance(record, Fault)])
    rows = (record if isinstance(record, Fault) else Row(number, _cells(record, mapping.header)) for number, record in everything)
    yield from calls_of_rows(rows, mapping, file)


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


def _of_split(loaded: Any, split: str | None, source: str) -> Any:
    if not isinstance(loaded, dict):
        return loaded
    if split is None and len(loaded) == 1:
        return next(iter(loaded.values()))
    if split not in loaded:
        found = f"split {split!r} is not" if split else "no split was named"
        raise DialogueError(f"{source}: {found} among {', '.join(map(str, loaded))}; name one after a colon")
    return loaded[split]


def _datasets() -> Any:
    try:
        import datasets
    except ImportError as error:
        raise MissingExtraError("datasets", "train") from error
    return datasets
