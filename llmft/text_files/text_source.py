"""Text files as lines, whatever their encoding and however long a line is: memory stays flat.

Bytes that the encoding does not know become :data:`LOST`, so that the row that holds them can be
refused while the others are read. Files packed with gzip are read as they are.
"""

from __future__ import annotations

import codecs
import gzip
import io
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import NamedTuple, TextIO

from llmft.errors import DialogueError, MissingExtraError

MAX_LINE_CHARS = 2_000_000  # a call has a few thousand; more than this is no call
TOO_LONG = "longer than 2 MB; no call has that many words"
LOST = "\udcff"  # stands for bytes that are no text; no encoding yields it by itself
ENCODINGS = ("cp1252", "mac_roman", "cp850")  # of French and English exports that are not Unicode
_PIECE_BYTES = 1 << 18
_MARKS = (
    (codecs.BOM_UTF8, "utf-8-sig"),
    (codecs.BOM_UTF32_LE, "utf-32"),  # begins as UTF-16 does, so it comes first
    (codecs.BOM_UTF32_BE, "utf-32"),
    (codecs.BOM_UTF16_LE, "utf-16"),
    (codecs.BOM_UTF16_BE, "utf-16"),
)


class Line(NamedTuple):
    """A line without its end, or the reason why it cannot be read."""

    number: int  # from 1
    text: str
    reason: str = ""


def _mark_lost(error: UnicodeError) -> tuple[str, int]:
    assert isinstance(error, UnicodeDecodeError)
    return LOST, error.end


codecs.register_error("llmft.lost", _mark_lost)


def read_head(path: Path) -> bytes:
    """The first bytes of a file, unpacked; raises :class:`DialogueError` when it cannot be opened."""
    return next(_pieces(path), b"")


def guess_encoding(path: Path) -> str:
    """UTF-8 when nearly all of it is; else what its marks, its zeros or its letters say."""
    head = read_head(path)
    for mark, name in _MARKS:
        if head.startswith(mark):
            return name
    if len(head) >= 4 and head.count(0) > len(head) // 4:  # letters of two bytes, one of them zero
        return "utf-16-le" if head[1::2].count(0) > head[::2].count(0) else "utf-16-be"
    telling = next((piece for piece in _pieces(path) if not piece.isascii()), b"")
    text = codecs.getincrementaldecoder("utf-8")("llmft.lost").decode(telling)
    foreign = len(text) - len(text.encode("ascii", "ignore"))
    return "utf-8" if text.count(LOST) * 10 <= foreign else _guess_letters(telling)


def _pieces(path: Path) -> Iterator[bytes]:
    """The file in pieces, up to where it is damaged; the lines will say that it is."""
    try:
        with _unpacked(path) as file:
            while piece := file.read(_PIECE_BYTES):
                yield piece
    except (EOFError, zlib.error, gzip.BadGzipFile):
        return
    except OSError as error:
        raise _unreadable(path, error) from error


def _guess_letters(piece: bytes) -> str:
    try:
        from charset_normalizer import from_bytes
    except ImportError as error:
        raise MissingExtraError("charset_normalizer", "data") from error
    telling = b"\n".join(line for line in piece.splitlines() if not line.isascii())[:8192]
    best = from_bytes(telling, cp_isolation=list(ENCODINGS)).best()
    return best.encoding if best else ENCODINGS[0]


@contextmanager
def open_text(path: Path, encoding: str, newline: str | None = None) -> Iterator[TextIO]:
    """A text file, packed or not; raises :class:`DialogueError` for a file or an encoding that is not there."""
    try:
        with _unpacked(path) as file:
            try:
                text = io.TextIOWrapper(file, encoding=encoding, errors="llmft.lost", newline=newline)
            except LookupError:
                raise DialogueError(f"{encoding!r} is no text encoding; name one such as utf-8 or cp1252") from None
            yield text
    except OSError as error:
        raise _unreadable(path, error) from error


def text_lines(path: Path, encoding: str, newline: str | None = None) -> Iterator[Line]:
    """Each line in order; one that is too long, broken or no text comes with a reason instead of its text."""
    number = 0
    with open_text(path, encoding, newline) as file:
        try:
            while text := file.readline(MAX_LINE_CHARS + 1):
                number += 1
                if len(text) > MAX_LINE_CHARS:
                    _skip_line(file, text)
                    yield Line(number, "", TOO_LONG)
                elif LOST in text:
                    yield Line(number, "", f"not valid {encoding} text")
                elif "\0" in text:
                    yield Line(number, "", "a NUL character stands in the line")
                else:
                    yield Line(number, text)
        except (EOFError, zlib.error, gzip.BadGzipFile, UnicodeError):
            yield Line(number + 1, "", "the file is damaged from here on")


def _skip_line(file: TextIO, text: str) -> None:
    while text and not text.endswith("\n"):
        text = file.readline(1 << 16)


def _unpacked(path: Path) -> io.BufferedReader:
    file = path.open("rb")
    if file.peek(2)[:2] != b"\x1f\x8b":
        return file
    return io.BufferedReader(gzip.GzipFile(fileobj=file))  # type: ignore[arg-type]


def _unreadable(path: Path, error: OSError) -> DialogueError:
    return DialogueError(f"{path} cannot be read: {error.strerror or 'damaged'}; name a file that exists and is yours to read")
