"""The JSON values of a file, one at a time: JSON lines, a list, a list inside an object, values in a row.

A list is never loaded whole: its elements are cut out by their braces and parsed one by one, so
that memory stays flat and a bad element costs only itself.
"""

from __future__ import annotations

import gzip
import re
import zlib
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple, TextIO

from llmft.dialogue import Fault
from llmft.strict_json import JsonRuleError, parse_json
from llmft.text_files.text_source import LOST, MAX_LINE_CHARS, TOO_LONG, guess_encoding, open_text, read_head, text_lines

_CHUNK_CHARS = 1 << 16
_LINES_SUFFIXES = (".jsonl", ".ndjson", ".jsonl.gz", ".ndjson.gz")
_ONE_CONVERSATION = re.compile(r'\s*\[\s*\{\s*"(?:role|from|speaker|content|value)"\s*:')
_CONTAINER = re.compile(r'\s*\{\s*"(?:data|rows|train|examples|calls|dialogues|records|items)"\s*:\s*(?=\[)')
_TOKEN = re.compile(r'"(?:[^"\\]++|\\.)*+(?P<closed>"?)|[\[\]{}]', re.DOTALL)
_VALUE, _VALUE_IN_LIST = re.compile(r"\S"), re.compile(r"[^\s,]")
_SCALAR_END = re.compile(r"[,\]\n{]")
_CLOSERS = {"{": "}", "[": "]"}


class JsonRow(NamedTuple):
    """A value and where it stands: its line in JSON lines, its number elsewhere."""

    number: int  # from 1
    value: Any


def json_rows(path: Path, encoding: str | None = None) -> Iterator[JsonRow | Fault]:
    """Every value of a file in order, or what is wrong with it."""
    encoding = encoding or guess_encoding(path)
    head = read_head(path).decode(encoding, "replace")
    if not head.strip():
        yield Fault(str(path), 1, "", "the file is empty or damaged")
    elif _is_lines(path, head):
        yield from _line_rows(path, encoding)
    else:
        with open_text(path, encoding) as file:
            yield from _Elements(str(path), file, head).rows()


def _is_lines(path: Path, head: str) -> bool:
    first = head.lstrip().split("\n", 1)[0].rstrip()
    if path.name.lower().endswith(_LINES_SUFFIXES):
        return first not in ("{", "[")
    if first.startswith("[") or _CONTAINER.match(head):
        return bool(_ONE_CONVERSATION.match(first)) and first.endswith("]")
    return not (first.startswith("{") and first.endswith(("{", "[", ",")))


def _line_rows(path: Path, encoding: str) -> Iterator[JsonRow | Fault]:
    file = str(path)
    for number, text, reason in text_lines(path, encoding, newline="\n"):
        if reason:
            yield Fault(file, number, "", reason)
        elif not text.isspace():
            yield _parsed(file, number, text)


def _parsed(file: str, number: int, text: str) -> JsonRow | Fault:
    try:
        return JsonRow(number, parse_json(text))
    except JsonRuleError as error:
        return Fault(file, number, "", str(error))


class _Elements:
    """Cuts a text into the values that stand one after another, in a list or without."""

    def __init__(self, name: str, file: TextIO, head: str) -> None:
        self.name, self.file = name, file
        self.text, self.at, self.is_whole = "", 0, False  # what was read and not yet used; whether the file ends there
        self.number = 0
        self.first_key = ""  # of the elements: where a new one may begin after a broken one
        container = _CONTAINER.match(head)
        self.in_list = bool(container) or head.lstrip().startswith("[") and not _ONE_CONVERSATION.match(head)
        self.skip = container.end() if container else 0

    def rows(self) -> Iterator[JsonRow | Fault]:
        self._refill()
        opening = self.text.find("[", self.skip) if self.in_list else -1
        self.at = opening + 1
        while self._next_begins():
            self.number += 1
            if self.text[self.at] == "]" and self.in_list:
                yield from self._after_list()
                return
            end = self._end()
            if isinstance(end, str):
                yield Fault(self.name, self.number, "", end)
                self._resume()
            else:
                yield self._element(self.text[self.at : end])
                self.at = end
        if self.in_list:
            yield Fault(self.name, self.number + 1, "", "the list is not closed: the file was cut off")

    def _element(self, text: str) -> JsonRow | Fault:
        self.first_key = self.first_key or _first_key(text)
        if LOST in text:
            return Fault(self.name, self.number, "", "not valid text in the file's encoding")
        return _parsed(self.name, self.number, text)

    def _after_list(self) -> Iterator[Fault]:
        """What stands after a list belongs to nothing; after one inside an object it is the object's."""
        self.at += 1
        if not self.skip and self._next_begins():
            yield Fault(self.name, self.number, "", "text stands after the end of the list")

    def _refill(self) -> bool:
        """Read on; False at the end of the file."""
        try:
            piece = self.file.read(_CHUNK_CHARS)
        except (EOFError, zlib.error, gzip.BadGzipFile, UnicodeError):
            piece = ""
        self.text, self.at = self.text[self.at :] + piece, 0
        self.is_whole = not piece
        return bool(piece)

    def _next_begins(self) -> bool:
        """Go to the next value; False when there is none."""
        value = _VALUE_IN_LIST if self.in_list else _VALUE
        while True:
            found = value.search(self.text, self.at)
            if found:
                self.at = found.start()
                return True
            self.at = len(self.text)
            if not self._refill():
                return False

    def _end(self) -> int | str:
        """Where the value that begins here ends, or why it has no end."""
        if self.text[self.at] not in "{[":
            return self._scalar_end()
        place, closers = self.at, []
        while True:
            token = _TOKEN.search(self.text, place)
            if token is None or token[0][0] == '"' and not token["closed"]:
                place = (token.start() if token else len(self.text)) - self.at
                if len(self.text) - self.at > MAX_LINE_CHARS:
                    return TOO_LONG
                if not self._refill():
                    return "not JSON: a quote or a bracket is never closed"
                continue  # what was used is gone, so this value begins at 0
            place = token.end()
            if token[0] in _CLOSERS:
                closers.append(_CLOSERS[token[0]])
            elif token[0] in "]}" and closers.pop() != token[0]:
                return "not JSON: its brackets do not fit"
            if not closers:
                return place if place - self.at <= MAX_LINE_CHARS else TOO_LONG

    def _scalar_end(self) -> int:
        end = _SCALAR_END.search(self.text, self.at + 1)
        return end.start() if end else len(self.text)

    def _resume(self) -> None:
        """After a value without end, go to where another of the same form begins."""
        self.first_key = self.first_key or _first_key(self.text[self.at : self.at + 1000])
        begins = re.compile(r"\{\s*" + re.escape(self.first_key) + r"\s*:")
        self.at += 1
        while True:
            found = begins.search(self.text, self.at) if self.first_key else None
            if found:
                self.at = found.start()
                return
            self.at = max(self.at, len(self.text) - 1000)  # its beginning may be cut in two
            if not self._refill():
                self.at = len(self.text)
                return


def _first_key(text: str) -> str:
    key = re.match(r'\s*\{\s*("(?:[^"\\]|\\.){0,100}")\s*:', text)
    return key[1] if key else ""
