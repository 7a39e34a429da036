"""Which column of a table holds what: guessed from names and contents, shown, and overridable.

A *field* is ours (``transcript``, ``urgency``, …), a *column* is the table's. Some fields take
several columns, such as a patient's last and first name.
"""

from __future__ import annotations

import difflib
import re
from collections import defaultdict
from collections.abc import Callable, Iterator, Sequence
from collections.abc import Mapping as AbcMapping
from dataclasses import dataclass, field, replace
from functools import cache, lru_cache
from pathlib import Path

from llmft.errors import DialogueError
from llmft.knowledge import load
from llmft.prepare.readers.cell_values import is_sex
from llmft.vocabulary import ICD10_PATTERN, plain, specialty_id

_TITLE = re.compile(r"[^\d?!;,]{2,40}")
_MARKED = re.compile(r"(?:^|[\n.?!/|]\s*)[^\W\d_][\w ]{1,20}\s?:\s")  # "PATIENT: …" at the head of a phrase


@cache
def field_names() -> dict[str, tuple[str, ...]]:
    """Field ─▶ what its column may be called, the likelier field first."""
    return {name: tuple(names) for name, names in load("columns.yaml")["fields"].items()}


@cache
def _words(key: str) -> frozenset[str]:
    return frozenset(load("columns.yaml")[key])


@dataclass(frozen=True)
class Mapping:
    """Field ─▶ the columns that hold it, each column by its place in ``header``."""

    header: tuple[str, ...]
    columns: AbcMapping[str, tuple[int, ...]]
    reasons: AbcMapping[str, str] = field(default_factory=dict)  # field ─▶ why we think so

    @property
    def form(self) -> str:
        """What a row is: a ``call``, a ``turn``, or ``unknown`` when no column holds the words."""
        if "text" in self.columns and "speaker" in self.columns and "id" in self.columns:
            return "turn"
        says_both = "patient_says" in self.columns and "operator_says" in self.columns
        return "call" if "transcript" in self.columns or says_both else "unknown"


def guess_mapping(header: Sequence[str], sample_rows: Sequence[Sequence[str]]) -> Mapping:
    """The likeliest mapping, by the columns' names first and by what they hold second."""
    columns: dict[str, tuple[int, ...]] = {}
    reasons: dict[str, str] = {}
    matches = [match for place, name in enumerate(header) for match in _matches(name, place)]
    matches.sort(key=lambda match: (-match[0], -match[1], match[2]))  # of equals the first column
    taken: set[int] = set()
    for _, _, place, name in matches:
        if place in taken or (name in columns and name not in _words("several")):
            continue
        columns[name] = tuple(sorted((*columns.get(name, ()), place)))
        reasons[name] = "by its name"
        taken.add(place)
    for place in range(len(header)):
        cells = [row[place].strip() for row in sample_rows if place < len(row) and row[place].strip()]
        name = _by_content(cells, columns) if place not in taken and cells else ""
        if name:
            columns[name], reasons[name] = (place,), "by what it holds"
    return _with_words_in_place(Mapping(tuple(header), columns, reasons), sample_rows)


def known_names(cells: Sequence[str]) -> int:
    """How many cells are names of columns that we know."""
    return sum(1 for cell in cells if len(cell) <= 60 and next(_matches(cell, 0), None))


def is_known_title(cell: str) -> bool:
    """Whether a cell is exactly the name of a column that we know: a quick test for every row."""
    return _TITLE.fullmatch(cell) is not None and plain(cell) in _titles()


@cache
def _titles() -> frozenset[str]:
    return frozenset(title for titles in field_names().values() for title in titles)


def parse_columns(text: str) -> dict[str, list[str]]:
    """Field ─▶ columns from ``transcript=Texte,patient=Nom+Prénom``, or from a YAML file of that name."""
    path = Path(text)
    if path.suffix in (".yaml", ".yml"):
        return _columns_from_yaml(path)
    wanted: dict[str, list[str]] = {}
    for part in filter(None, (part.strip() for part in text.split(","))):
        name, separator, value = part.partition("=")
        if not separator:
            raise DialogueError(f"{part!r} names no column; write FIELD=COLUMN, such as transcript=Texte")
        wanted[_known_field(name.strip())] = [column.strip() for column in value.split("+") if column.strip()]
    return wanted


def override(mapping: Mapping, wanted: AbcMapping[str, Sequence[str]]) -> Mapping:
    """``mapping`` with the user's own columns, by name or number; a field without columns is not read."""
    places = {name: tuple(_place(mapping.header, name, column) for column in columns) for name, columns in wanted.items()}
    spoken_for = {place for chosen in places.values() for place in chosen}
    kept = {
        name: rest
        for name, old in mapping.columns.items()
        if name not in places and (rest := tuple(place for place in old if place not in spoken_for))
    }
    columns = {**kept, **{name: chosen for name, chosen in places.items() if chosen}}
    reasons = {**mapping.reasons, **dict.fromkeys(places, "as you said")}
    return Mapping(mapping.header, columns, {name: reasons[name] for name in columns if name in reasons})


def describe(mapping: Mapping) -> list[str]:
    """The mapping as lines to show before it is used."""
    rows = {"turn": "one row a turn", "call": "one row a call", "unknown": "no column holds the words: name it with --columns"}
    many = ", or one an exchange where ids come again" if mapping.form == "call" and "transcript" not in mapping.columns else ""
    lines = [f"form: {rows[mapping.form]}{many}"]
    for name in field_names():
        if name in mapping.columns:
            names = " + ".join(mapping.header[place] for place in mapping.columns[name])
            lines.append(f"{name} ◀ {names} ({mapping.reasons.get(name, 'given')})")
    used = {place for places in mapping.columns.values() for place in places}
    unused = [name for place, name in enumerate(mapping.header) if place not in used]
    return [*lines, f"not read: {', '.join(unused)}"] if unused else lines


def shown(mapping: Mapping) -> str:
    """The mapping in one line, and how to say otherwise."""
    return "; ".join([*describe(mapping), "say otherwise with --columns FIELD=COLUMN"])


def no_words(mapping: Mapping) -> str:
    """The sentence for a table of which no column holds what was said."""
    if not mapping.header:
        return "the file is empty or damaged"
    columns = ", ".join(mapping.header)
    return f"no column was found that holds the words of the call (columns: {columns}); name it with --columns transcript=NAME"


def _columns_from_yaml(path: Path) -> dict[str, list[str]]:
    import yaml

    try:
        loaded = yaml.safe_load(path.read_text("utf-8"))
    except (OSError, UnicodeDecodeError, yaml.YAMLError) as error:
        raise DialogueError(f"{path} cannot be read as YAML; write lines such as transcript: Texte") from error
    if not isinstance(loaded, dict):
        raise DialogueError(f"{path} is no list of FIELD: COLUMN; write lines such as transcript: Texte")
    return {
        _known_field(str(name)): [str(column) for column in (value if isinstance(value, list) else [value]) if column is not None]
        for name, value in loaded.items()
    }


def _known_field(name: str) -> str:
    if name in field_names():
        return name
    close = difflib.get_close_matches(name, field_names(), n=1)
    hint = f"did you mean {close[0]!r}?" if close else f"choose one of {', '.join(field_names())}"
    raise DialogueError(f"{name!r} is no field of a call; {hint}")


def _place(header: Sequence[str], name: str, column: str) -> int:
    if column in header:
        return list(header).index(column)
    alike = [place for place, title in enumerate(header) if plain(title) == plain(column) != ""]
    if alike:
        return alike[0]
    if column.isascii() and column.isdigit() and 1 <= int(column) <= len(header):
        return int(column) - 1
    raise DialogueError(f"{name}: no column is called {column!r}; the columns are {', '.join(header)}")


def _matches(title: str, place: int) -> Iterator[tuple[float, int, int, str]]:
    """How well each field fits a column's name: 1 for the very name, less for a part of it."""
    for score, rank, name in _scores(plain(title)):
        yield score, rank, place, name


@lru_cache(maxsize=4096)
def _scores(title: str) -> tuple[tuple[float, int, str], ...]:
    words = {word for word in title.split() if word not in _words("small_words")} or set(title.split())
    best: dict[tuple[int, str], float] = {}
    for word in words:
        for alias, rank, name in _aliases().get(word, ()):
            score = len(alias) / len(words)
            is_other = bool((words - alias) & _words("other_matters"))
            if alias <= words and not is_other and score >= max(0.5, best.get((rank, name), 0.0)):
                best[rank, name] = score
    return tuple((score, rank, name) for (rank, name), score in best.items())


@cache
def _aliases() -> dict[str, list[tuple[frozenset[str], int, str]]]:
    """Word ─▶ the names of columns that have it, the rank of their field (likelier is greater), and the field."""
    aliases: dict[str, list[tuple[frozenset[str], int, str]]] = defaultdict(list)
    for rank, (name, titles) in enumerate(field_names().items()):
        for alias in (frozenset(title.split()) for title in titles):
            for word in alias:
                aliases[word].append((alias, -rank, name))
    return dict(aliases)


def _by_content(cells: Sequence[str], taken: AbcMapping[str, tuple[int, ...]]) -> str:
    """The field whose form all cells have; empty when none is sure."""
    for name, fits in _CONTENTS.items():
        if name not in taken and all(fits(cell) for cell in cells):
            return name
    if "speaker" not in taken and "transcript" not in taken and _is_speaker_column(cells):
        return "speaker"
    return "transcript" if "transcript" not in taken and "text" not in taken and _is_words(cells) else ""


_CONTENTS: dict[str, Callable[[str], bool]] = {
    "urgency": lambda cell: bool(re.fullmatch(r"[UuPp][0-4]", cell)),
    "icd10": lambda cell: bool(ICD10_PATTERN.match(cell)),
    "lang": lambda cell: cell.lower() in ("fr", "en", "fr-fr", "en-us", "en-gb", "français", "english"),
    "specialty": lambda cell: specialty_id(cell) is not None,
    "sex": lambda cell: cell.isalpha() and is_sex(cell),
    "email": lambda cell: bool(re.fullmatch(r"[^\s@]+@[^\s@]+\.[a-z]{2,}", cell)),
    "phone": lambda cell: bool(re.fullmatch(r"(?:\+33|0)[\s.]?[1-9](?:[\s.-]?\d\d){4}", cell)),
    "date": lambda cell: bool(re.match(r"(?:\d{4}-\d\d-\d\d|\d\d?/\d\d?/\d{4})\b", cell)),
}


def _is_speaker_column(cells: Sequence[str]) -> bool:
    kinds = {plain(cell) for cell in cells}
    return len(cells) >= 4 and 2 <= len(kinds) <= 4 and all(0 < len(kind) <= 20 and not kind.isdigit() for kind in kinds)


def _is_words(cells: Sequence[str]) -> bool:
    marked = sum(len(_MARKED.findall(cell)) >= 2 for cell in cells)
    return marked * 2 >= len(cells) or sum(cell.count(" ") for cell in cells) >= 4 * len(cells)


def _with_words_in_place(mapping: Mapping, sample_rows: Sequence[Sequence[str]]) -> Mapping:
    """``text`` is of one turn and needs a speaker beside it; ``transcript`` is of a whole call."""
    columns = dict(mapping.columns)
    wrong, right = ("transcript", "text") if "speaker" in columns else ("text", "transcript")
    if wrong not in columns or right in columns:
        return mapping
    place = columns[wrong][0]
    cells = [row[place] for row in sample_rows if place < len(row)]
    if right == "text" and cells and all(len(_MARKED.findall(cell)) >= 2 for cell in cells):
        return mapping  # whole calls, whatever the speaker's column is for
    columns[right] = columns.pop(wrong)[:1] if right == "text" else columns.pop(wrong)
    reasons = {right if name == wrong else name: reason for name, reason in mapping.reasons.items()}
    return replace(mapping, columns=columns, reasons=reasons)
