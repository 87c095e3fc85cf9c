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
    from tinyworld.interop.source import Exported

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
    parser.add_argument(
        "--private", action="store_true", help="with hub: only into a repository that is private, or is made now"
    )
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
    from tinyworld.interop.source import open_source, refuse_branch, refuse_own

    _check(options)
    source = open_source(options.model, options.variant, options.latents, options.license)
    print(f"model: {source.weights}{_said(source)}")
    target = options.to[0]
    if target in ("folder", "hub"):
        return _hub(options, source)
    refuse_branch(source, target)
    if target != "onnx":
        refuse_own(source)
    if target in FILES:
        return _file(options, source, target)
    if target == "diffusers":
        _folder(options.output, lambda folder: _diffusers(source, folder))
        print(
            f'from tinyworld.interop.diffusers import TaehvVae\npipe.vae = TaehvVae.from_pretrained("{options.output}")'
        )
        return 0
    from tinyworld.models.taehv.onnx_export import export_onnx

    size = options.height, options.width
    _folder(options.output, lambda folder: export_onnx(source.model(), folder, *size, source.about))
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
        ("--license", options.license, {"comfyui", "folder", "hub", "onnx"}),
    ):
        if given and not needs & set(targets):
            problems.append(f"{flag} is for --to {' or '.join(sorted(needs))}.")
    if problems:
        raise ConfigError(problems)


def _said(source: "Exported") -> str:
    """What is known of it. A label stands for the variant, whose name alone would promise that diffusion model's latents."""
    from tinyworld.interop.families import OWN
    from tinyworld.interop.source import TAEHV

    about = dict(source.about)
    label = source.label() if source.architecture == TAEHV else None
    if label is not None:
        del about["variant"]
        if about.get("latents") == OWN:
            del about["latents"]  # the label says so
    told = [f"{key} {value}" for key, value in about.items() if key != "license"]
    known = ", ".join(([label] if label else []) + told)
    return f": {known}" if known else ""


def _folder(output: Path, write: Callable[[Path], object], said: str = "wrote {}") -> None:
    """A folder that appears when it is complete, and its files told. Raises ConfigError when something has its name."""
    from tinyworld.core.files import staged_folder

    if output.exists() or output.is_symlink():
        from tinyworld.interop.upload_folder import is_written

        send = f" To send it to the hub as it is: tinyworld export {shlex.quote(str(output))} --to hub, with the same flags."
        raise ConfigError(
            f"--output {output} is there already. Give the name of a folder that is not there yet."
            f"{send if is_written(output) else ''}"
        )
    with staged_folder(output) as folder:
        write(folder)
    for file in sorted(path for path in output.rglob("*") if path.is_file()):
        _say(file, said)


def _say(file: Path, said: str = "wrote {}") -> None:
    from tinyworld.report.words import size

    print(f"{said.format(file)} ({size(file.stat().st_size)})")


def _diffusers(source: "Exported", folder: Path) -> None:
    from tinyworld.core.errors import WeightsError
    from tinyworld.interop.diffusers import TaehvVae

    about = source.about
    latents = about.get("latents")
    if latents is None and "recipe" in about:
        raise WeightsError(
            f"{source.weights} kept the latents of the weights that it started from, and nothing says which those are. Give "
            "--latents."
        )
    vae = TaehvVae.from_taehv(source.model(), about.get("variant"), latents=latents, teacher=about.get("teacher"))
    vae.save_pretrained(folder)


def _file(options: argparse.Namespace, source: "Exported", target: str) -> int:
    from tinyworld.interop import public_files

    spec, tensors = source.taehv()
    variant, output = source.about.get("variant"), options.output
    named = bool(output.suffix) and not output.is_dir()
    file = output if named else output / public_files.default_name(target, spec, variant)
    if file.exists() or file.is_symlink():
        raise ConfigError(f"--output {file} is there already. Remove it, or give another name.")
    if named:
        check_writable(file, "--output")
    if target == public_files.PTH:
        public_files.write_pth(file, tensors, spec, source.about)
        _say(file)
        print(f'from taehv import TAEHV  # github.com/madebyollin/taehv\nmodel = TAEHV("{file}")')
        return 0
    dtype = public_files.write_comfyui(file, tensors, spec, source.about)
    _say(file)
    print(f"{str(dtype).removeprefix('torch.')}. Put it into ComfyUI/models/vae and choose it in the node Load VAE.")
    if note := public_files.comfyui_note(spec, source.about):
        print(f"Note: {note}")
    return 0


def _hub(options: argparse.Namespace, source: "Exported") -> int:
    from tinyworld.interop.source import TAEHV
    from tinyworld.interop.upload_folder import is_written, write_folder
    from tinyworld.models.taehv.hub import check_name

    name = options.repo or options.output.name
    if options.repo is not None:
        check_name(options.repo)
    if is_written(source.weights):
        _refuse_changes(options)
    with tempfile.TemporaryDirectory() as scratch:
        folder = options.output or Path(scratch) / "export"
        said = "wrote {}" if options.output else "to upload: {0.name}"
        _folder(folder, lambda staging: write_folder(source, staging, name), said)
        if "hub" in options.to:
            print(_upload(options, source, folder))
    place = options.repo if "hub" in options.to else folder
    if source.architecture == TAEHV:
        print(f'from tinyworld import Taehv\nmodel = Taehv.from_pretrained("{place}")')
    elif "hub" in options.to:
        print(f"hf download {place} --local-dir world  # then tinyworld lift VIDEO … --weights world")
    else:
        print(f"tinyworld lift VIDEO --base WAN_TRANSFORMER --codec WAN_VAE --weights {shlex.quote(str(place))}")
    return 0


def _refuse_changes(options: argparse.Namespace) -> None:
    """Raises ConfigError for what a folder that goes as it is cannot take on."""
    flags = {"--variant": options.variant, "--latents": options.latents, "--license": options.license}
    if given := [flag for flag, value in flags.items() if value is not None]:
        raise ConfigError(
            f"{options.model} was exported before and goes as it is, so {' and '.join(given)} would change nothing. Export its "
            "run again, or edit its README.md."
        )


def _upload(options: argparse.Namespace, source: "Exported", folder: Path) -> str:
    """The address of the commit. Raises what `hub.upload` raises, and then says that a folder which is kept can be sent again."""
    from tinyworld.models.taehv.hub import HubError, upload

    step = source.about.get("step")
    message = f"tinyworld export{'' if step is None else f', step {step}'}"
    try:
        return upload(folder, options.repo, message, options.private, options.revision)
    except HubError as error:
        if options.output is None:
            raise
        revision = "" if options.revision is None else f" --revision {options.revision}"
        flags = f"--repo {options.repo}{' --private' if options.private else ''}{revision}"
        again = f"tinyworld export {shlex.quote(str(folder))} --to hub {flags}"
        raise HubError(f"{error} The folder {folder} is complete; to send it: {again}.") from error
