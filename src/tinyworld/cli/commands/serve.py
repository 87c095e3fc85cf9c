"""`tinyworld serve --folder DIR --model M | --base B`: a service that reconstructs, lifts and generates by request."""

import argparse
import importlib.util
import os
from dataclasses import fields
from functools import partial
from typing import TYPE_CHECKING

from tinyworld.cli.paths import given_path
from tinyworld.core.errors import ConfigError, MissingExtraError
from tinyworld.core.signals import handled
from tinyworld.service.limits import Limits

if TYPE_CHECKING:
    from socket import socket

NEEDED = ("fastapi", "uvicorn", "python_multipart")
TOKEN = "TINYWORLD_TOKEN"
OPEN_SECONDS = 10
"""For requests that are under way when the service ends."""
LIMITS = {
    "max_queue": "jobs that may wait",
    "max_upload_mb": "MiB of one request",
    "max_disk_mb": "MiB of all jobs together",
    "max_frames": "frames of one clip",
    "max_pixels": "height × width of a video that is sent or made",
    "max_steps": "denoising steps",
    "job_minutes": "minutes that one job may take",
    "keep_hours": "hours for which results can be fetched",
}


def add_parser(commands: "argparse._SubParsersAction[argparse.ArgumentParser]") -> None:
    parser = commands.add_parser(
        "serve",
        help="a web service for teams: reconstruct and lift videos, generate worlds, with a queue and limits",
        allow_abbrev=False,
    )
    parser.add_argument(
        "--folder", required=True, type=given_path, metavar="DIR", help="for jobs and results; the service's alone"
    )
    parser.add_argument("--model", type=given_path, metavar="M", help="a TAEHV, to reconstruct videos")
    parser.add_argument("--base", type=given_path, metavar="DIR|FILE", help="video transformer, to generate")
    parser.add_argument(
        "--weights", type=given_path, metavar="DIR|FILE", help="geometry branch, to lift and generate worlds"
    )
    parser.add_argument("--codec", type=given_path, metavar="DIR", help="default: the one the weights name")
    parser.add_argument("--encoders", type=given_path, metavar="DIR", help="for prompts, in diffusers' layout")
    parser.add_argument("--device", choices=("auto", "cpu", "cuda"), default="auto")
    parser.add_argument("--dtype", choices=("fp32", "bf16"), help="of worlds; default: bf16 on a GPU, fp32 on the CPU")
    parser.add_argument("--offload", action="store_true", help="keep in main memory what does not compute right now")
    parser.add_argument(
        "--host", default="127.0.0.1", help="others need a token; default: 127.0.0.1, this machine alone"
    )
    parser.add_argument("--port", type=int, default=8000, metavar="N", help="default: 8000")
    parser.add_argument("--token", metavar="TEXT", help=f"what every request must bring; also read from {TOKEN}")
    for key in fields(Limits):
        kind = int if isinstance(key.default, int) else float
        parser.add_argument(
            f"--{key.name}",
            type=kind,
            default=key.default,
            metavar="N",
            help=f"{LIMITS[key.name]}; default: {key.default}",
        )
    parser.set_defaults(run=run)


def run(options: argparse.Namespace) -> int:
    missing = [name for name in NEEDED if importlib.util.find_spec(name) is None]
    if missing:
        raise MissingExtraError(
            f"serve needs packages that are not installed ({', '.join(missing)}): pip install 'tinyworld[serve]'."
        )
    import uvicorn

    from tinyworld.service.app import build_app
    from tinyworld.service.guard import check_exposure
    from tinyworld.service.jobs import Shelf
    from tinyworld.service.queue import Queue
    from tinyworld.service.work import Models, open_models
    from tinyworld.service.worker import Worker

    token = options.token or os.environ.get(TOKEN) or None
    check_exposure(options.host, token)
    _check_models(options)
    limits = Limits(**{key.name: getattr(options, key.name) for key in fields(Limits)})
    models = Models(**{key.name: getattr(options, key.name) for key in fields(Models)})
    shelf = Shelf(options.folder)
    worker = Worker(partial(open_models, models, limits))
    try:
        with _listening(options.host, options.port) as socket:
            print("opening the models …", flush=True)
            app = build_app(Queue(shelf, worker, limits), worker.start(), token)
            host = f"[{options.host}]" if ":" in options.host else options.host
            print(f"http://{host}:{socket.getsockname()[1]} (Ctrl-C ends the service)", flush=True)
            config = uvicorn.Config(
                app,
                log_level="warning",
                access_log=False,  # a job's address is all that is needed to fetch it
                server_header=False,
                timeout_graceful_shutdown=OPEN_SECONDS,
            )
            with handled(lambda number, frame: None):  # uvicorn passes its signals on when it has ended in order
                uvicorn.Server(config).run(sockets=[socket])
    finally:
        worker.kill()
        shelf.close()
    return 0


def _check_models(options: argparse.Namespace) -> None:
    """Raises ConfigError for a service that could do nothing, and for options that would have no effect."""
    if options.model is None and options.base is None:
        raise ConfigError(
            "serve needs a model: --model to reconstruct videos, --base (and --weights) for worlds, or both."
        )
    beside = [key for key in ("weights", "codec", "encoders") if getattr(options, key) is not None]
    if options.base is None and beside:
        raise ConfigError(f"--{beside[0]} has no effect without --base, the video transformer.")


def _listening(host: str, port: int) -> "socket":
    """A socket that listens, or ConfigError; before the models are opened, which takes longer."""
    import socket

    try:
        return socket.create_server((host, port), family=socket.AF_INET6 if ":" in host else socket.AF_INET)
    except (OSError, OverflowError) as error:
        reason = getattr(error, "strerror", None) or str(error)
        raise ConfigError(
            f"--host {host} --port {port}: {reason}. Give a port from 1 to 65535 that is free, and an address of this machine."
        ) from error
