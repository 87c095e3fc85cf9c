"""Each recorded message leads to its error, also where several share their words; numbers decide."""

import re
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest

from tinyworld.core.frames import divisors
from tinyworld.doctor import diagnose
from tinyworld.doctor.diagnose import CAUSES
from tinyworld.doctor.modules import EXTRAS, NEEDED
from tinyworld.doctor.recorded import RECORDED

ORIGINALS = {
    1: "FileNotFoundError: [Errno 2] No such file or directory: '../checkpoints/taecvx.pth'",
    2: "AssertionError: zero stage 2 requires an optimizer",
    3: "ValueError: value should be one of int, float, str, bool, or torch.Tensor",
    4: "RuntimeError: Input type (float) and bias type (c10::BFloat16) should be the same",
    5: "torch.distributed.DistBackendError: Watchdog caught collective operation timeout",
    6: "TypeError: isfinite(): argument 'input' (position 1) must be Tensor, not float",
    7: "Checkpoint目录被创建但完全为空",
    8: "Signal 15 (SIGTERM) received by PID 2766193\ntorch.distributed.elastic.multiprocessing.errors.ChildFailedError",
    9: "ValueError: Tried to find output/2025-09-30_12-38-46/checkpoint-5500 but folder does not exist",
    10: 'AssertionError: zero stage 2 requires an optimizer\nFile "training/taehv_train.py", line 220, in main\n'
    "  seraena = accelerator.prepare(seraena)",
    11: "Seraena training failed: shape '[-1, 15, 3, 128, 128]' is invalid for input of size 1179648, skipping "
    "adversarial loss",
    12: "RuntimeError: The size of tensor a (17) must match the size of tensor b (16) at non-singleton dimension 1\n\n"
    "UserWarning: Using a target size (torch.Size([1, 16, 3, 480, 480])) that is different to the \n"
    "input size (torch.Size([1, 17, 3, 480, 480])). This will likely lead to incorrect results",
    13: "WARNING - __main__ - Frame count 20 is not divisible by n_seraena_frames 8\nWARNING - __main__ - Shape mismatch: "
    "decoded torch.Size([1, 17, 3, 480, 480]) vs seraena_target torch.Size([1, 16, 3, 480, 480])",
    14: "RuntimeError: The size of tensor a (16) must match the size of tensor b (13) at non-singleton dimension 1\n"
    "UserWarning: Using a target size (torch.Size([2, 13, 3, 480, 480])) that is different to the input size "
    "(torch.Size([2, 16, 3, 480, 480]))",
    15: "WARNING - Frame count 19 is not divisible by n_seraena_frames 4",
    16: "WARNING - Seraena training failed: The size of tensor a (38) must match the size of tensor b (32) at "
    "non-singleton dimension 0, skipping adversarial loss",
}


@pytest.mark.parametrize("number", ORIGINALS)
def test_each_original_message_leads_to_its_error_and_to_no_other(number: int) -> None:
    assert {finding.cause.guide_error for finding in diagnose(ORIGINALS[number])} == {number}


def test_all_messages_in_one_log_are_told_apart() -> None:
    found = diagnose("\n".join("\n".join([text, *["progress"] * 80]) for text in ORIGINALS.values()))
    assert {finding.cause.guide_error for finding in found} == set(ORIGINALS)
    assert found[-1].cause.guide_error == 8  # what others bring about comes last


def _mismatch(decoded: int, target: int) -> str:
    return f"The size of tensor a ({decoded}) must match the size of tensor b ({target}) at non-singleton dimension 1"


@pytest.mark.parametrize("n_frames", range(4, 60))
def test_decoded_and_target_tell_which_law_was_broken(n_frames: int) -> None:
    """Error 12 for every count that fills no whole latents; its n_frames is read back from the two sizes."""
    decoded, target = -(-n_frames // 4) * 4 - 3, n_frames - 3
    if n_frames % 4:
        (finding,) = diagnose(_mismatch(decoded, target))
        assert finding.cause.guide_error == 12 and f"n_frames was {n_frames}:" in finding.why
        assert f"--n_frames {-(-n_frames // 4) * 4} " in finding.now
        advised = int(re.findall(r"reference VAE (\d+)", finding.now)[0])
        assert advised % 8 == 4 and abs(advised - n_frames) < 8
    elif n_frames % 8 == 0:
        (finding,) = diagnose(_mismatch(n_frames, target))
        assert finding.cause.guide_error == 14


@pytest.mark.parametrize("sizes", [(17, 12), (16, 14), (3, 640), (20, 17)])
def test_sizes_that_no_frame_law_gives_are_not_explained(sizes: tuple[int, int]) -> None:
    assert diagnose(_mismatch(*sizes)) == []


@pytest.mark.parametrize("batch", [1, 2, 5])
@pytest.mark.parametrize("frames", [8, 16, 24])
def test_clips_and_frames_are_read_from_a_seraena_context(batch: int, frames: int) -> None:
    text = f"The size of tensor a ({batch * (frames + 3)}) must match the size of tensor b ({batch * frames}) "
    (finding,) = diagnose(text + "at non-singleton dimension 0")
    assert finding.cause.guide_error == 16
    assert f"{batch} clips of {frames + 3} frames" in finding.why and f"{batch} clips of {frames}." in finding.why


def test_a_whole_number_of_clips_is_no_grouping_error() -> None:
    shape = "shape '[-1, 15, 3, 128, 128]' is invalid for input of size "
    assert diagnose(shape + str(2 * 15 * 3 * 128 * 128)) == []
    (finding,) = diagnose(shape + "1179648")
    assert "1.6 clips of 15 frames" in finding.why


def test_advice_on_group_sizes_is_true() -> None:
    (finding, *_) = diagnose(ORIGINALS[13])
    for count, sizes in re.findall(r"has (\d+)(?: decoded frames)? \(groups of ([\d or]+)\)", finding.now):
        assert {int(size) for size in sizes.split(" or ")} <= set(divisors(int(count)))
    assert "17 decoded frames" in finding.why


OTHERS = {
    "gpu-memory": "torch.OutOfMemoryError: CUDA out of memory. Tried to allocate 2.00 GiB. GPU 0 has a total capacity",
    "shared-memory": "RuntimeError: DataLoader worker (pid 42) is killed by signal: Bus error. It is possible that "
    "dataloader's workers are out of shared memory.",
    "worker-killed": "RuntimeError: DataLoader worker (pid 4242) is killed by signal: Killed.",
    "disk-full": "OSError: [Errno 28] No space left on device: 'output/run/checkpoint-500/model.safetensors'",
    "non-finite": "WARNING Loss is not finite: nan, skipping step",
    "black-output": "PSNR只有4.2",
    "shifted-frames": "validation psnr: 10.0, ssim: 0.19",
    "gated-model": "huggingface_hub.errors.GatedRepoError: 401 Client Error.",
    "hub-unreachable": "OSError: We couldn't connect to 'https://huggingface.co' to load the files",
    "wrong-weight-format": "_pickle.UnpicklingError: invalid load key, '\\xe8'.",
    "other-architecture": "RuntimeError: Error(s) in loading state_dict for TAEHV:",
    "broken-video": "av.error.InvalidDataError: [Errno 1094995529] Invalid data found when processing input: 'a.mp4'",
    "compiler": "RuntimeError: Ninja is required to load C++ extensions",
    "gpu-unusable": "AssertionError: Torch not compiled with CUDA enabled",
    "port-taken": "The server socket has failed to bind to [::]:29500 (errno: 98 - Address already in use).",
    "nccl": "torch.distributed.DistBackendError: NCCL error in: ProcessGroupNCCL.cpp:1275, unhandled system error",
    "opencv-libraries": "ImportError: libGL.so.1: cannot open shared object file: No such file or directory",
    "torchvision": "RuntimeError: operator torchvision::nms does not exist",
    "old-weights": "args.reconstruction_loss_weight = 0.1",
    "reference-vae-noise": "Failed to load the reference VAE, using random latents",
    "folder-in-use": "output/run is in use by another training process. Wait for it",
    "missing-module": "ModuleNotFoundError: No module named 'xformers'",
    "worker-ended": "torch.distributed.elastic.multiprocessing.errors.ChildFailedError:",
}


@pytest.mark.parametrize("slug", OTHERS)
def test_other_common_messages_are_known(slug: str) -> None:
    assert [finding.cause.slug for finding in diagnose(OTHERS[slug])] == [slug]


def test_every_cause_has_a_message_in_these_tests() -> None:
    known = {finding.cause.slug for text in [*ORIGINALS.values(), *OTHERS.values()] for finding in diagnose(text)}
    assert {cause.slug for cause in CAUSES} == known
    assert {cause.guide_error for cause in RECORDED} == set(ORIGINALS)


@pytest.mark.parametrize(
    "text",
    [
        "NaN loss", "loss is nan", "Loss: NaN", "loss=nan", "the loss became NaN", "loss went to inf", "NaN in the gradients",
        "step 40 | losses are NaN", "grad_norm: nan",
    ],
)  # fmt: skip
def test_a_broken_number_is_known_in_many_words(text: str) -> None:
    (finding,) = diagnose(text)
    assert finding.cause.slug == "non-finite"
    assert "tinyworld replay" in finding.now and "--learning_rate" in finding.now and "capsules/" in finding.prevented


@pytest.mark.parametrize(
    "text", ["loss 0.2, nanosecond timer", "no NaN loss was seen", "loss info", "gradients: infer"]
)
def test_words_that_only_look_like_a_broken_number(text: str) -> None:
    assert diagnose(text) == []


@pytest.mark.parametrize(
    ("module", "install"),
    [
        ("xformers", "pip install xformers,"),
        ("deepspeed", "pip install 'tinyworld[deepspeed]'"),
        ("transformers", "pip install 'tinyworld[fantasy]'"),
        ("onnx", "pip install 'tinyworld[onnx]'"),
        ("yaml", "pip install tinyworld,"),
        ("sklearn", "pip install scikit-learn,"),
        ("torch._six", "pip install -U torch,"),
    ],
)
def test_a_missing_module_is_named_with_what_to_install(module: str, install: str) -> None:
    (finding,) = diagnose(f"Traceback\nModuleNotFoundError: No module named '{module}'")
    assert finding.cause.slug == "missing-module" and install in finding.now and f"has no {module}." in finding.why


def test_a_missing_module_is_not_named_beside_a_cause() -> None:
    """Libraries note what they do without; such a note explains nothing where something else does."""
    text = f"Triton is not available: No module named 'triton'\n{OTHERS['gpu-memory']}"
    assert [finding.cause.slug for finding in diagnose(text)] == ["gpu-memory"]


def test_every_package_that_tinyworld_may_need_is_known() -> None:
    """The tables of modules follow pyproject.toml."""
    project = tomllib.loads((Path(__file__).parents[2] / "pyproject.toml").read_text())["project"]

    def names(needs: list[str]) -> set[str]:
        return {re.split(r"[\[>=<]", need)[0].lower().replace("-", "_") for need in needs}

    imports = {"pyyaml": "yaml", "pillow": "pil", "mkdocs_material": "material"}
    assert {imports.get(name, name) for name in names(project["dependencies"])} == {name.lower() for name in NEEDED}
    optional = {extra: names(needs) for extra, needs in project["optional-dependencies"].items() if extra != "dev"}
    known = {extra: set(modules) - {"multipart"} for extra, modules in EXTRAS.items()}
    assert {extra: {imports.get(name, name) for name in needs} for extra, needs in optional.items()} == known


def test_only_the_newest_psnr_counts() -> None:
    assert diagnose("step 100: psnr 4.2\nstep 1000: psnr 26.1") == []
    line = "validation at step 100: psnr {}  ssim 0.2  (baseline: psnr 4.4  ssim 0.3)"
    assert diagnose(line.format(14.0)) == []
    assert [finding.cause.slug for finding in diagnose(line.format(4.1))] == ["black-output"]
    assert diagnose("gate: PSNR > 25 dB, improvement +4.2 dB") == []


def test_the_newest_line_is_shown_with_its_number_also_behind_a_progress_bar() -> None:
    first, last = "CUDA out of memory. Tried 1 GiB", "CUDA out of memory. Tried 2 GiB"
    (finding,) = diagnose(f"{first}\r 10%\r 20%\r\n{last}\nend", "train.log")
    assert (finding.evidence, finding.place) == (last, "train.log line 4")


def test_a_consequence_is_not_named_beside_its_cause() -> None:
    text = f"{OTHERS['worker-ended']}\n{OTHERS['gpu-memory']}\n{ORIGINALS[5]}"
    assert [finding.cause.slug for finding in diagnose(text)] == ["gpu-memory", "collective-timeout"]


def test_unknown_words_are_not_explained() -> None:
    assert diagnose("ZeroDivisionError: division by zero") == []
    assert diagnose("") == []


def test_every_text_can_be_filled_in() -> None:
    for text in [*ORIGINALS.values(), *OTHERS.values()]:
        for finding in diagnose(text):
            for words in (finding.why, finding.prevented, finding.now, finding.cause.title):
                assert words and "{" not in words


def test_the_doctor_needs_no_torch() -> None:
    code = "import sys, tinyworld.doctor; sys.exit(bool({'torch', 'numpy', 'pydantic'} & set(sys.modules)))"
    assert subprocess.run([sys.executable, "-c", code]).returncode == 0
