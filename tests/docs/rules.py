"""The tables of the documentation's test, each in one place: what words of a page stand for, which flags make a command
small, what a command may end with, and what is not run, with the reason.

A new page needs an entry only where it names something the sandbox (`tests/docs/sandbox.py`) does not have.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field

Flags = Mapping[str, object]

NOT_RUN: tuple[tuple[str, str], ...] = (
    (r"(sudo )?(apt|apt-get|brew|conda) ", "changes the machine"),
    (r"(pip|pipx|uv|python3? -m pip|\S*/pip) install", "needs the package index; `make setup` and CI run it"),
    (r"python3? -m venv|source |\. ", "makes or enters an environment; the tests run inside one"),
    (r"git (clone|checkout|pull)|(hf|huggingface-cli) download|wget |curl -\S* ?https?://(?!127|localhost)", "needs a network"),
    (r"docker |singularity |kubectl |cd docker", "needs a container engine; hadolint and CI look at the files"),
    (r"(squeue|scancel|scontrol|sacct|srun)\b", "needs a cluster"),
    (r"tensorboard ", "another project's server; what it reads is written by every `train` here"),
    (r"(bash (train_taehv_h100|auto_recovery_train)\.sh|python inference\.py)", "the guides' own command, left column"),
    (r"(nohup bash …|tail -f logs/|torchrun … train\.py|ls checkpoint-500/)", "the guides' own, left column"),
    (r"tinyworld export .*--to hub", "uploads; tests/interop/test_hub.py does it with a stand-in of the hub"),
    (r"python3? -m tests\.long\.", "long by intent; tests/long has a short form of it"),
)  # fmt: skip
"""Pattern at the beginning of a command, and why it is not executed. Nothing else is left out."""

ONLY_PARSED: tuple[tuple[str, str], ...] = (
    (
        r"tinyworld export .*--to onnx",
        "tracing takes about a minute; the tests of the export itself run what it writes",
    ),
)
"""Commands whose arguments are read by the real parser and which are then not run, and why."""
ONLY_COMPILED: tuple[tuple[str, str], ...] = (("onnxruntime", "needs the networks of such an export"),)
"""A word in a Python block that is compiled and not run, and why."""

SUBSTITUTIONS: dict[str, tuple[tuple[str, str], ...]] = {
    "README.md": (
        (r"--weights output/<run>", "--weights output/world2"),
        (r"output/<run>/step-20000", "output/world1/step-20000"),
    ),
    "docs/data.md": (
        (r"data verify DIR", "data verify D"),
        (r"data cache RECIPE$", "data cache fantasy_stage1 …"),
        (r"prepare tum FOLDER", "prepare tum tum"),
        (r"prepare 7scenes FOLDER", "prepare 7scenes chess"),
        (r"prepare re10k CAMERAS VIDEOS", "prepare re10k cameras videos"),
    ),
    "docs/fantasy.md": (
        (r"prepare tum FOLDER", "prepare tum tum"),
        (r"-m tinyworld train …", "-m tinyworld train fantasy_stage1 …"),
        (r"\bRUN\b", "output/world1"),
    ),
    "docs/from-the-guides.md": (
        (r"^tinyworld check … --gpu", "tinyworld check fantasy_stage1 … --gpu"),
        (r"^tinyworld train … >", "tinyworld train taehv_h100 … >"),
        (r"^nohup tinyworld train …", "nohup tinyworld train taehv_h100 …"),
        (r"^tinyworld supervise … --processes", "tinyworld supervise fantasy_stage1 … --processes"),
        (r"nproc_per_node 8 -m tinyworld train …", "nproc_per_node 8 -m tinyworld train taehv_h100 …"),
        (r"(?<!--output_path )(?<= )O(?=[ /]|$)", "output/world1"),
    ),
    "docs/benchmarks.md": (
        (r"\bBEST_MODEL\b", "demo_sized"),
        (r"quality_table.py output/…", "quality_table.py output/run"),
        (r"--model NAME=PATH …", "--model one=output/run/best_model --model two=my_taehv"),
        (r"evaluate fantasy RUN", "evaluate fantasy output/world1 …"),
    ),
    "docs/interoperability.md": (
        (r"export MODEL --to …", "export --help"),
        (r"compress --keep$", "compress --help"),
        (r"export output/my_run --to (comfyui|pth)", r"export wide/taew2_1.pth --to \1 --variant taew2_1"),
        (r"output/my_run", "output/run"),
        (r"lift VIDEO --weights world …", "lift VIDEO --weights output/world2 … --output lifted"),
    ),
    "docs/report.md": (
        (r"output/plain output/wide( …)?", "output/run output/trial"),
        (r"output/demo", "output/run"),
    ),
    "docs/taehv.md": ((r"…/config.yaml", "output/run/config.yaml"),),
    "*": (
        (r'"(the message|MESSAGE)"', '"CUDA out of memory"'),
        (r"output/<trial>/best_model", "output/trial/best_model"),
        (r"output/(<run>|…)|output/\*|<run>", "output/run"),
        (r"data cache RECIPE$", "data cache taehv_h100 …"),
        (r"\bRECIPE( \[--KEY VALUE …\])?( …)?(?= |$)", "taehv_h100 --data_root my_clips --ref_vae_path CogVideoX-2b"),
        (r"\[--(\w+) (\w+)\]", r"--\1 \2"),
        (r"\bRUN\b", "output/run"),
        (r"--latent_cache DIR", "--latent_cache latents"),
        (r"\bDIR\b", "my_clips"),
        (r"VIDEO…|\bVIDEO\b", "film.mp4"),
        (r"--model …", "--model output/run/best_model"),
        (r"\bMODEL\b", "output/run/best_model"),
        (r"\b(FILE|FILE\.json)\b", "numbers.json"),
        (r"\bFOLDER\b", "new"),
        (r"compress output/run/best_model(?=.* --keep)", "compress demo_sized"),  # has channels to take away
    ),
}
"""Page → (pattern, what stands for it in the sandbox), first the page's own, then those of all pages, in order."""

EXIT_CODES: tuple[tuple[str, tuple[int, ...]], ...] = (
    (r"check .*--n_frames 19", (2,)),  # the page says that it is refused
    (r"doctor output", (0, 2)),  # 2: nothing is wrong with the run, or its trouble is not known
)
"""Pattern in a command → the exit codes that it may end with; 0 for all others."""

SMALL_TAEHV: Flags = {
    "height": 32, "width": 32, "train_batch_size": 1, "gradient_accumulation_steps": 1, "max_train_steps": 2,
    "lr_warmup_steps": 1, "validation_steps": 2, "checkpointing_steps": 1, "checkpoints_total_limit": 2,
    "validation_height": 32, "validation_width": 32, "num_validation_samples": 1, "num_preview_clips": 1, "num_workers": 0,
    "frame_cache_mb": 16, "held_out_fraction": 0.3, "device": "cpu", "cpu_threads": 1, "seraena_buffer_mb": 1,
    "seraena_width": 4, "seraena_start_step": 0, "seraena_ramp_steps": 1,
}  # fmt: skip
"""Two steps on clips of 32 x 32 with one validation, a checkpoint per step and an adversary from the first step on."""
NARROW: Flags = {"encoder_width": 8, "decoder_widths": "16,8,8,8"}
"""Where a command names no widths itself."""
SMALL_WORLD: Flags = {
    "height": 32, "width": 48, "num_frames": 5, "train_batch_size": 1, "gradient_accumulation_steps": 1, "max_train_steps": 2,
    "lr_warmup_steps": 1, "log_steps": 1, "validation_steps": 2, "checkpointing_steps": 1, "checkpoints_total_limit": 2,
    "num_validation_samples": 1, "num_preview_clips": 1, "validation_sigmas": "0.3", "num_workers": 0, "frame_cache_mb": 16,
    "held_out_fraction": 0.3, "device": "cpu", "cpu_threads": 1,
}  # fmt: skip
"""The same for worlds, with clips of 32 x 48 x 5."""
IF_GIVEN: Flags = {"global_batch_size": 1, "cached_crops": 1, "pause": 0, "validation_frames": 12}
"""What a command of a recipe is only made small in where it says it."""

ELIDED_TAEHV: Flags = {"data_root": "my_clips"}
ELIDED_DISTIL: Flags = {"ref_vae_path": "CogVideoX-2b"}
ELIDED_WORLD: Flags = {"dataset_base_path": "D", "codec_path": "V"}
ELIDED_BRANCH: Flags = {"backbone_path": "W", "condition_cache": "C"}
ELIDED_STAGE2: Flags = {"stage1_checkpoint": "output/world1/step-20000.safetensors"}
ELIDED_CACHE: tuple[Flags, Flags] = ({"latent_cache": "latents"}, {"encoders_path": "E", "condition_cache": "C"})
"""For `data cache` of a TAEHV and of a world."""
ELIDED_MODEL: Flags = {"base": "W", "weights": "output/world2", "codec": "V", "encoders": "E"}
ELIDED_OUTPUT: Flags = {"output": "made"}
"""What an ellipsis in a command stands for: the flags that name data and weights, as far as the command has none of them."""


@dataclass(frozen=True)
class Small:
    """How a command that takes no recipe is made small: flags that are set, and flags that are changed if given."""

    always: Flags = field(default_factory=dict)
    given: Flags = field(default_factory=dict)


_CLIP: Flags = {"frames": 5, "height": 32, "width": 48}
COMMANDS: dict[str, Small] = {
    "generate": Small({"steps": 1, "device": "cpu"}, {**_CLIP, "preview_every": 1}),
    "lift": Small({"device": "cpu"}, _CLIP),
    "evaluate fantasy": Small({}, {"steps": 1, "seeds": 1, "max_clips": 1, **_CLIP}),
    "evaluate fantasy --follow": Small({"steps": 1, "seeds": 1}, _CLIP),
    "export": Small({}, {"height": 32, "width": 48}),
    "data rooms": Small({"scenes": 1, **_CLIP}),
    "view": Small({"no_open": True}),
}
"""Beginning of a command → its small form; the longest that fits counts."""

BENCHMARKS: dict[str, Flags] = {
    "checkpoint_stall": {"batch": 1, "size": 32, "every": 1, "saves": 1},
    "compare_models": {},
    "decode": {"latents": 1, "height": 16, "width": 16, "repeats": 1, "threads": 1},
    "encode": {"frames": 4, "height": 16, "width": 16, "repeats": 1, "threads": 1},
    "quality_table": {},
    "train_teacher": {"minutes": 0.001, "base_dim": 4, "every": 1},
}  # fmt: skip
"""Benchmark → its smallest size."""
TOO_LARGE: dict[str, str] = {
    "compression": "six forms of a full-width model, several times",
    "fantasy_full_size": "1.6 billion weights",
    "fantasy_stage1": "30 blocks of a quarter of the published width, in four forms",
    "latent_cache": "a VAE of Wan's size",
    "long_decode": "a process per length",
    "reconstruct_memory": "a process per form",
    "stream": "three full-width streams, ten seconds at any picture size",
    "train_step": "a process per form",
}
"""Benchmarks that take more than some seconds at any size, and why: their arguments are parsed by their own parser."""

PYTHON_NAMES: dict[str, str] = {
    "README.md": "import torch; frames = torch.rand(1, 7, 3, 24, 40)",
    "docs/fantasy.md": """
from tests.clips import moving_pattern
base, weights, codec, encoders = 'W', 'output/world2', 'V', 'E'
frames = moving_pattern(5, 32, 48, 0)
""",
    "docs/interoperability.md": """
from tests.interop.pipelines import embeds, wan
from tests.teachers import build_vae
from tinyworld import Taehv
""",
}
"""Page → code that gives the names which its Python blocks take for granted."""
PYTHON_SMALL: tuple[tuple[str, str], ...] = (
    (r'device="cuda"', 'device="cpu"'),
    (r"num_frames=21, height=336, width=592", "num_frames=5, height=32, width=48, num_inference_steps=1"),
    (r"output/<run>", "output/run"),
    (r"WanPipeline\.from_pretrained\(.*\)", 'wan(build_vae("wan"))'),
    (r"output/my_run/best_model", "wide/taew2_1.pth"),
    (r'\.to\("cuda", torch\.bfloat16\)', ""),
    (r"output/(demo|plain)", "output/run"),
    (r"output/wide", "output/trial"),
    (
        r'pipe\("a cat on a sofa"\)',
        "pipe(prompt_embeds=embeds(1, 8, 32), negative_prompt_embeds=embeds(1, 8, 32, seed=6), "
        "num_frames=9, height=32, width=32, num_inference_steps=1)",
    ),
    (r'"taeltx_2.pth", like=pipe.vae', '"wide/taew2_1.pth", like=build_vae("wan")'),
    (r"\.push_to_hub\(.*\)", ".push_to_hub"),  # tests/interop/test_hub.py calls it
    (r'"max_train_steps": 200', '"max_train_steps": 20'),
    (r'_steps": 100', '_steps": 10'),
)
"""What Python blocks are made small by, and what stands for pipelines that would be downloaded."""


def as_flags(values: Flags) -> list[str]:
    """`--key=value`, or the flag alone for True."""
    return [f"--{key}" if value is True else f"--{key}={value}" for key, value in values.items()]


def flag_names(words: list[str]) -> set[str]:
    return {word[2:].partition("=")[0] for word in words if word.startswith("--")}


def with_values(words: list[str], values: Flags, append: bool = True, replace: bool = True) -> list[str]:
    """The words with other values of flags that they have (`replace`), and with the flags that they lack (`append`)."""
    found, names, skip = [], flag_names(words), False
    for position, word in enumerate(words):
        if skip:
            skip = False
            continue
        name, equals, _ = word[2:].partition("=") if word.startswith("--") else ("", "", "")
        if replace and name in values:
            found += as_flags({name: values[name]})
            following = words[position + 1 : position + 2]
            skip = not equals and bool(following) and not following[0].startswith("--")
        else:
            found.append(word)
    lacking = {name: value for name, value in values.items() if name not in names} if append else {}
    return found + as_flags(lacking)
