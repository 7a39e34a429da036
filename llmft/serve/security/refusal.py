"""A request that is not served, in the form that OpenAI's clients read."""

from __future__ import annotations

from starlette.responses import JSONResponse

KINDS = {401: "authentication_error", 403: "permission_error", 404: "not_found_error", 429: "rate_limit_error"}


class Refusal(Exception):
    """Raised anywhere in a request; the message names the place and the rule, never the words."""

    def __init__(self, status: int, code: str, message: str, param: str | None = None, retry_s: int | None = None) -> None:
        super().__init__(message)
        self.status, self.code, self.message, self.param, self.retry_s = status, code, message, param, retry_s

    def body(self) -> dict[str, dict[str, str | None]]:
        """The JSON of it."""
        kind = KINDS.get(self.status) or ("server_error" if self.status >= 500 else "invalid_request_error")
        return {"error": {"message": self.message, "type": kind, "code": self.code, "param": self.param}}

    def response(self) -> JSONResponse:
        """The answer of it."""
        headers = {} if self.retry_s is None else {"Retry-After": str(self.retry_s)}
        if self.status == 401:
            headers["WWW-Authenticate"] = "Bearer"
        return JSONResponse(self.body(), self.status, headers)
