"""The console: three pages for a browser, as plain files; nothing is built, nothing comes from another host.

The pages know the service through docs/serve.md alone. Their policy allows no inline script, no inline style, and no
way to make markup of a text (trusted types), so that what a patient says stays a text.
"""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path

from fastapi import FastAPI
from fastapi.responses import FileResponse, Response
from fastapi.staticfiles import StaticFiles
from starlette.types import Scope

HERE = Path(__file__).parent
PAGES = {"/": "operator.html", "/supervisor": "supervisor.html", "/sign-in": "sign_in.html"}
CONTENT_SECURITY_POLICY = "; ".join(
    (
        "default-src 'none'",
        "script-src 'self'",
        "style-src 'self'",
        "img-src 'self'",
        "connect-src 'self'",
        "base-uri 'none'",
        "form-action 'none'",
        "frame-ancestors 'none'",
        "require-trusted-types-for 'script'",
        "trusted-types 'none'",
    )
)
_HEADERS = {"Content-Security-Policy": CONTENT_SECURITY_POLICY, "Cache-Control": "no-cache"}  # asked again, answered 304


def mount_console(app: FastAPI) -> None:
    """Give ``app`` the console's pages, and what they are made of under ``/console``."""
    for path, name in PAGES.items():
        app.get(path, include_in_schema=False, response_model=None)(_page(HERE / "pages" / name))
    for folder in ("script", "style"):
        app.mount(f"/console/{folder}", _Files(directory=HERE / folder), name=f"console-{folder}")


def _page(file: Path) -> Callable[[], FileResponse]:
    def page() -> FileResponse:
        return FileResponse(file, headers=_HEADERS, media_type="text/html; charset=utf-8")

    return page


class _Files(StaticFiles):
    """Files that a browser asks for again after each change of the software."""

    def file_response(
        self, full_path: str | os.PathLike[str], stat_result: os.stat_result, scope: Scope, status_code: int = 200
    ) -> Response:
        response = super().file_response(full_path, stat_result, scope, status_code)
        response.headers.update(_HEADERS)
        return response
