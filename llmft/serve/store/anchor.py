"""The journal's anchor: the last record that this machine wrote, kept outside the database.

Whoever cuts the journal's tail cuts what the database says of its end, too; this file still names the record that was there.
"""

from __future__ import annotations

import fcntl
import os
import re
from pathlib import Path
from typing import NamedTuple

from llmft.errors import StoreError
from llmft.run import disk_error

ANCHOR = "journal.anchor"
HEAD = "llmft_head"  # where a transaction notes the record that it has appended
START = "0" * 64  # what the first record names as the one before it


class Head(NamedTuple):
    """A record of the journal: its number and its hash."""

    sequence: int
    hash: str

    def __str__(self) -> str:
        return f"{self.sequence}:{self.hash}"


def keep_anchor(folder: Path, head: Head) -> None:
    """Note ``head``, unless a later record stands there; called after the commit, so the anchor never runs ahead of it."""
    path = folder / ANCHOR
    try:
        file = os.open(path, os.O_RDWR | os.O_CREAT, 0o600)
        try:
            fcntl.flock(file, fcntl.LOCK_EX)  # other processes of this machine
            known = os.pread(file, 20, 0)
            if not known.isdigit() or int(known) < head.sequence:
                os.pwrite(file, f"{head.sequence:020d}:{head.hash}\n".encode(), 0)  # one length always, so never half a line
        finally:
            os.close(file)
    except OSError as error:
        raise disk_error(path, error) from error


def read_anchor(folder: Path) -> Head | None:
    """The last record that this machine wrote; None before the first."""
    path = folder / ANCHOR
    try:
        return parse_head(path.read_text("ascii").strip()) if path.is_file() else None
    except (OSError, UnicodeDecodeError) as error:
        raise StoreError(f"{path} cannot be read; restore it from its backup") from error


def parse_head(text: str) -> Head:
    """``NUMBER:HASH`` as it is printed; raises :class:`StoreError`."""
    number, _, digits = text.partition(":")
    if not number.isdecimal() or not re.fullmatch("[0-9a-f]{64}", digits):
        raise StoreError(f"{text[:90]!r} is no anchor; write NUMBER:HASH as llmft journal verify prints it")
    return Head(int(number), digits)
