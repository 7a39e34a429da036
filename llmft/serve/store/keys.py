"""Keys of operators and supervisors: shown once, stored as hashes.

A key reads ``llmft-<id>-<secret>``. The id finds the row; the secret has 256 random bits, so that one round of SHA-256 keeps it
(slow hashes are for what people think up), and hashes are compared in constant time.
"""

from __future__ import annotations

import hashlib
import hmac
import re
import secrets
from typing import Literal, NamedTuple

from sqlalchemy import delete, func, insert, select, update

from llmft.errors import NotStoredError, StoreError
from llmft.serve.store.database import Store, now
from llmft.serve.store.journal import append, lock
from llmft.serve.store.tables import keys, sessions

Role = Literal["operator", "supervisor"]
_FORM = re.compile(r"llmft-([0-9a-f]{12})-([A-Za-z0-9_-]{43})")
_NAME = re.compile(r"[\w][\w .@-]{0,79}")
_OF_KEY = "SELECT id, name, role, sha256, revoked FROM keys WHERE id = :id"
_NOBODY = "0" * 64  # compared with when the id is unknown, so that both cases take the same steps


class Identity(NamedTuple):
    """Who asks."""

    key_id: str
    name: str
    role: str


class KeyRow(NamedTuple):
    """A key as it may be listed."""

    id: str
    role: str
    name: str
    created: str
    revoked: str | None


def add_key(store: Store, role: Role, name: str) -> str:
    """Make a key and return it: the only time that it can be seen."""
    if not _NAME.fullmatch(name):
        raise StoreError(f"{name[:80]!r} is no name for a key; give up to 80 letters, digits, spaces or - . @")
    key_id, secret = secrets.token_hex(6), secrets.token_urlsafe(32)
    with store.writing() as connection:
        row = {"id": key_id, "role": role, "name": name, "sha256": hash_of(secret), "created": now()}
        append(connection, "key_added", {"key": key_id, "role": role, "name": name})
        connection.execute(insert(keys).values(**row))
    return f"llmft-{key_id}-{secret}"


def list_keys(store: Store) -> list[KeyRow]:
    """All keys, also those that were revoked, the oldest first."""
    asked = select(keys.c.id, keys.c.role, keys.c.name, keys.c.created, keys.c.revoked).order_by(keys.c.created)
    with store.reading() as connection:
        return [KeyRow(*row) for row in connection.execute(asked)]


def revoke_key(store: Store, key_id: str) -> None:
    """Refuse a key from now on and end its sessions; revoking it again changes nothing."""
    with store.writing() as connection:
        lock(connection)
        row = connection.execute(select(keys.c.revoked).where(keys.c.id == key_id)).first()
        if row is None:
            raise NotStoredError(f"no key has the id {key_id[:40]!r}; see them with: llmft keys list")
        if row.revoked is None:
            connection.execute(update(keys).where(keys.c.id == key_id).values(revoked=now()))
            connection.execute(delete(sessions).where(sessions.c.key_id == key_id))
            append(connection, "key_revoked", {"key": key_id})


def check_key(store: Store, presented: str) -> Identity | None:
    """Whose key it is; None for one that is unknown, revoked or no key at all."""
    form = _FORM.fullmatch(presented)
    key_id, secret = form.groups() if form else ("", "")
    row = store.first(_OF_KEY, id=key_id)
    found_id, name, role, sha256, revoked = row or ("", "", "", _NOBODY, None)
    is_right = hmac.compare_digest(hash_of(secret), sha256)
    return Identity(found_id, name, role) if row and is_right and revoked is None else None


def has_keys(store: Store) -> bool:
    """Whether anybody has a key that is in force."""
    with store.reading() as connection:
        return connection.execute(select(func.count()).where(keys.c.revoked.is_(None))).scalar_one() > 0


def hash_of(secret: str) -> str:
    """As secrets are stored."""
    return hashlib.sha256(secret.encode("utf-8", "surrogatepass")).hexdigest()
