"""Who asks: a key, the console's session, or, without keys, whoever sits at this machine."""

from __future__ import annotations

import hashlib
import hmac
import re
import secrets
from asyncio import to_thread
from collections.abc import Callable
from time import monotonic
from typing import Annotated, TypeVar

from fastapi import Depends, Request

from llmft.serve.desk import Desk
from llmft.serve.security.rates import Rates
from llmft.serve.security.refusal import Refusal
from llmft.serve.store.keys import Identity, check_key, has_keys
from llmft.serve.store.sessions import check_session

Found = TypeVar("Found")
COOKIE = "llmft_session"
SAFE = {"GET", "HEAD", "OPTIONS"}
LOCAL = Identity("", "local", "supervisor")
LOOPBACK_NAMES = {"localhost", "127.0.0.1", "::1"}
PROXIED = ("forwarded", "x-forwarded-for", "x-forwarded-host", "x-real-ip")  # who asks sits elsewhere
KEYS_KNOWN_S = 2.0  # how long "there are no keys" is believed
WRONG_PER_MINUTE = 20  # wrong keys of one address


class Access:
    """What access to one service needs to remember."""

    def __init__(self, desk: Desk) -> None:
        self._desk = desk
        self._rates = Rates(desk.settings.requests_per_minute)
        self._wrong = Rates(WRONG_PER_MINUTE)
        self._keyless_until = 0.0
        self.seal = secrets.token_hex(32)  # of whoever needs no key, as long as this process lives

    async def keyless(self) -> bool:
        """Whether there are no keys, and the service answers this machine alone."""
        if monotonic() < self._keyless_until:
            return True
        if await self._looked_up(has_keys):
            return False
        self._keyless_until = monotonic() + KEYS_KNOWN_S
        return self._desk.settings.is_loopback

    async def identity(self, request: Request) -> Identity:
        """Raises :class:`Refusal` for somebody who may not ask, or not now."""
        scheme, _, key = request.headers.get("authorization", "").partition(" ")
        if scheme.lower() == "bearer" and key:
            who = await self.by_key(request, key.strip())
        elif (token := request.cookies.get(COOKIE)) and (found := await self._looked_up(check_session, token)):
            require_own_page(request)
            if request.method not in SAFE and not hmac.compare_digest(
                csrf_of(token).encode(), request.headers.get("x-csrf-token", "").encode()
            ):
                raise Refusal(403, "csrf", "the header X-CSRF-Token must hold the session's token; load the page again")
            who = found
        elif await self.keyless():
            require_own_page(request)
            _require_loopback_name(request)
            who = LOCAL
        else:
            raise Refusal(401, "no_key", "this service asks for a key; send it as: Authorization: Bearer KEY")
        self._count(who.key_id or _address(request))
        return who

    async def by_key(self, request: Request, key: str) -> Identity:
        """Whose key it is; raises :class:`Refusal` for a wrong one, and for too many wrong ones."""
        who = await self._looked_up(check_key, key)
        if who is not None:
            return who
        if await self.keyless():  # clients of OpenAI's API always send some key
            require_own_page(request)
            _require_loopback_name(request)
            return LOCAL
        if wait := self._wrong.wait_s(_address(request)):
            raise Refusal(429, "rate_limit", "too many wrong keys; wait, and look at: llmft keys list", retry_s=wait)
        raise Refusal(401, "wrong_key", "the key is unknown or was revoked; make one with: llmft keys add")

    async def _looked_up(self, question: Callable[..., Found], *arguments: str) -> Found:
        """A row or two: SQLite, which never waits for writers, finds them sooner than a thread would wake."""
        store = self._desk.store
        return question(store, *arguments) if store.is_sqlite else await to_thread(question, store, *arguments)

    def _count(self, who: str) -> None:
        if wait := self._rates.wait_s(who):
            most = self._desk.settings.requests_per_minute
            raise Refusal(429, "rate_limit", f"at most {most} requests a minute; ask again in {wait} s", retry_s=wait)


def csrf_of(token: str) -> str:
    """The token that only the session's own page can know."""
    return hashlib.sha256(f"csrf {token}".encode()).hexdigest()


def _address(request: Request) -> str:
    return request.client.host if request.client else "unknown"


def require_own_page(request: Request) -> None:
    """A browser must not act for a page of somebody else's."""
    origin = request.headers.get("origin")
    is_foreign = origin is not None and origin.partition("://")[2] != request.headers.get("host")
    if is_foreign or request.headers.get("sec-fetch-site") in ("cross-site", "same-site"):
        raise Refusal(403, "origin", "pages of other origins may not ask; open the console of this service")


def _require_loopback_name(request: Request) -> None:
    """A foreign name that was made to point at this machine is refused."""
    name = re.sub(r":\d*\Z", "", request.headers.get("host", "")).strip("[]")
    if name.lower() not in LOOPBACK_NAMES or any(header in request.headers for header in PROXIED):
        raise Refusal(403, "origin", "without keys the service answers as localhost or 127.0.0.1 alone; see: llmft keys add")


async def desk_of(request: Request) -> Desk:
    """The service's desk."""
    desk: Desk = request.app.state.desk
    return desk


async def identified(request: Request) -> Identity:
    """Who asks."""
    access: Access = request.app.state.access
    return await access.identity(request)


async def supervising(who: Annotated[Identity, Depends(identified)]) -> Identity:
    """Who asks, if it is a supervisor."""
    if who.role != "supervisor":
        raise Refusal(403, "role", "this is for supervisors; ask with a supervisor's key")
    return who


TheDesk = Annotated[Desk, Depends(desk_of)]
Who = Annotated[Identity, Depends(identified)]
Supervisor = Annotated[Identity, Depends(supervising)]
