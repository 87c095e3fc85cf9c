"""Children that act as a training does, in a few lines: journal, checkpoints, signals, an end as planned."""

import json
import sys
from pathlib import Path
from typing import Any

from tinyworld.core.journal_lines import Record, read_lines
from tinyworld.supervisor import Job

CHILD = """
import json, os, signal, sys, time
from pathlib import Path

folder, rank = Path(sys.argv[1]), int(os.environ.get("RANK", "0"))
lives = json.loads((folder / "plan.json").read_text())
count = folder / f"lives-{rank}"
life = len(count.read_text()) if count.exists() else 0
count.write_text("x" * (life + 1))
(folder / f"argv-{life}").write_text(json.dumps(sys.argv))
(folder / f"environment-{rank}").write_text(json.dumps(dict(os.environ)))
plan = lives[min(life, len(lives) - 1)]
journal = (folder / "journal.jsonl").open("a") if rank == 0 and plan.get("journal", True) else None

def write(event, step, **facts):
    if journal:
        journal.write(json.dumps({"event": event, "time": time.time(), "step": step, **facts}) + chr(10))
        journal.flush()

def stopped(number, frame):
    (folder / f"told-{rank}").open("a").write(signal.Signals(number).name + " ")
    time.sleep(plan.get("saving", 0))
    write("stop", at, reason="signal", message="saved", exit_code=75)
    os._exit(75)

at = plan.get("from", 0)
signal.signal(signal.SIGTERM, stopped)
signal.signal(signal.SIGINT, stopped)
if plan.get("start", True):
    write("start", at)
for at in range(at + 1, plan.get("to", at) + 1):
    write("step", at, seconds_per_step=0.001, data_seconds=0.0)
for step in plan.get("checkpoints", []):
    done = folder / f"checkpoint-{step}"
    done.mkdir(exist_ok=True)
    (done / "manifest.json").write_text("{}")
(folder / f"new-{rank}").write_text(str(os.getpid()))
(folder / f"new-{rank}").rename(folder / f"pid-{rank}")
if plan.get("loader"):
    if loader := os.fork():
        (folder / "loader").write_text(str(loader))
    else:
        time.sleep(60)
if plan.get("wait") and rank not in plan.get("ends", []):
    time.sleep(60)
if "message" in plan:
    print("Traceback" + chr(10) + plan["message"], file=sys.stderr, flush=True)
    write("stop", at, reason="error", message=plan["message"], exit_code=plan["code"])
if "late" in plan:
    (folder / "ranks").mkdir(exist_ok=True)
    (folder / "ranks" / "late.json").write_text(json.dumps({"text": plan["late"]}))
if plan["code"] < 0:
    os.kill(os.getpid(), -plan["code"])
sys.exit(plan["code"])
"""


def job(folder: Path, *lives: dict[str, Any], **more: Any) -> Job:
    """A job whose n-th start acts as the n-th of `lives`, and later ones as the last."""
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "plan.json").write_text(json.dumps(lives))
    (folder / "child.py").write_text(CHILD)
    command = [sys.executable, "-S", "-E", str(folder / "child.py"), str(folder)]
    return Job(folder, command, **{"pause": 0.0, "grace": 0.3} | more)


def starts(folder: Path, rank: int = 0) -> int:
    return len((folder / f"lives-{rank}").read_text())


def restarts(folder: Path) -> list[Record]:
    return [record for record in read_lines(folder / "journal.jsonl")[0] if record["event"] == "restart"]
