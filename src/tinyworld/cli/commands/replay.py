"""`tinyworld replay CAPSULE`: a skipped step once more, sample by sample. Exit code 1 when it does not come out the same."""

import argparse
from pathlib import Path


def add_parser(commands: "argparse._SubParsersAction[argparse.ArgumentParser]") -> None:
    parser = commands.add_parser(
        "replay",
        help="take a step that training skipped once more, and name the sample and the layer at fault",
        description="Take a step that training skipped once more, on one process, and name the sample and the layer at fault.",
    )
    parser.add_argument(
        "capsule", type=Path, help="folder below a run's capsules/, such as output/<run>/capsules/step-7"
    )
    parser.add_argument("--device", choices=("auto", "cpu", "cuda"), default="auto", help="where to run it")
    parser.set_defaults(run=run)


def run(options: argparse.Namespace) -> int:
    from tinyworld.config.load import load_recipe
    from tinyworld.engine import accelerate_setup, capsule
    from tinyworld.engine.replay import Replay
    from tinyworld.tasks.build import build_task

    about = capsule.read(options.capsule)
    recipe = load_recipe(options.capsule / "config.yaml", {"device": options.device})
    accelerate_setup.require(recipe)
    device = accelerate_setup.training_device(recipe)
    print(f"step {about['step'] + 1} of {recipe.name}, skipped because: {about['reason']}")
    reproduced = True
    for result in Replay(build_task(recipe), recipe, options.capsule, device).ranks():
        reproduced &= result.reproduced
        said = "as recorded" if result.reproduced else "NOT as recorded"
        print(f"rank {result.rank}: {said}")
        for name, value in result.means.items():
            print(f"  {name:<28}{value:>12.5g}   recorded {_number(result.recorded.get(name))}")
        for part, norm in result.norms.items():
            print(f"  {'gradient of ' + part:<28}{norm:>12.5g}")
        for sample in result.samples:
            where = f"; first broken: {sample.broken_at}" if sample.broken_at else ""
            print(f"  sample {sample.id}: loss {sample.loss:.5g}{where}")
    return 0 if reproduced else 1


def _number(value: float | None) -> str:
    return "not finite" if value is None else f"{value:.5g}"
