"""The vault, a folder outside every set: its secret salt, without which nobody can tell whose keyed hash is whose."""

from __future__ import annotations

import hmac
import os
import re
import secrets
import unicodedata
from pathlib import Path

from llmft.errors import DialogueError
from llmft.run import disk_error

SALT = "subject.salt"


def default_vault() -> Path:
    """The folder for what must lie outside the sets: $LLMFT_VAULT, or the user's data folder."""
    home = os.environ.get("XDG_DATA_HOME") or Path.home() / ".local" / "share"
    return Path(os.environ.get("LLMFT_VAULT") or Path(home) / "llmft")


def open_vault(vault: Path, *, create: bool = True) -> bytes:
    """The vault's secret salt; made on first use, readable by its owner alone."""
    path = vault / SALT
    try:
        if create and not path.exists():
            vault.mkdir(parents=True, exist_ok=True)
            _write_secret(path, secrets.token_hex(32))
        text = path.read_text("ascii").strip()
    except FileNotFoundError as error:
        raise DialogueError(f"{path} is not there, so no subject can be looked up; give the folder that prepare used") from error
    except (OSError, UnicodeDecodeError) as error:
        raise DialogueError(f"{path} cannot be read; give another folder, or restore the file from its backup") from error
    if not re.fullmatch(r"[0-9a-f]{64}", text):
        raise DialogueError(f"{path} is damaged: it must hold 64 hexadecimal digits; restore it from its backup")
    return bytes.fromhex(text)


def _write_secret(path: Path, text: str) -> None:
    """Write once: of two processes that do so at the same time, one wins and both read the same."""
    partial = path.with_name(f"{path.name}.{os.getpid()}.partial")
    try:
        with os.fdopen(os.open(partial, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600), "w") as file:
            file.write(text + "\n")
            file.flush()
            os.fsync(file.fileno())
        os.link(partial, path)
    except FileExistsError:
        pass
    except OSError as error:
        raise disk_error(path, error) from error
    finally:
        partial.unlink(missing_ok=True)


def subject_key(subject: str, salt: bytes) -> str:
    """The keyed hash of a patient's key in the source; case, width and outer spaces play no part."""
    return keyed(b"subject:", unicodedata.normalize("NFKC", subject).strip().casefold(), salt)


def keyed(kind: bytes, text: str, salt: bytes) -> str:
    """HMAC-SHA256 of a text in hexadecimal digits; ``kind`` keeps a name apart from an id that is written alike."""
    return hmac.digest(salt, kind + text.encode("utf-8", "surrogatepass"), "sha256").hex()
