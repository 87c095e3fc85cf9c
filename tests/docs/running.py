"""One command of the documentation in the sandbox: what it stands for, its small form, and running it."""

import io
import os
import re
import shlex
import shutil
import signal
import subprocess
import sys
import urllib.request
from collections.abc import Callable
from contextlib import redirect_stderr
from pathlib import Path
from typing import Any

import pytest

from tests.docs import rules
from tests.docs.pages import ROOT, Command
from tests.docs.rules import flag_names, with_values
from tests.docs.sandbox import narrow_published
from tinyworld.cli.commands import compress
from tinyworld.cli.dispatch import build_parser
from tinyworld.cli.flags import parse_overrides
from tinyworld.cli.main import main
from tinyworld.config.batch import clips_per_step
from tinyworld.config.guide import NAMES
from tinyworld.config.load import load_recipe
from tinyworld.config.schema import RECIPE_OF_TASK, FantasyRecipe, Recipe, TaehvRecipe

OF_RECIPES = ("train", "supervise", "check", "demo", "data cache")
ELLIPSIS = "…"
TABLES = "tests/docs/rules.py"


def meant(command: Command) -> str:
    """The command with the sandbox's names in the places of the page's placeholders, without redirections."""
    text = command.text
    for page in (command.page, "*"):
        for pattern, replacement in rules.SUBSTITUTIONS.get(page, ()):
            text = re.sub(pattern, replacement, text)
    text = re.sub(r"\s+(2>&1|>>?\s*\S+|&)(?=\s|$)", "", text.removeprefix("nohup "))
    return re.sub(r"^(\w+=\S*\s+)+", "", text)


def reason_not_run(text: str) -> str | None:
    """Why a command is left out, or None."""
    return next((reason for pattern, reason in rules.NOT_RUN if re.match(pattern, text)), None)


def run(text: str, patch: pytest.MonkeyPatch) -> None:
    """Run a command, as `meant` gives it, in the working directory, in its small form. Fails with what to do."""
    words = shlex.split(text)
    if any(re.match(pattern, text) for pattern, _ in rules.ONLY_PARSED):
        build_parser().parse_args(words[1:])
        return
    program = words[0].rpartition("/")[2]
    runners: dict[str, Callable[[list[str], pytest.MonkeyPatch], None]] = {
        "tinyworld": _tinyworld,
        "make": _make,
        "python": _python,
        "python3": _python,
        "torchrun": _torchrun,
        "bash": _script,
        "sbatch": _sbatch,
        "pytest": _pytest,
    }
    if program in runners:
        runners[program](words[1:], patch)
    elif program in ("cat", "ls", "tail", "cp", "mkdir", "cd"):
        found = subprocess.run(["bash", "-c", text.replace("tail -f", "tail")], capture_output=True, text=True)
        assert found.returncode == 0, found.stderr
    else:
        pytest.fail(f"nothing runs {program!r}: add it to {__file__}, or to NOT_RUN in {TABLES} with the reason")


# --- tinyworld -----------------------------------------------------------------------------------------------------


def _tinyworld(words: list[str], patch: pytest.MonkeyPatch) -> None:
    if _names_a_command_alone(words):
        _ends_with([*words, "--help"], (0,))
        return
    kind = next((kind for kind in OF_RECIPES if " ".join([*words, ""]).startswith(f"{kind} ")), None)
    if kind and not {"--help", "--parameters"} & set(words):
        _of_recipe(words, kind, patch)
        return
    if words[0] != "check":
        narrow_published(patch)
    patch.setattr(compress, "CALIBRATION_ROOMS", 1)  # rendering takes most of the time of `compress --keep`
    words = _small(words)
    _clear_outputs(words)
    if words[0] == "serve" and "--help" not in words:
        _serve(words)
        return
    _ends_with(words, _codes(words))


def _names_a_command_alone(words: list[str]) -> bool:
    """Whether a span only mentions a command, as in "see `tinyworld data cache`"."""
    parser: Any = build_parser()
    for word in words:
        choices: dict[str, Any] = next((a.choices for a in parser._actions if isinstance(a.choices, dict)), {})
        if word not in choices:
            return False
        parser = choices[word]
    return words != ["demo"]


def _small(words: list[str]) -> list[str]:
    """A command that takes no recipe."""
    text = " ".join(words)
    begins = max((name for name in rules.COMMANDS if text.startswith(name)), key=len, default="")
    if ELLIPSIS in words:
        elided = {**rules.ELIDED_MODEL, **(rules.ELIDED_OUTPUT if words[0] in ("generate", "lift") else {})}
        words = with_values([word for word in words if word != ELLIPSIS], elided, replace=False)
    assert ELLIPSIS not in " ".join(words), f"what is … here? Add it to SUBSTITUTIONS in {TABLES}"
    small = rules.COMMANDS.get(begins, rules.Small())
    return with_values(with_values(words, small.always), small.given, append=False)


def _ends_with(words: list[str], codes: tuple[int, ...]) -> None:
    try:
        code = main(words)
    except SystemExit as end:  # argparse: a flag that does not exist, or --help
        code = int(end.code or 0)
    assert code in codes, f"exit code {code}, not {' or '.join(map(str, codes))}, of: tinyworld {shlex.join(words)}"


def _codes(words: list[str]) -> tuple[int, ...]:
    text = " ".join(words)
    return next((codes for pattern, codes in rules.EXIT_CODES if re.search(pattern, text)), (0,))


def _clear_outputs(words: list[str]) -> None:
    """What the command is to make must not be there from the sandbox."""
    text = " ".join(words)
    values = dict(re.findall(r"--(\w+)[= ](\S+)", text))
    made = [values.get("output")]
    if text.startswith("data cache"):
        made += [values.get("condition_cache"), values.get("latent_cache")]
    if re.match(r"data (rooms|prepare)", text):
        made += [next(word for word in reversed(words) if not word.startswith("-") and word not in values.values())]
    if "run_name" in values and "resume_from_checkpoint" not in values:
        made.append(f"output/{values['run_name']}")
    if "output_path" in values:
        made.append(values["output_path"])
    for path in made:
        if path and not path.startswith("/"):
            shutil.rmtree(path, ignore_errors=True)
            Path(path).unlink(missing_ok=True) if Path(path).is_file() else None


# --- commands that take a recipe -------------------------------------------------------------------------------------


def _of_recipe(words: list[str], kind: str, patch: pytest.MonkeyPatch) -> None:
    """First as it is written: its keys, values and rules. Then small."""
    count = len(kind.split())
    head, rest = words[:count], words[count:]
    if kind == "demo":
        _demo(rest, patch)
        return
    name, flags = _recipe_and_flags(rest)
    switches = [flag for flag in flags if flag in ("--print_config", "--prune")]
    flags = [flag for flag in flags if flag not in switches]
    narrow_published(patch)
    if ELLIPSIS in flags:
        flags = _elided(name, [flag for flag in flags if flag != ELLIPSIS], kind)
    assert ELLIPSIS not in " ".join(flags), f"what is … here? Add it to SUBSTITUTIONS in {TABLES}"
    codes = _codes(words)
    own = [*_without(flags, "processes", "pause", "launcher")]
    if codes == (0,):
        recipe = load_recipe(name, parse_overrides(own))
        clips_per_step(recipe, int(dict(re.findall(r"--(\w+)[= ](\S+)", " ".join(flags))).get("processes", 1)))
    else:
        _ends_with([*head, name, *flags], codes)
        return
    named = [] if rest[:1] == [name] else [f"--task={recipe.task}"]
    small = [*head, *(named or [name]), *switches, *_small_recipe(recipe, _without(flags, "task"))]
    if kind == "supervise":
        _supervised_here(patch)
    _clear_outputs(small)
    _prepare(kind, small)
    _ends_with(small, codes)


def _prepare(kind: str, small: list[str]) -> None:
    """What has to have happened before: a run that is resumed, a cache that is read."""
    given = dict(re.findall(r"--(\w+)[= ](\S+)", " ".join(small)))
    if kind in ("train", "supervise") and not Path(given.get("latent_cache", ".")).is_dir():
        _ends_with(["data", "cache", *small[1:]], (0,))
    if "resume_from_checkpoint" in given and not Path("output", given.get("run_name", "…")).is_dir():
        _ends_with(with_values(_without(small, "resume_from_checkpoint"), {"max_train_steps": 1}), (0,))


def _recipe_and_flags(rest: list[str]) -> tuple[str, list[str]]:
    """The recipe's name, and the flags: as the command line reads them, --task in place of a recipe included."""
    if not rest[0].startswith("--"):
        return rest[0], rest[1:]
    task = dict(re.findall(r"--(task)[= ](\S+)", " ".join(rest)))["task"]
    return RECIPE_OF_TASK[task], rest


def _elided(name: str, flags: list[str], kind: str) -> list[str]:
    """The flags with those that an ellipsis stands for."""
    recipe = load_recipe(name, parse_overrides(_without(flags, "processes", "pause", "launcher")), complete=False)
    values = dict(rules.ELIDED_TAEHV)
    if isinstance(recipe, FantasyRecipe):
        values = dict(rules.ELIDED_WORLD)
        values |= rules.ELIDED_BRANCH if recipe.stage != "base" else {}
        values |= rules.ELIDED_STAGE2 if recipe.stage == "stage2" else {}
    elif isinstance(recipe, TaehvRecipe) and recipe.distils:
        values |= rules.ELIDED_DISTIL
    if kind == "data cache":
        values |= rules.ELIDED_CACHE[isinstance(recipe, FantasyRecipe)]
    return with_values(flags, values, replace=False)


def _small_recipe(recipe: Recipe, flags: list[str]) -> list[str]:
    """The guide's names of keys stay where a command uses them."""
    values = dict(rules.SMALL_WORLD if isinstance(recipe, FantasyRecipe) else rules.SMALL_TAEHV)
    given = flag_names(flags)
    for other, key in NAMES.items():
        if other in given and key in values:
            values[other] = values.pop(key)
    if "held_out_root" in given:
        values.pop("held_out_fraction")
    flags = with_values(with_values(flags, values), rules.IF_GIVEN, append=False)
    return flags if isinstance(recipe, FantasyRecipe) else with_values(flags, rules.NARROW, replace=False)


def _without(words: list[str], *names: str) -> list[str]:
    found, skip = [], False
    for position, word in enumerate(words):
        name, equals, _ = word[2:].partition("=") if word.startswith("--") else ("", "", "")
        if skip:
            skip = False
        elif name in names:
            skip = not equals and not words[position + 1 : position + 2][0].startswith("--")
        else:
            found.append(word)
    return found


def _supervised_here(patch: pytest.MonkeyPatch) -> None:
    """The command that a supervisor starts runs in this process: new ones take seconds to import torch. tests/supervisor and
    tests/cli/test_supervise.py start real ones."""
    from tinyworld import supervisor

    def supervise(job: supervisor.Job) -> int:
        assert job.command[1:4] == ["-m", "tinyworld", "train"], job.command
        return main(job.command[3:])

    patch.setattr(supervisor, "supervise", supervise)


def _demo(rest: list[str], patch: pytest.MonkeyPatch) -> None:
    from tinyworld.cli import fantasy_demo

    if rest[:1] != ["fantasy"]:
        _ends_with(
            ["demo", *_small_recipe(load_recipe("taehv_demo"), with_values(rest, {"data_root": "my_clips"}))], (0,)
        )
        return
    for steps in ("LONG", "SHORT"):
        patch.setattr(fantasy_demo, steps, dict.fromkeys(fantasy_demo.SHORT, 2))
    size = {
        key: rules.SMALL_WORLD[key] for key in ("height", "width", "num_frames", "num_workers", "validation_sigmas")
    }
    size |= {"frame_steps": "1", "held_out_fraction": 0.3, "num_validation_samples": 1, "cached_crops": 1}

    def smaller(name: str, flags: dict[str, object]) -> Recipe:
        return load_recipe(name, {**flags, **(size if name.startswith("fantasy") else {})})

    patch.setattr(fantasy_demo, "load_recipe", smaller)
    flags = {"dataset_base_path": "D", "codec_path": "my_taehv", "cpu_threads": 1}
    _ends_with(["demo", *with_values(rest, flags, replace=False)], (0,))


# --- what is not `tinyworld` itself ----------------------------------------------------------------------------------


def _serve(words: list[str]) -> None:
    """A real service: it says its address, answers, and ends in order."""
    words = with_values(words, {"port": 0, "device": "cpu"})
    process = subprocess.Popen([sys.executable, "-m", "tinyworld", *words], stdout=subprocess.PIPE, text=True)
    try:
        assert process.stdout is not None
        line = next((line for line in process.stdout if line.startswith("http://")), "")
        assert line, f"it ended without an address: exit code {process.wait(60)}"
        with urllib.request.urlopen(f"{line.split()[0]}/health", timeout=60) as answer:
            assert answer.status == 200
        process.send_signal(signal.SIGINT)
        process.wait(60)
    finally:
        process.kill()
        process.wait()


def _make(words: list[str], patch: pytest.MonkeyPatch) -> None:
    """`make test` would be this test again: that the target exists and expands is what is looked at."""
    found = subprocess.run(["make", "-n", *words], cwd=ROOT, capture_output=True, text=True)
    assert found.returncode == 0, found.stderr


def _python(words: list[str], patch: pytest.MonkeyPatch) -> None:
    import runpy

    if words[:2] == ["-m", "tinyworld"]:
        _tinyworld(words[2:], patch)
        return
    if words[0] == "-m":
        patch.setattr(sys, "argv", words[1:])
        runpy.run_module(words[1], run_name="__main__")
        return
    if words[0] == "-c":
        exec(words[1], {})
        return
    name = Path(words[0]).stem
    assert words[0] == f"benchmarks/{name}.py", f"add {words[0]} to {__file__}"
    if name in rules.TOO_LARGE:
        parse_benchmark(name, words[1:], patch)
        return
    benchmark(name, _spaced(with_values(words[1:], rules.BENCHMARKS[name])), patch)


def benchmark(name: str, arguments: list[str], patch: pytest.MonkeyPatch) -> None:
    """`python benchmarks/NAME.py …` in this process."""
    import runpy

    patch.syspath_prepend(ROOT / "benchmarks")
    patch.setattr(sys, "argv", [name, *arguments])
    runpy.run_path(str(ROOT / "benchmarks" / f"{name}.py"), run_name="__main__")


def parse_benchmark(name: str, arguments: list[str], patch: pytest.MonkeyPatch) -> None:
    """The arguments by the benchmark's own parser: one flag more that it does not know is all that it refuses."""
    said = io.StringIO()
    with pytest.raises(SystemExit), redirect_stderr(said):
        benchmark(name, [*arguments, "--none_such"], patch)
    assert said.getvalue().rstrip().endswith("unrecognized arguments: --none_such"), said.getvalue()


def _spaced(words: list[str]) -> list[str]:
    """`--latents 9 81` and `--latents=9` alike."""
    return [part for word in words for part in (word.split("=", 1) if word.startswith("--") else [word])]


def _torchrun(words: list[str], patch: pytest.MonkeyPatch) -> None:
    """torchrun's own flags by its parser; what it starts, in this process."""
    from torch.distributed.run import get_args_parser

    options = get_args_parser().parse_args(words)
    assert options.module and options.training_script == "tinyworld", words
    _tinyworld(options.training_script_args, patch)


def _script(words: list[str], patch: pytest.MonkeyPatch) -> None:
    """Its syntax, then what launch/local.sh runs: the supervisor."""
    subprocess.run(["bash", "-n", ROOT / words[0]], check=True)
    if words[0] == "launch/local.sh":
        _tinyworld(["supervise", words[2], "--processes", words[1], *words[3:]], patch)
        return
    pytest.fail(f"nothing runs {words[0]}: add it to {__file__}")


def _sbatch(words: list[str], patch: pytest.MonkeyPatch) -> None:
    """The script's syntax and the recipe with its flags; tests/cli/test_supervise.py runs the script with Slurm faked."""
    script = next(position for position, word in enumerate(words) if not word.startswith("-"))
    subprocess.run(["bash", "-n", ROOT / words[script]], check=True)
    _tinyworld(["supervise", *words[script + 1 :]], patch)


def _pytest(words: list[str], patch: pytest.MonkeyPatch) -> None:
    """That the paths exist; running them is the suite's own business."""
    missing = [word for word in words if "/" in word and not (ROOT / word.split("::")[0]).exists()]
    assert not missing, missing
    assert os.environ.get("PYTEST_CURRENT_TEST")
