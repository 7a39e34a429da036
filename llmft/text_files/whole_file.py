"""Files that only make sense whole: subtitles, a recogniser's JSON, a FHIR bundle, a protocol."""

from __future__ import annotations

import gzip
import zlib
from pathlib import Path

from llmft.dialogue import Fault
from llmft.text_files.text_source import LOST, guess_encoding, open_text

MAX_FILE_CHARS = 64_000_000  # ten hours of words with their times


def read_whole(path: Path, max_chars: int = MAX_FILE_CHARS, encoding: str | None = None) -> str | Fault:
    """The text of ``path`` with ``\\n`` as line ends, or why it cannot be used; the encoding is guessed when not given."""
    encoding = encoding or guess_encoding(path)
    with open_text(path, encoding) as file:
        try:
            text = file.read(max_chars + 1)
        except (EOFError, zlib.error, gzip.BadGzipFile, UnicodeError):
            return Fault(str(path), 1, "", "the packed file is damaged; pack it again")
    if len(text) > max_chars:
        return Fault(str(path), 1, "", f"longer than {max_chars / 1e6:g} MB; split it, one call a file")
    for mark, reason in ((LOST, f"not valid {encoding} text"), ("\0", "a NUL character stands in the line")):
        if (place := text.find(mark)) >= 0:
            return Fault(str(path), text.count("\n", 0, place) + 1, "", reason)
    return text
