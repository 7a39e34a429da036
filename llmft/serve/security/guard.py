"""Around every request: bounded bodies, headers of a browser's protection, the clock, and no traceback with words in it."""

from __future__ import annotations

import asyncio
import logging
import traceback
from time import perf_counter

from starlette.types import ASGIApp, Message, Receive, Scope, Send

from llmft.serve.monitor.meters import Meters
from llmft.serve.security.refusal import Refusal

BODY_S = 30.0  # for a whole body to arrive
METHODS = {"GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS"}
GENERATING = {"/v1/chat/completions", "/v1/triage", "/v1/calls/{call_id}/triage", "/v1/calls/{call_id}/events"}
CONTENT_POLICY = (
    "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self' data:; font-src 'self'; connect-src 'self'; "
    "manifest-src 'self'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'; require-trusted-types-for 'script'"
)
HEADERS = {
    "content-security-policy": CONTENT_POLICY,
    "x-content-type-options": "nosniff",
    "x-frame-options": "DENY",
    "referrer-policy": "no-referrer",
    "permissions-policy": "camera=(), microphone=(), geolocation=(), payment=(), usb=()",
    "cross-origin-opener-policy": "same-origin",
    "cross-origin-resource-policy": "same-origin",
    "cache-control": "no-store",
}
_log = logging.getLogger("llmft.serve")


class Guard:
    """The outermost layer of the application."""

    def __init__(self, app: ASGIApp, meters: Meters, max_body_bytes: int, has_tls: bool) -> None:
        self._app, self._meters, self._max_body_bytes = app, meters, max_body_bytes
        headers = HEADERS | ({"strict-transport-security": "max-age=31536000"} if has_tls else {})
        self._headers = [(name.encode(), value.encode()) for name, value in headers.items()]

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serve one request."""
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        begun = perf_counter()
        status = 0

        async def guarded(message: Message) -> None:
            nonlocal status
            if message["type"] == "http.response.start":
                status = message["status"]
                self._count(scope, status, perf_counter() - begun)
                own = {name for name, _ in message["headers"]}
                message["headers"] = [*message["headers"], *(pair for pair in self._headers if pair[0] not in own)]
            await send(message)

        try:
            await self._app(scope, await self._bounded(scope, receive), guarded)
        except Refusal as refusal:
            await refusal.response()(scope, receive, guarded)
        except Exception as error:  # whatever it is: its message may quote the call, so neither log nor answer has it
            _log.error("%s %s failed: %s", scope["method"], _route(scope), _where(error))
            if status == 0:
                failure = Refusal(500, "internal", "the service has failed; its log says where")
                await failure.response()(scope, receive, guarded)

    def _count(self, scope: Scope, status: int, seconds: float) -> None:
        route = _route(scope)
        method = scope["method"] if scope["method"] in METHODS else "other"
        self._meters.requests.labels(method, route, str(status)).inc()
        if route not in GENERATING:
            self._meters.request_s.labels(route).observe(seconds)

    async def _bounded(self, scope: Scope, receive: Receive) -> Receive:
        """The body read whole before anything else looks at it; raises :class:`Refusal` for one too large or too slow."""
        announced = next((value for name, value in scope["headers"] if name == b"content-length"), b"")
        if announced.isdigit() and int(announced) > self._max_body_bytes:
            raise self._too_large()
        if not announced and scope["method"] in ("GET", "HEAD", "OPTIONS"):
            return receive
        try:
            async with asyncio.timeout(BODY_S):
                body = await self._body(receive)
        except TimeoutError:
            raise Refusal(408, "too_slow", f"the body took more than {BODY_S:.0f} s; send it faster") from None
        given = False

        async def again() -> Message:
            nonlocal given
            if given:
                return await receive()
            given = True
            return {"type": "http.request", "body": body, "more_body": False}

        return again

    async def _body(self, receive: Receive) -> bytes:
        pieces: list[bytes] = []
        size = 0
        while True:
            message = await receive()
            if message["type"] == "http.disconnect":
                raise Refusal(400, "disconnected", "the body broke off")
            pieces.append(message.get("body", b""))
            size += len(pieces[-1])
            if size > self._max_body_bytes:
                raise self._too_large()
            if not message.get("more_body", False):
                return b"".join(pieces)

    def _too_large(self) -> Refusal:
        return Refusal(413, "body_too_large", f"a body has at most {self._max_body_bytes} bytes; send less at once")


def _route(scope: Scope) -> str:
    """The path's pattern, so that neither logs nor meters hold what was asked."""
    return str(getattr(scope.get("route"), "path", None) or "other")


def _where(error: BaseException) -> str:
    """Kind and place of a fault, without its message."""
    frames = traceback.extract_tb(error.__traceback__)
    places = " < ".join(f"{frame.filename.rpartition('llmft/')[2]}:{frame.lineno}" for frame in reversed(frames[-4:]))
    return f"{type(error).__name__} at {places}"
