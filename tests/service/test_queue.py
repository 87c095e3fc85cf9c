"""Jobs that take too long, die, fill the disk or grow old, and what a restart finds."""

import json
import os
import signal
import time
from pathlib import Path

import pytest

from tests.service import fakes
from tests.service.helpers import PNG, everything, send, service, wait
from tinyworld.core.errors import ConfigError, WeightsError
from tinyworld.service.jobs import Shelf
from tinyworld.service.limits import Limits
from tinyworld.service.worker import Worker


def test_jobs_that_go_wrong(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    """Each costs itself and nothing else; what they made is gone."""
    with service(tmp_path / "jobs", job_minutes=0.02, max_disk_mb=4, max_upload_mb=1) as client:

        def outcome(prompt: str) -> str:
            job = wait(client, send(client, prompt=prompt).json()["id"])
            assert job["state"] == "failed" and not job["files"]
            assert everything(tmp_path / "jobs" / job["id"]) == {"job.json"}
            return job["error"]

        assert outcome("mistake") == "the picture is <b>wrong</b>"
        assert "lies in the program" in outcome("defect") and "a secret detail" in capfd.readouterr().err
        pid = client.queue.worker.pid
        assert "longer than the 0.02 minutes" in outcome("slow")
        assert client.queue.worker.pid == pid  # it left the job by itself
        assert "exit code 3" in outcome("die")
        assert "longer than the 0.02 minutes" in outcome("deaf")
        assert "4 MiB" in outcome("fat")
        assert wait(client, send(client, prompt="fast").json()["id"])["state"] == "done"


def test_a_worker_that_is_ended_from_outside(tmp_path: Path) -> None:
    with service(tmp_path / "jobs") as client:
        job = send(client, prompt="slow").json()["id"]
        wait(client, job, ("running",))
        while client.queue.job(job)[0].progress is None:
            time.sleep(0.01)
        os.kill(client.queue.worker.pid, signal.SIGTERM)  # as when the whole group is told to end
        assert wait(client, job)["state"] == "interrupted"
        assert wait(client, send(client, prompt="fast").json()["id"])["state"] == "done"
        os.kill(client.queue.worker.pid, signal.SIGKILL)
        client.queue.worker._process.join()
        assert wait(client, send(client, prompt="fast").json()["id"])["state"] == "done"
        client.queue.drop(job)  # of a job that was submitted, when the answer to it was lost
        assert client.get(f"/jobs/{job}").status_code == 200 and (tmp_path / "jobs" / job / "job.json").is_file()


def test_the_disk_is_full(tmp_path: Path) -> None:
    with service(tmp_path / "jobs", max_disk_mb=1, max_upload_mb=1) as client:
        first = send(client, prompt="fast").json()["id"]
        wait(client, first)
        kept = client.queue._jobs[first]
        kept.bytes = 2**20 - 1000  # as if its results were that large
        answer = send(client, file=PNG + bytes(2000))
        assert answer.status_code == 507 and "--max_disk_mb" in answer.json()["error"]
        assert {path.name for path in (tmp_path / "jobs").iterdir()} == {"service.lock", first}
        client.delete(f"/jobs/{first}")
        assert send(client, file=PNG + bytes(2000)).status_code == 202


def test_old_jobs_go(tmp_path: Path) -> None:
    with service(tmp_path / "jobs", keep_hours=1) as client:
        old, young = (send(client, prompt="fast").json()["id"] for _ in range(2))
        wait(client, old), wait(client, young)
        client.queue._jobs[old].ended = time.time() - 3601
        client.queue.sweep()
        assert client.get(f"/jobs/{old}").status_code == 404 and client.get(f"/jobs/{young}").status_code == 200
        assert everything(tmp_path / "jobs") == {
            "service.lock",
            *(f"{young}{name}" for name in ("", "/job.json", "/files", "/files/video.mp4")),
        }


def test_a_restart(tmp_path: Path) -> None:
    """Waiting jobs keep their order and their files; the running one is interrupted; results are still there."""
    folder = tmp_path / "jobs"
    with service(folder) as client:
        done = send(client, prompt="fast").json()["id"]
        wait(client, done)
        running = send(client, prompt="slow").json()["id"]
        wait(client, running, ("running",))
        waiting = [send(client, file=PNG, prompt="fast", seed=str(seed)).json()["id"] for seed in range(3)]
    assert json.loads((folder / running / "job.json").read_text())["state"] == "interrupted"
    assert (folder / waiting[0] / "upload").read_bytes() == PNG
    killed = json.loads((folder / waiting[1] / "job.json").read_text())
    (folder / waiting[1] / "job.json").write_text(json.dumps({**killed, "state": "running"}))  # the machine went down
    half, broken, foreign = (folder / (letter * 22) for letter in "abc")
    half.mkdir(), broken.mkdir(), foreign.symlink_to(tmp_path)
    (half / "upload").write_bytes(b"half")
    (broken / "job.json").write_text("{")
    (folder / "notes.txt").write_text("not ours")
    with service(folder) as client:
        assert wait(client, waiting[0])["state"] == wait(client, waiting[2])["state"] == "done"
        assert client.queue.job(waiting[0])[0].started < client.queue.job(waiting[2])[0].started
        for lost in (running, waiting[1]):
            assert "Send it again" in wait(client, lost)["error"]
            assert everything(folder / lost) == {"job.json"}
        assert client.get(f"/jobs/{done}/files/video.mp4").content == b"0123456789"
        later = send(client, prompt="fast").json()["id"]
        assert client.queue.job(later)[0].number == 6
        wait(client, later)
    assert not half.exists() and not broken.exists()
    assert foreign.is_symlink() and (folder / "notes.txt").exists() and (tmp_path / "jobs").exists()


def test_an_end_waits_for_a_job(tmp_path: Path) -> None:
    with service(tmp_path / "jobs", grace=30, job_minutes=0.8 / 60) as client:
        job = send(client, prompt="slow").json()["id"]
        wait(client, job, ("running",))
    told = json.loads((tmp_path / "jobs" / job / "job.json").read_text())
    assert told["state"] == "failed" and "longer than" in told["error"]  # to its own end, not the service's


def test_the_folder(tmp_path: Path) -> None:
    shelf = Shelf(tmp_path / "jobs")
    with pytest.raises(ConfigError, match="in use by another service"):
        Shelf(tmp_path / "jobs")
    shelf.close()
    Shelf(tmp_path / "jobs").close()
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "thesis.tex").write_text("")
    with pytest.raises(ConfigError, match="a folder of its own"):
        Shelf(tmp_path / "mine")
    with pytest.raises(ConfigError, match="is a file"):
        Shelf(tmp_path / "mine" / "thesis.tex")
    for name in ("..", "", "x", "../" + "a" * 19, "a" * 22 + "\n"):
        with pytest.raises(ValueError):
            shelf.place(name)


def test_limits_that_cannot_be() -> None:
    with pytest.raises(ConfigError) as told:
        Limits(max_queue=0, keep_hours=float("nan"))
    assert len(told.value.problems) == 2
    with pytest.raises(ConfigError, match="--max_upload_mb 10 is more"):
        Limits(max_upload_mb=10, max_disk_mb=5)


def test_models_that_cannot_be_opened() -> None:
    with pytest.raises(WeightsError, match="of another model"):
        Worker(fakes.refusing).start()
