"""What the service answers: jobs as JSON, refusals as one paragraph, each as a page where a browser asks."""

import secrets
import time
from typing import Any

from starlette.datastructures import Headers
from starlette.requests import Request
from starlette.responses import JSONResponse, RedirectResponse, Response

from tinyworld.core.errors import DISK_FULL, ConfigError, DataError, FramePlanError, UserError
from tinyworld.core.files import json_ready
from tinyworld.service.jobs import Job
from tinyworld.service.page import error_page
from tinyworld.service.refusals import Refusal, Unauthorised

ALWAYS = {
    "X-Content-Type-Options": "nosniff",
    "Referrer-Policy": "same-origin",
    "Cache-Control": "no-store",
    "Cross-Origin-Resource-Policy": "same-origin",
}
"""A job's address is all that is needed to fetch it, so it stays out of other sites' sight and of caches."""
CLOSED = "default-src 'none'; frame-ancestors 'none'"
"""Content security policy of what is no page."""


def wants_page(headers: Headers) -> bool:
    return "text/html" in headers.get("accept", "")


def nonce() -> str:
    return secrets.token_urlsafe(16)


def page_policy(own: str) -> str:
    """Content security policy of a page: nothing of other sites, no script but the page's own."""
    return (
        f"default-src 'none'; style-src 'nonce-{own}'; script-src 'nonce-{own}'; img-src data:; media-src 'self'; "
        "connect-src 'self'; form-action 'self'; base-uri 'none'; frame-ancestors 'none'"
    )


def job_json(job: Job, before: int) -> dict[str, Any]:
    """before: how many jobs come first."""
    return json_ready(
        {
            "id": job.id,
            "kind": job.kind,
            "name": job.name,
            "request": job.request,
            "state": job.state,
            "jobs_before": before,
            "progress": None if job.progress is None else dict(zip(("done", "total"), job.progress, strict=True)),
            "error": job.error,
            "result": job.result,
            "files": {name: f"/jobs/{job.id}/files/{name}" for name in job.files},
            "created": job.created,
            "seconds": None if job.started is None else (job.ended or time.time()) - job.started,
        }
    )


def status_of(error: UserError) -> int:
    match error:
        case Refusal():
            return error.status
        case ConfigError() | FramePlanError() | DataError():
            return 422
    return 400


def refused(error: UserError, request: Request) -> Response:
    """The paragraph; a browser without the token is shown where to give it."""
    page = wants_page(request.headers)
    if page and isinstance(error, Unauthorised) and request.method == "GET":
        return RedirectResponse("/login", 303)
    headers = {"WWW-Authenticate": "Bearer"} if isinstance(error, Unauthorised) else {}
    if status_of(error) == 503:
        headers["Retry-After"] = "60"
    return told(str(error), status_of(error), page, headers)


def storage_failed(error: OSError, request: Request) -> Response:
    full = error.errno in DISK_FULL
    text = f"The service's disk {'is full' if full else 'failed'}. Tell those who run it; its log has the reason."
    return told(text, 507 if full else 500, wants_page(request.headers), {})


def told(text: str, status: int, page: bool, headers: dict[str, str]) -> Response:
    if not page:
        return JSONResponse({"error": text}, status, headers)
    own = nonce()
    policy = {"Content-Security-Policy": page_policy(own)}
    return Response(error_page(text, own), status, {**headers, **policy}, "text/html")
