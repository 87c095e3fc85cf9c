"""The service's pages. They load nothing from elsewhere, and everything that senders wrote is escaped."""

import time
from typing import Any

from jinja2 import Environment, PackageLoader, StrictUndefined

from tinyworld.service.abilities import Abilities
from tinyworld.service.jobs import Job
from tinyworld.service.limits import Limits
from tinyworld.service.requests import USUAL_SIGMA, USUAL_STEPS

TITLES = {"reconstruct": "Reconstruct", "lift": "Lift", "generate": "Generate"}


def main_page(jobs: list[tuple[Job, int]], abilities: Abilities, limits: Limits, nonce: str) -> str:
    """Forms for what the service can do, and the jobs of one browser with how many are before each."""
    rows = [_row(job, before) for job, before in jobs]
    usual = {"steps": min(USUAL_STEPS, limits.max_steps), "sigma": USUAL_SIGMA}
    return _template("page").render(
        view="main", nonce=nonce, rows=rows, abilities=abilities, limits=limits, usual=usual
    )


def login_page(nonce: str, wrong: bool = False) -> str:
    return _template("page").render(view="login", nonce=nonce, wrong=wrong)


def error_page(text: str, nonce: str) -> str:
    return _template("page").render(view="error", nonce=nonce, text=text)


def _row(job: Job, before: int) -> dict[str, Any]:
    videos = [name for name in job.files if name.endswith(".mp4")]
    return {
        "id": job.id,
        "title": TITLES[job.kind],
        "about": job.request.get("prompt") or job.name or job.request.get("camera") or "",
        "at": time.strftime("%d %b %H:%M", time.localtime(job.created)),
        "state": job.state,
        "words": state_words(job, before),
        "pending": job.state in ("queued", "running"),
        "error": job.error,
        "facts": [(name.replace("_", " "), _fact(value)) for name, value in job.result.items() if value is not None],
        "videos": videos,
        "files": job.files,
    }


def state_words(job: Job, before: int) -> str:
    """Where a job stands, in a few words."""
    if job.state == "queued":
        return "waits, next" if before == 0 else f"waits, {before} before it"
    if job.state == "running":
        return "runs" if job.progress is None else f"runs, {job.progress[0]} of {job.progress[1]}"
    return job.state


def _fact(value: Any) -> str:
    return f"{value:.4g}" if isinstance(value, float) else str(value)


def _template(name: str) -> Any:
    environment = Environment(
        loader=PackageLoader("tinyworld", "service"),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    return environment.get_template(f"{name}.html.j2")
