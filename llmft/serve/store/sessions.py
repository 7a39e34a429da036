"""Sessions of the console: what its secure cookie holds is stored as a hash, for some hours."""

from __future__ import annotations

import secrets

from sqlalchemy import delete, insert, select

from llmft.serve.store.database import Store, ago, now
from llmft.serve.store.keys import Identity, hash_of
from llmft.serve.store.tables import keys, sessions


def open_session(store: Store, identity: Identity, hours: float = 12) -> str:
    """The cookie's text for somebody whose key was checked; sessions that have run out are removed on the way."""
    token, opened = secrets.token_urlsafe(32), now()
    with store.writing() as connection:
        connection.execute(delete(sessions).where(sessions.c.expires <= opened))
        row = {"sha256": hash_of(token), "key_id": identity.key_id, "created": opened, "expires": ago(-hours / 24)}
        connection.execute(insert(sessions).values(**row))
    return token


def check_session(store: Store, token: str) -> Identity | None:
    """Whose session it is; None when it is unknown, has run out, or its key was revoked."""
    asked = (
        select(keys.c.id, keys.c.name, keys.c.role)
        .join(sessions, sessions.c.key_id == keys.c.id)
        .where(sessions.c.sha256 == hash_of(token), sessions.c.expires > now(), keys.c.revoked.is_(None))
    )
    with store.reading() as connection:
        row = connection.execute(asked).first()
    return Identity(*row) if row else None


def close_session(store: Store, token: str) -> None:
    """End a session; one that has ended already is no fault."""
    with store.writing() as connection:
        connection.execute(delete(sessions).where(sessions.c.sha256 == hash_of(token)))
