"""The service over HTTP.

| request | answer |
|---|---|
| GET / | the page: forms, and the jobs of this browser |
| POST /jobs/reconstruct, /jobs/lift, /jobs/generate | a form of multipart/form-data; 202 and the job |
| GET /jobs/ID | the job: state, jobs before it, progress, error, numbers, files |
| GET /jobs/ID/files/NAME | a result |
| DELETE /jobs/ID (POST /jobs/ID/delete for pages) | cancel, or remove with its results |
| GET /health | whether it runs, and how much waits; needs no token |
| GET, POST /login | where a browser shows the token |

Errors are {"error": paragraph}, or a page with it. What a request says never becomes part of a path: jobs are looked up by their
identifiers, results by names from a list, uploads have a fixed name, and nothing is fetched for a request from elsewhere.
"""

import secrets
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from fastapi import FastAPI, Request, Response
from fastapi.responses import FileResponse, HTMLResponse, JSONResponse, RedirectResponse
from starlette.concurrency import run_in_threadpool
from starlette.exceptions import HTTPException
from starlette.requests import ClientDisconnect
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from tinyworld.core.console import LOGGER
from tinyworld.core.errors import UserError
from tinyworld.service import answers
from tinyworld.service.abilities import Abilities
from tinyworld.service.guard import BROWSER_COOKIE, TOKEN_COOKIE, Guard, cookie_of, owner_of
from tinyworld.service.jobs import RESULTS, Job, Kind
from tinyworld.service.page import login_page, main_page
from tinyworld.service.queue import Queue
from tinyworld.service.refusals import NotNow, NotThere, Refusal
from tinyworld.service.requests import FIELDS, FILE_OF, check_content, check_kind, request_of
from tinyworld.service.uploads import Form, read_form, too_large

COOKIE_SECONDS = 365 * 24 * 3600
LOGIN_BYTES = 4096


def build_app(queue: Queue, abilities: Abilities, token: str | None) -> FastAPI:
    """The application; its lifespan starts and ends the queue."""

    @asynccontextmanager
    async def lifespan(_: FastAPI) -> AsyncIterator[None]:
        queue.start()
        yield
        await run_in_threadpool(queue.close)

    app = FastAPI(title="tinyworld", docs_url=None, redoc_url=None, openapi_url=None, lifespan=lifespan)
    guard = Guard(token)
    app.add_middleware(_Gate, guard=guard)
    _add_errors(app)
    _add_jobs(app, _Desk(queue, abilities))
    _add_pages(app, queue, abilities, guard)
    return app


class _Gate:
    """Lets in what `Guard` lets in, and sets the headers that every answer has."""

    def __init__(self, app: ASGIApp, guard: Guard) -> None:
        self.app, self.guard = app, guard

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self.app(scope, receive, send)
            return
        request = Request(scope)

        async def sealed(message: Message) -> None:
            if message["type"] == "http.response.start":
                names = {name.lower() for name, _ in message["headers"]}
                own = {**answers.ALWAYS, "Content-Security-Policy": answers.CLOSED}
                added = [(name.lower().encode(), value.encode()) for name, value in own.items()]
                message["headers"] = [*message["headers"], *(pair for pair in added if pair[0] not in names)]
            await send(message)

        try:
            self.guard.check(request.method, request.url.path, request.headers)
        except Refusal as error:
            await answers.refused(error, request)(scope, receive, sealed)
            return
        await self.app(scope, receive, sealed)


class _Desk:
    """Takes a form in: a place in the queue first, then the upload, then the checks; what fails leaves nothing behind."""

    def __init__(self, queue: Queue, abilities: Abilities) -> None:
        self.queue, self.abilities = queue, abilities

    async def take(self, kind: Kind, request: Request) -> Job:
        check_kind(kind, self.abilities)
        most = self.queue.limits.upload_bytes
        length = request.headers.get("content-length", "")
        if length.isdecimal() and len(length) < 20 and int(length) > most:
            raise too_large(most)
        identifier = await run_in_threadpool(self.queue.reserve)
        try:
            form = await read_form(
                request.headers.get("content-type", ""),
                request.stream(),
                self.queue.shelf.upload(identifier),
                FILE_OF[kind],
                most,
                lambda count: self.queue.grew(identifier, count),
            )
            return await run_in_threadpool(self._submit, identifier, kind, form, owner_of(request.headers))
        except BaseException as error:
            self.queue.drop(identifier)
            if isinstance(error, ClientDisconnect):
                raise Refusal("The sender went away before the form was whole.") from error
            raise

    def _submit(self, identifier: str, kind: Kind, form: Form, owner: str) -> Job:
        wanted = request_of(kind, form.fields, self.abilities, self.queue.limits)
        if form.file is not None:
            check_content(self.queue.shelf.upload(identifier), form.file)
        elif FILE_OF[kind] == "video":
            raise Refusal("A video is needed, in the field video (with curl: -F video=@FILE).")
        return self.queue.submit(identifier, kind, wanted, form.name, owner)


def _add_jobs(app: FastAPI, desk: _Desk) -> None:
    queue = desk.queue

    @app.post("/jobs/{kind}")
    async def submit(kind: str, request: Request) -> Response:
        if kind not in FIELDS:
            raise NotThere(f"There is nothing of that name to be done. There is: {', '.join(FIELDS)}.")
        job = await desk.take(kind, request)
        if answers.wants_page(request.headers):
            return RedirectResponse("/", 303)
        told = answers.job_json(*queue.job(job.id))
        return JSONResponse(told, 202, {"Location": f"/jobs/{job.id}"})

    @app.get("/jobs/{identifier}")
    def look(identifier: str) -> Response:
        return JSONResponse(answers.job_json(*queue.job(identifier)))

    @app.get("/jobs/{identifier}/files/{name}")
    def fetch(identifier: str, name: str) -> Response:
        job, _ = queue.job(identifier)
        path = queue.shelf.result(job, name)
        if path is None or not path.is_file():
            if job.state in ("queued", "running"):
                raise NotNow(f"This job is {job.state}: its results come when it is done.")
            raise NotThere(f"This job has no such file. It has: {', '.join(job.files) or 'none'}.")
        inline = "inline" if RESULTS[path.name].startswith("video/") else "attachment"
        return FileResponse(path, media_type=RESULTS[path.name], filename=path.name, content_disposition_type=inline)

    @app.delete("/jobs/{identifier}")
    def remove(identifier: str) -> Response:
        queue.remove(identifier)
        return Response(status_code=204)

    @app.post("/jobs/{identifier}/delete")
    def remove_by_form(identifier: str) -> Response:
        queue.remove(identifier)
        return RedirectResponse("/", 303)


def _add_pages(app: FastAPI, queue: Queue, abilities: Abilities, guard: Guard) -> None:
    @app.get("/")
    def show(request: Request) -> Response:
        own = answers.nonce()
        jobs = queue.of(owner_of(request.headers))
        text = main_page(jobs, abilities, queue.limits, own)
        answer = HTMLResponse(text, headers={"Content-Security-Policy": answers.page_policy(own)})
        if not cookie_of(request.headers, BROWSER_COOKIE):
            _set_cookie(answer, request, BROWSER_COOKIE, secrets.token_urlsafe(24))
        return answer

    @app.get("/health")
    def health() -> Response:
        state, status = ("ready", 200) if queue.works else ("failed", 503)
        return JSONResponse({"state": state, **queue.counts()}, status)

    @app.get("/login")
    def login() -> Response:
        own = answers.nonce()
        return HTMLResponse(login_page(own), headers={"Content-Security-Policy": answers.page_policy(own)})

    @app.post("/login")
    async def enter(request: Request) -> Response:
        given = request.headers.get("content-type", "")
        form = await read_form(given, request.stream(), queue.shelf.folder, None, LOGIN_BYTES, lambda count: None)
        if not guard.right(form.fields.get("token", "").strip()):
            own = answers.nonce()
            return HTMLResponse(login_page(own, True), 401, {"Content-Security-Policy": answers.page_policy(own)})
        answer = RedirectResponse("/", 303)
        _set_cookie(answer, request, TOKEN_COOKIE, guard.cookie())
        return answer


def _set_cookie(answer: Response, request: Request, name: str, value: str) -> None:
    secure = request.url.scheme == "https"
    answer.set_cookie(name, value, COOKIE_SECONDS, httponly=True, samesite="strict", secure=secure)


def _add_errors(app: FastAPI) -> None:
    @app.exception_handler(UserError)
    async def refuse(request: Request, error: UserError) -> Response:
        return answers.refused(error, request)

    @app.exception_handler(OSError)
    async def storage(request: Request, error: OSError) -> Response:
        LOGGER.error("%s %s: %s", request.method, request.url.path, error)
        return answers.storage_failed(error, request)

    @app.exception_handler(HTTPException)
    async def unknown(request: Request, error: HTTPException) -> Response:
        text = {404: "There is nothing at this address.", 405: "This address does not take that method."}
        words = text.get(error.status_code, str(error.detail))
        return answers.told(words, error.status_code, answers.wants_page(request.headers), dict(error.headers or {}))

    @app.exception_handler(Exception)
    async def fail(request: Request, error: Exception) -> Response:
        words = "The service failed for a reason that lies in the program, not in the request. Its log has the details."
        return answers.told(words, 500, answers.wants_page(request.headers), {})
