"""Every kind of failure as a refusal; what was said is in none of them."""

from __future__ import annotations

from collections.abc import Mapping

from fastapi import FastAPI, Request
from fastapi.exceptions import RequestValidationError
from starlette.exceptions import HTTPException
from starlette.responses import Response

from llmft.dialogue import field_path
from llmft.errors import (
    BackendError,
    BusyError,
    ConflictError,
    DiskError,
    LlmftError,
    NotStoredError,
    PromptError,
    StoreDownError,
)
from llmft.serve.security.refusal import Refusal

RETRY_S = 5
_CODES: Mapping[int, str] = {404: "not_found", 405: "method", 413: "body_too_large", 415: "media_type"}


def refusal_of(error: LlmftError) -> Refusal:
    """A sentence of ours with its status."""
    message = str(error)
    match error:
        case NotStoredError():
            return Refusal(404, "not_found", message)
        case ConflictError():
            return Refusal(409, "conflict", message)
        case StoreDownError() | DiskError():
            return Refusal(503, "database", message, retry_s=RETRY_S)
        case BusyError():
            return Refusal(429, "queue_full", message, retry_s=RETRY_S)
        case BackendError():
            return Refusal(503, "model", message, retry_s=RETRY_S)
        case PromptError():
            return Refusal(400, "context_length_exceeded", message)
    return Refusal(400, "invalid", message)


def refusal_of_validation(error: RequestValidationError) -> Refusal:
    """The first thing that a body or a query lacks, by its place."""
    first = error.errors()[0]
    place = field_path(first["loc"][1:])
    if first["type"] == "json_invalid":
        return Refusal(400, "invalid", "the body is not JSON; send application/json in UTF-8")
    reason = "no field of this request" if first["type"] == "extra_forbidden" else first["msg"].removeprefix("Value error, ")
    code = "too_long" if first["type"] in ("string_too_long", "too_long") else "invalid"
    return Refusal(422, code, f"{place or 'body'}: {reason}", param=place or None)


def refusal_of_http(error: HTTPException) -> Refusal:
    """The framework's own: no such path, no such method."""
    code = _CODES.get(error.status_code, "invalid")
    message = {404: "there is nothing at this path; see /openapi.json", 405: "this path has other methods; see /openapi.json"}
    return Refusal(error.status_code, code, message.get(error.status_code, "the request cannot be read; see /openapi.json"))


def add_faults(app: FastAPI) -> None:
    """Answer every failure in one form."""

    async def ours(_: Request, error: Exception) -> Response:
        assert isinstance(error, LlmftError)
        return refusal_of(error).response()

    async def refused(_: Request, error: Exception) -> Response:
        assert isinstance(error, Refusal)
        return error.response()

    async def invalid(_: Request, error: Exception) -> Response:
        assert isinstance(error, RequestValidationError)
        return refusal_of_validation(error).response()

    async def http(_: Request, error: Exception) -> Response:
        assert isinstance(error, HTTPException)
        return refusal_of_http(error).response()

    async def unforeseen(_: Request, error: Exception) -> Response:
        return Refusal(500, "internal", "the service has failed; its log says where").response()

    app.add_exception_handler(Exception, unforeseen)  # raised again after it, for the guard's log
    app.add_exception_handler(LlmftError, ours)
    app.add_exception_handler(Refusal, refused)
    app.add_exception_handler(RequestValidationError, invalid)
    app.add_exception_handler(HTTPException, http)
