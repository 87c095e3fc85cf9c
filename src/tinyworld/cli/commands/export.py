"""`tinyworld export MODEL --to TARGET --output PATH`: a model in the form that other tools load."""

import argparse
import shlex
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING

from tinyworld.cli.paths import check_writable, given_path
from tinyworld.core.errors import ConfigError

if TYPE_CHECKING:
    from tinyworld.interop.source import Source

FILES = ("comfyui", "pth")
"""Targets that are one file; the others are folders."""
TARGETS = ("diffusers", *FILES, "onnx", "folder", "hub")
DESCRIPTION = """\
Writes a model in the form that another tool loads; the model itself stays as it is. MODEL is a run (its best model is
taken), a checkpoint-N, a .safetensors or a .pth file.

diffusers  a folder that takes the place of a pipeline's VAE, alone or as its vae/
comfyui    a .safetensors file for ComfyUI's models/vae
pth        a state dict for the public taehv code
onnx       networks for ONNX Runtime
folder     what --to hub uploads: weights, config, and a model card written from the run
hub        the same, into the repository --repo of the Hugging Face hub; together with --to folder it is kept as well
"""


def add_parser(commands: "argparse._SubParsersAction[argparse.ArgumentParser]") -> None:
    parser = commands.add_parser(
        "export",
        help="a model for diffusers, ComfyUI, the public taehv code, ONNX or the Hugging Face hub",
        description=DESCRIPTION,
        formatter_class=argparse.RawDescriptionHelpFormatter,
        allow_abbrev=False,
    )
    parser.add_argument("model", metavar="MODEL", type=given_path, help="a run, a folder or a file of weights")
    parser.add_argument(
        "--to", required=True, action="append", choices=TARGETS, help="what to write; folder and hub go together"
    )
    parser.add_argument(
        "--output",
        type=given_path,
        metavar="PATH",
        help="a folder that is not there yet; for comfyui and pth a file, or the folder for it. Not needed for hub",
    )
    parser.add_argument("--repo", metavar="ORG/NAME", help="with hub (and for the card of folder): the repository")
    parser.add_argument("--private", action="store_true", help="with hub: a repository that is made now is private")
    parser.add_argument("--revision", metavar="BRANCH", help="with hub: the branch to upload to; default: main")
    parser.add_argument("--license", metavar="NAME", help="what the card states, such as apache-2.0; unset: none")
    parser.add_argument("--variant", metavar="NAME", help="architecture of a bare weight file, such as taecvx")
    parser.add_argument(
        "--latents",
        choices=("raw", "scaled", "normalised"),
        help="form in which it takes a diffusion model's latents; unset: as the run was trained, or as public weights",
    )
    parser.add_argument("--height", type=int, metavar="N", help="with onnx: for this height alone; unset: any")
    parser.add_argument("--width", type=int, metavar="N", help="with onnx: for this width alone; unset: any")
    parser.set_defaults(run=run)


def run(options: argparse.Namespace) -> int:
    from tinyworld.interop.source import open_source, refuse_branch

    _check(options)
    source = open_source(options.model, options.variant, options.latents, options.license)
    print(f"model: {source.weights}{_said(source)}")
    target = options.to[0]
    if target in ("folder", "hub"):
        return _hub(options, source)
    refuse_branch(source, target)
    if target in FILES:
        return _file(options, source, target)
    if target == "diffusers":
        _folder(options.output, lambda folder: _diffusers(source, folder))
        print(
            f'from tinyworld.interop.diffusers import TaehvVae\npipe.vae = TaehvVae.from_pretrained("{options.output}")'
        )
        return 0
    from tinyworld.models.taehv.onnx_export import export_onnx

    _folder(options.output, lambda folder: export_onnx(source.model(), folder, options.height, options.width))
    print("import onnxruntime  # docs/interoperability.md has the inputs and outputs of each network")
    for file in sorted(options.output.glob("*.onnx")):
        print(f'{file.stem} = onnxruntime.InferenceSession("{file}")')
    return 0


def _check(options: argparse.Namespace) -> None:
    """Every mistake that needs no model to be seen."""
    targets, problems = list(dict.fromkeys(options.to)), []
    if len(targets) > 1 and set(targets) != {"folder", "hub"}:
        problems.append(f"--to {' and --to '.join(targets)}: one at a time; only folder and hub go together.")
    if options.output is None and targets != ["hub"]:
        problems.append(f"--to {targets[0]} needs --output PATH.")
    if targets == ["hub"] and options.output is not None:
        problems.append("--to hub alone keeps no folder: leave --output out, or give --to folder --to hub.")
    if "hub" in targets and options.repo is None:
        problems.append("--to hub needs --repo ORG/NAME.")
    for flag, given, needs in (
        ("--private", options.private, {"hub"}),
        ("--revision", options.revision, {"hub"}),
        ("--repo", options.repo, {"hub", "folder"}),
        ("--height", options.height, {"onnx"}),
        ("--width", options.width, {"onnx"}),
    ):
        if given and not needs & set(targets):
            problems.append(f"{flag} is for --to {' or '.join(sorted(needs))}.")
    if problems:
        raise ConfigError(problems)


def _said(source: "Source") -> str:
    known = ", ".join(f"{key} {value}" for key, value in source.about.items() if key != "license")
    return f" ({known})" if known else ""


def _folder(output: Path, write: Callable[[Path], object], said: str = "wrote {}") -> None:
    """A folder that appears when it is complete, and its files told. Raises ConfigError when something has its name."""
    from tinyworld.core.files import staged_folder

    if output.exists() or output.is_symlink():
        raise ConfigError(f"--output {output} is there already. Give the name of a folder that is not there yet.")
    with staged_folder(output) as folder:
        write(folder)
    for file in sorted(path for path in output.rglob("*") if path.is_file()):
        _say(file, said)


def _say(file: Path, said: str = "wrote {}") -> None:
    from tinyworld.report.words import size

    print(f"{said.format(file)} ({size(file.stat().st_size)})")


def _diffusers(source: "Source", folder: Path) -> None:
    from tinyworld.core.errors import WeightsError
    from tinyworld.interop.diffusers import TaehvVae
    from tinyworld.interop.families import OWN

    latents = source.about.get("latents")
    if latents == OWN:
        raise WeightsError(
            f"{source.weights} learned without a reference VAE: its latents are its own, and no pipeline's diffusion model "
            "speaks them. Train it with teacher.use_ref_vae=true, or, if it takes those of its parent still, give --latents."
        )
    TaehvVae.from_taehv(source.model(), source.about.get("variant"), latents=latents).save_pretrained(folder)


def _file(options: argparse.Namespace, source: "Source", target: str) -> int:
    from tinyworld.interop import published

    spec, tensors = source.taehv()
    variant, output = source.about.get("variant"), options.output
    file = output if output.suffix else output / published.default_name(target, spec, variant)
    if file.exists() or file.is_symlink():
        raise ConfigError(f"--output {file} is there already. Remove it, or give another name.")
    if output.suffix:
        check_writable(file, "--output")
    if target == published.PTH:
        published.write_pth(file, tensors, spec)
        _say(file)
        print(f'from taehv import TAEHV  # github.com/madebyollin/taehv\nmodel = TAEHV("{file}")')
        return 0
    dtype = published.write_comfyui(file, tensors, spec, source.about)
    _say(file)
    print(f"{str(dtype).removeprefix('torch.')}. Put it into ComfyUI/models/vae and choose it in the node Load VAE.")
    if note := published.comfyui_note(spec, source.about.get("latents")):
        print(f"Note: {note}")
    return 0


def _hub(options: argparse.Namespace, source: "Source") -> int:
    from tinyworld.interop.folder import write_folder
    from tinyworld.interop.source import TAEHV
    from tinyworld.models.taehv.hub import check_name, upload

    name = options.repo or options.output.name
    if options.repo is not None:
        check_name(options.repo)
    with tempfile.TemporaryDirectory() as scratch:
        folder = options.output or Path(scratch) / "export"
        said = "wrote {}" if options.output else "to upload: {0.name}"
        _folder(folder, lambda staging: write_folder(source, staging, name), said)
        if "hub" in options.to:
            step = source.about.get("step")
            message = f"tinyworld export{'' if step is None else f', step {step}'}"
            print(upload(folder, options.repo, message, options.private, options.revision))
    place = options.repo if "hub" in options.to else folder
    if source.architecture == TAEHV:
        print(f'from tinyworld import Taehv\nmodel = Taehv.from_pretrained("{place}")')
    elif "hub" in options.to:
        print(f"hf download {place} --local-dir world  # then tinyworld lift VIDEO … --weights world")
    else:
        print(f"tinyworld lift VIDEO --base WAN_TRANSFORMER --codec WAN_VAE --weights {shlex.quote(str(place))}")
    return 0
