"""What is exported: a weight file or a run, and what is known of it."""

import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from safetensors import SafetensorError, safe_open

from tinyworld.core.errors import ConfigError, MissingFileError, WeightsError
from tinyworld.core.files import find
from tinyworld.core.journal_lines import JOURNAL, Record, number
from tinyworld.core.variants import VARIANTS, TaehvSpec
from tinyworld.interop.families import CONVENTIONS, FAMILIES, OWN, family_of
from tinyworld.interop.match import check_latents
from tinyworld.interop.public_files import same_but_widths
from tinyworld.models.fantasy.weights import ARCHITECTURE as FANTASY
from tinyworld.models.fantasy.weights import BranchInfo, read_branch
from tinyworld.models.taehv import Taehv, weights
from tinyworld.report.model_label import model_label
from tinyworld.report.read import Run, read_run

TAEHV = weights.ARCHITECTURE
BEST, CONFIG = "best_model", "config.yaml"
LATEST = ("latest.safetensors", "final_model.safetensors")
_STEP = re.compile(r"(?:checkpoint|step)-(\d+)")
Tensors = Mapping[str, Any]


@dataclass(frozen=True)
class Exported:
    """weights: the folder or file that is read. architecture: taehv or fantasyworld. run: where it was trained, if that is
    at hand. about: what is known of a TAEHV (`models.taehv.weights.ABOUT`)."""

    weights: Path
    architecture: str
    run: Run | None
    about: dict[str, Any]

    def taehv(self) -> tuple[TaehvSpec, Tensors]:
        """Architecture and tensors, in the file's number type; quantised ones are multiplied out to fp32."""
        return weights.load(self.weights, _expected(self.weights, self.about.get("variant")))

    def model(self) -> Taehv:
        """In fp32, on the CPU."""
        spec, tensors = self.taehv()
        return Taehv.assembled(spec, {key: tensor.float() for key, tensor in tensors.items()})

    def label(self) -> str | None:
        """What a TAEHV is called where people read of it; None where nothing says which public variant's layout it has."""
        variant, (spec, _) = self.about.get("variant"), self.taehv()
        if variant is None:
            return None
        return model_label(variant, spec.encoder_width, spec.decoder_widths, self.about.get("latents") == OWN)

    def branch(self) -> tuple[Tensors, BranchInfo]:
        """Tensors of a geometry branch, and what its file says."""
        return read_branch(self.weights)


def open_source(
    path: Path, variant: str | None = None, latents: str | None = None, license_name: str | None = None
) -> Exported:
    """What `path` names: a run (its best model is taken, else its newest weights), or a folder or file of weights.

    variant, latents, license_name: known better than the files do. Raises MissingFileError, WeightsError, ConfigError.
    """
    place = find(path, what="model or run", key="MODEL")
    chosen = _of_run(place) if (place / CONFIG).is_file() or (place / JOURNAL).is_file() else place
    architecture = _architecture(chosen)
    folder = next((parent for parent in (chosen, *chosen.parents[:2]) if (parent / JOURNAL).is_file()), None)
    run = read_run(folder) if folder is not None else None
    given = {"variant": variant, "latents": latents, "license": license_name}
    about: dict[str, Any] = {"license": license_name, "step": _step(chosen, run)}
    if architecture == TAEHV:
        about = _about(chosen, run, {key: value for key, value in given.items() if value is not None})
    return Exported(chosen, architecture, run, {key: value for key, value in about.items() if value is not None})


def _about(place: Path, run: Run | None, given: dict[str, str]) -> dict[str, Any]:
    """What is known of a TAEHV: by its file, by its run, by the caller; the later ones know it better. Raises ConfigError."""
    variant, step = given.get("variant"), _step(place, run)
    if variant is not None:
        family_of(variant)
    about: dict[str, Any] = weights.read_about(place) | (_of_config(run) if run else {})
    if step is not None:
        about["step"] = step
    elif str(about.get("step")).isdecimal():
        about["step"] = int(about["step"])
    about = _fitting(place, about | given)
    taught = about.get("teacher")
    if variant is None and about["variant"] and taught not in (None, FAMILIES[about["variant"]].vae_class):
        about["variant"] = None  # a name that was given for its sizes: its latents are another VAE's
    if variant not in (None, about["variant"]):
        raise ConfigError(f"--variant {variant}, but {place} states another architecture than {variant} has.")
    if about["variant"] and about["latents"] in CONVENTIONS:
        check_latents(FAMILIES[about["variant"]], about["latents"])
    return about


def _of_run(folder: Path) -> Path:
    names = (BEST, *LATEST)
    for name in names:
        if (folder / name).exists():
            return folder / name
    raise MissingFileError(f"{folder} is a run folder without weights yet: none of {', '.join(names)} is there.")


def _architecture(place: Path) -> str:
    """Published files say nothing: they are TAEHVs."""
    file = place / weights.WEIGHTS_NAME if place.is_dir() else place
    if place.is_dir() and (place / "world.json").is_file():
        raise WeightsError(
            f"{place} is a video transformer, which has no other form to export: its folder is what diffusers and tinyworld "
            "load. TAEHVs and geometry branches can be exported."
        )
    if file.suffix != ".safetensors" or not file.is_file():
        return TAEHV
    try:
        with safe_open(str(file), framework="pt") as content:
            stated = (content.metadata() or {}).get("architecture", TAEHV)
    except (SafetensorError, OSError) as error:
        raise WeightsError(f"{file.name} is not a complete safetensors file ({error}). Copy it again.") from error
    if stated not in (TAEHV, FANTASY):
        raise WeightsError(f"{file} is of the architecture {stated!r}; TAEHVs and geometry branches can be exported.")
    return stated


def _step(place: Path, run: Run | None) -> int | None:
    """The step of the weights, where the run says it."""
    match = _STEP.match(place.name if place.is_dir() else place.stem) or _STEP.match(place.parent.name)
    if match:
        return int(match[1])
    if run is None:
        return None
    if place.name == BEST or place.parent.name == BEST:
        return run.best_step
    return run.last_step if place.name in LATEST else None


def _of_config(run: Run) -> dict[str, Any]:
    """What the settings of a run say. One half that learned beside the other, frozen one speaks the parent's latents still."""
    if not run.config:
        return {}
    variant, parent = run.setting("model", "variant"), run.setting("model", "pretrained_model_path")
    found: dict[str, Any] = {"variant": variant, "recipe": run.config.get("name")}
    if run.setting("teacher", "use_ref_vae"):
        stated = start_of(run).get("latents", run.setting("teacher", "latent_convention"))
        known = FAMILIES.get(str(variant))
        found["latents"] = stated if stated not in (None, "auto") else known and known.latents
        found["teacher"] = teacher_of(run)
    elif parent is None or run.setting("model", "train_part") == "both":
        found["latents"] = OWN
    else:
        found |= _of_parent(parent, variant)
    return {key: value for key, value in found.items() if value is not None}


def _of_parent(parent: str, variant: str | None) -> dict[str, Any]:
    """The latents of the weights that a run started from; {} where they are gone or do not say it."""
    try:
        about, stated = weights.read_about(parent), weights.states_architecture(parent)
    except (MissingFileError, WeightsError):
        return {}  # the weights of the run may say it still
    if not stated and variant in FAMILIES:  # published weights
        return {"latents": FAMILIES[variant].latents}
    return {key: about[key] for key in ("latents", "teacher") if key in about}


def start_of(run: Run) -> Record:
    """The journal's last start event, {} when there is none."""
    return run.lives[-1].start if run.lives else {}


def teacher_of(run: Run | None) -> str | None:
    """Class of the reference VAE that taught a run."""
    stated = start_of(run).get("teacher") if run is not None else None
    return None if stated is None else str(stated)


def _expected(place: Path, variant: str | None) -> TaehvSpec | None:
    """What a file that states no architecture is taken for; nothing for one that does, whose widths may be its own."""
    if variant is None or weights.states_architecture(place):
        return None
    return VARIANTS[variant]


def _fitting(place: Path, about: dict[str, Any]) -> dict[str, Any]:
    """Without a variant that the architecture is not of, or that nobody named but only one can be. Raises ConfigError."""
    spec, _ = weights.load(place, _expected(place, about.get("variant")))
    fitting = [name for name, known in VARIANTS.items() if same_but_widths(known, spec)]
    named = about.get("variant")
    if named is None and len({FAMILIES[name] for name in fitting}) == 1:
        named = fitting[0]
    elif named not in fitting:
        named = None
    latents = about.get("latents")
    if (
        latents is None and named and "recipe" not in about
    ):  # as public weights; one that was trained here may be another
        latents = FAMILIES[named].latents
    return about | {"variant": named, "latents": latents}


def at_step(run: Run, step: int | None) -> dict[str, Any] | None:
    """The validation of exactly these weights."""
    return next((entry for entry in run.validations if number(entry.get("step")) == step), None)


def refuse_branch(source: Exported, target: str) -> None:
    """Raises ConfigError: what only a TAEHV can become."""
    if source.architecture != TAEHV:
        raise ConfigError(
            f"{source.weights} is a geometry branch; --to {target} is for TAEHVs. A branch goes --to folder or --to hub."
        )


def refuse_own(source: Exported) -> None:
    """Raises ConfigError for latents that nothing but the model itself speaks: what only a diffusion model's can become."""
    if source.about.get("latents") != OWN:
        return
    started = source.run is not None and source.run.setting("model", "pretrained_model_path") is not None
    kept = " If they are still those of the weights that it started from, give --latents." if started else ""
    raise ConfigError(
        f"{source.weights} learned without a reference VAE: its latents are its own, which no diffusion model speaks: use "
        f"--to folder or --to onnx.{kept} To learn those of a diffusion model: teacher.use_ref_vae=true."
    )
