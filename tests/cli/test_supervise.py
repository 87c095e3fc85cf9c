"""`tinyworld supervise` and the launch scripts: what is started, and a real run that is killed and goes on."""

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

import tinyworld.supervisor
from tests.cli.helpers import SMALL, refused
from tinyworld.cli.main import main
from tinyworld.core.journal_lines import JOURNAL, Record, read_lines
from tinyworld.supervisor import Job

LAUNCH = Path(__file__).resolve().parents[2] / "launch"


@pytest.fixture
def jobs(monkeypatch: pytest.MonkeyPatch) -> list[Job]:
    """What would be supervised; nothing is started."""
    found: list[Job] = []
    monkeypatch.delenv("NUM_GPUS", raising=False)
    monkeypatch.setattr(tinyworld.supervisor, "supervise", lambda job: found.append(job) or 75)
    return found


def supervised(jobs: list[Job], *flags: str) -> Job:
    assert main(["supervise", "taehv_demo", "--data_root=clips", *flags]) == 75
    return jobs[-1]


def test_the_run_folder_is_fixed_before_the_first_start(jobs: list[Job], tmp_path: Path) -> None:
    job = supervised(jobs, f"--output_dir={tmp_path}", "--seed", "3", "--pad_frames")
    assert job.folder.parent == tmp_path and job.folder.name.startswith("taehv_demo-")
    assert job.command[1:5] == ["-m", "tinyworld", "train", "taehv_demo"]
    flags = [
        "--data_root=clips",
        f"--output_dir={tmp_path}",
        "--seed=3",
        "--pad_frames",
        f"--run_name={job.folder.name}",
    ]
    assert job.command[5:] == flags
    assert (job.processes, job.pause, job.begin_from) == (1, 10.0, None)
    job.folder.mkdir()
    assert supervised(jobs, f"--output_dir={tmp_path}").folder != job.folder


def test_a_named_run_goes_on_where_it_is(jobs: list[Job]) -> None:
    job = supervised(jobs, "--run.run_name=mine", "--resume_from_checkpoint", "latest")
    assert job.folder == Path.cwd() / "output" / "mine" and job.begin_from is None
    assert [word for word in job.command if "run_name" in word or "resume" in word] == ["--run_name=mine"]
    job = supervised(jobs, "--run_name=branch", "--resume_from_checkpoint=output/mine/checkpoint-500")
    assert job.begin_from == "output/mine/checkpoint-500" and job.command[-1] == "--run_name=branch"


def test_processes_come_from_the_flag_or_from_num_gpus(jobs: list[Job], monkeypatch: pytest.MonkeyPatch) -> None:
    assert supervised(jobs, "--processes", "4").processes == 4
    monkeypatch.setenv("NUM_GPUS", "8")
    assert supervised(jobs).processes == 8 and supervised(jobs, "--processes=2").processes == 2
    launched = supervised(jobs, "--launcher", "srun --label", "--pause=0.5")
    assert launched.processes == 1 and launched.pause == 0.5
    assert launched.command[:4] == ["srun", "--label", sys.executable, "-m"]


def test_mistakes_are_met_before_anything_is_started(
    jobs: list[Job], capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    def said(*flags: str) -> str:
        return refused(capsys, "supervise", "taehv_demo", "--data_root=clips", *flags)

    assert "--processes is '0'" in said("--processes", "0")
    assert "--pause is 'soon'" in said("--pause", "soon") and "0 to 600" in said("--pause=-1")
    assert "exclude each other" in said("--launcher=srun", "--processes=2")
    assert "--launcher needs a value" in said("--launcher")
    assert "--run_name" in said("--resume_from_checkpoint=latest")
    assert "the newest checkpoint" in said("--run_name=a", "--resume_from_checkpoint=checkpoint-5")
    assert "n_frames" in said("--n_frames=-3")
    monkeypatch.setenv("NUM_GPUS", "all")
    assert "NUM_GPUS is 'all'" in said()
    assert jobs == []


def test_help_names_its_own_flags_and_those_of_train(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        main(["supervise", "--help"])
    shown = capsys.readouterr().out
    assert "--processes N" in shown and "NUM_GPUS" in shown and "--learning_rate" in shown


def events(folder: Path) -> list[Record]:
    path = folder / JOURNAL
    return read_lines(path)[0] if path.is_file() else []


def children(pid: int) -> list[int]:
    return [int(child) for child in Path(f"/proc/{pid}/task/{pid}/children").read_text().split()]


@pytest.mark.slow
@pytest.mark.skipif(sys.platform != "linux", reason="finds the training process through /proc")
def test_a_real_run_that_is_killed_goes_on_and_finishes(clips: Path, tmp_path: Path) -> None:
    changed = ["--max_train_steps=9", "--validation_steps=99", "--num_preview_clips=0", "--log_steps=1"]
    names = [flag.partition("=")[0] for flag in changed]
    flags = [*changed, *(flag for flag in SMALL if flag.partition("=")[0] not in names)]
    command = [sys.executable, "-m", "tinyworld", "supervise", "taehv_demo", f"--data_root={clips}"]
    command += [f"--output_dir={tmp_path}", "--pause=0.1", *flags]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True) as supervisor:
        deadline = time.monotonic() + 100
        while not any(event["event"] == "checkpoint" for event in events(tmp_path / "run")):
            assert supervisor.poll() is None and time.monotonic() < deadline
            time.sleep(0.02)
        (training,) = children(supervisor.pid)
        os.kill(training, signal.SIGKILL)
        shown, _ = supervisor.communicate(timeout=240)
    assert supervisor.returncode == 0
    told = events(tmp_path / "run")
    (restart,) = [event for event in told if event["event"] == "restart"]
    first, second = [event for event in told if event["event"] == "start"]
    assert restart["cause"] == "killed by SIGKILL" and restart["pause"] == 0.1
    assert first["step"] == 0 and second["step"] >= 3 and str(second["resumed_from"]).endswith(f"-{second['step']}")
    assert told[-1]["event"] == "stop" and told[-1]["reason"] == "finished" and told[-1]["step"] == 9
    assert shown.startswith("goodput ") and "1 restart" in shown


FAKE = """#!/bin/bash
echo "$(basename "$0") $*" >> "$CALLS"
case "$(basename "$0")" in
scontrol) [ "$1" = show ] && printf 'head\\nother\\n' ;;
scancel) kill -TERM "$(cat "$CALLS.task")" ;;
srun) shift; SLURM_PROCID=5 SLURM_LOCALID=1 SLURM_NTASKS=8 "$@" ;;
tinyworld) eval "$ACTS" ;;
esac
"""


def slurm(folder: Path, acts: str, *arguments: str) -> "subprocess.Popen[bytes]":
    """launch/slurm.sh with all commands faked; `acts`: what tinyworld does, in bash."""
    commands = folder / "bin"
    commands.mkdir()
    for name in ("srun", "scontrol", "scancel", "tinyworld"):
        (commands / name).write_text(FAKE)
        (commands / name).chmod(0o755)
    known = {"PATH": f"{commands}:{os.environ['PATH']}", "CALLS": str(folder / "calls"), "ACTS": acts}
    known |= {"SLURM_JOB_ID": "123", "SLURM_JOB_NODELIST": "head,other"}
    return subprocess.Popen(["bash", str(LAUNCH / "slurm.sh"), *arguments], env={**os.environ, **known})


@pytest.mark.parametrize(("code", "requeued"), [(0, False), (1, False), (2, False), (75, True)])
def test_slurm_requeues_what_was_stopped_and_nothing_else(tmp_path: Path, code: int, requeued: bool) -> None:
    assert slurm(tmp_path, f"exit {code}", "my_recipe", "--data_root", "a folder").wait(120) == code
    calls = (tmp_path / "calls").read_text().splitlines()
    assert ("scontrol requeue 123" in calls) == requeued
    (supervise,) = [call for call in calls if call.startswith("tinyworld")]
    assert supervise.startswith(
        "tinyworld supervise my_recipe --data_root a folder --run_name slurm-123 --launcher bash "
    )


def test_slurm_passes_a_preemption_on_once_and_requeues(tmp_path: Path) -> None:
    acts = 'trap "echo told >> $CALLS; exit 75" TERM; echo ready > "$CALLS.ready"; while :; do sleep 0.05; done'
    script = slurm(tmp_path, acts, "my_recipe", "--run_name=mine")
    while not (tmp_path / "calls.ready").exists():
        time.sleep(0.02)
    script.terminate()
    assert script.wait(120) == 75
    calls = (tmp_path / "calls").read_text().splitlines()
    assert calls.count("told") == 1 and "scontrol requeue 123" in calls
    assert not any("slurm-123" in call for call in calls)


def test_slurm_tasks_know_their_rank_and_are_told_through_scancel(tmp_path: Path) -> None:
    task = 'import json, os, signal, sys, time; signal.signal(15, lambda *_: sys.exit(75)); c = os.environ["CALLS"]; '
    task += 'open(c + ".ranks", "w").write(json.dumps([os.environ[k] for k in ("RANK", "LOCAL_RANK", "WORLD_SIZE")])); '
    task += 'open(c + ".task", "w").write(str(os.getpid())); time.sleep(60)'
    script = slurm(tmp_path, "", "--tasks", sys.executable, "-S", "-c", task)
    pid = tmp_path / "calls.task"
    while not (pid.exists() and pid.read_text()):
        time.sleep(0.02)
    script.terminate()
    assert script.wait(120) == 75
    assert "scancel --signal=TERM 123" in (tmp_path / "calls").read_text()
    assert json.loads((tmp_path / "calls.ranks").read_text()) == ["5", "1", "8"]


def test_the_local_script_is_supervise(tmp_path: Path) -> None:
    (tmp_path / "tinyworld").write_text('#!/bin/bash\nprintf "%s\\n" "$@"\nexit 75\n')
    (tmp_path / "tinyworld").chmod(0o755)
    known = {**os.environ, "PATH": f"{tmp_path}:{os.environ['PATH']}"}

    def local(*arguments: str) -> "subprocess.CompletedProcess[str]":
        command = ["bash", str(LAUNCH / "local.sh"), *arguments]
        return subprocess.run(command, env=known, capture_output=True, text=True)

    done = local("8", "taehv_h100", "--data_root", "my clips")
    assert done.returncode == 75
    assert done.stdout.splitlines() == ["supervise", "taehv_h100", "--processes", "8", "--data_root", "my clips"]
    assert local("8").returncode == 2 and "usage" in local().stderr
