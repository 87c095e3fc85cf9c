"""LPIPS, the learned perceptual distance (Zhang et al., CVPR 2018, arXiv:1801.03924), version 0.1, in plain torch.nn.

Structure, feature layers and input constants are facts of the authors' reference, github.com/richzhang/
PerceptualSimilarity. The linear heads are the ones that torchmetrics ships; the ImageNet backbone is the user's file in
torchvision's format (`vgg16-*.pth`, `alexnet-*.pth`, or the same as safetensors), or a repository of the Hugging Face
hub with such a file (timm/vgg16.tv_in1k holds torchvision's VGG16). Nothing is downloaded but what the user names.
"""

import importlib.util
import re
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import torch
from safetensors.torch import load_file
from torch import Tensor, nn
from torch.nn import functional as F

from tinyworld.core.errors import MissingFileError, WeightsError

INPUT_SHIFT = (-0.030, -0.088, -0.188)
INPUT_SCALE = (0.458, 0.448, 0.450)
"""Per RGB channel, the scaling layer of the reference: it sees (2x - 1 - shift) / scale of a picture x in [0, 1]."""
HUB_FILE = "model.safetensors"
_HUB_ID = re.compile(r"\w[\w.-]*/\w[\w.-]*")
_FILE_ENDINGS = (".pth", ".pt", ".safetensors")


@dataclass(frozen=True)
class _Stack:
    layers: nn.Sequential
    taps: tuple[int, ...]
    channels: tuple[int, ...]
    smallest: int


def _vgg16() -> _Stack:
    """13 convolutions in five stages; the taps are the last ReLU of each stage (relu1_2 … relu5_3)."""
    layers: list[nn.Module] = []
    channels = 3
    for width in (64, 64, 0, 128, 128, 0, 256, 256, 256, 0, 512, 512, 512, 0, 512, 512, 512):
        if width:
            layers += [nn.Conv2d(channels, width, 3, padding=1), nn.ReLU()]
            channels = width
        else:
            layers.append(nn.MaxPool2d(2, 2))
    return _Stack(nn.Sequential(*layers), (3, 8, 15, 22, 29), (64, 128, 256, 512, 512), smallest=16)


def _alexnet() -> _Stack:
    """Five convolutions; the taps are their ReLUs."""
    layers = nn.Sequential(
        *(nn.Conv2d(3, 64, 11, stride=4, padding=2), nn.ReLU(), nn.MaxPool2d(3, 2)),
        *(nn.Conv2d(64, 192, 5, padding=2), nn.ReLU(), nn.MaxPool2d(3, 2)),
        *(nn.Conv2d(192, 384, 3, padding=1), nn.ReLU()),
        *(nn.Conv2d(384, 256, 3, padding=1), nn.ReLU()),
        *(nn.Conv2d(256, 256, 3, padding=1), nn.ReLU()),
    )
    return _Stack(layers, (1, 4, 7, 9, 11), (64, 192, 384, 256, 256), smallest=31)


class LPIPS(nn.Module):
    """Perceptual distance between pictures: 0 for equal ones, about 0.1 for a good and 0.5 for a poor reconstruction.

    path_or_hub: weights of torchvision's VGG16 ("vgg") or AlexNet ("alex"), as a file or as a hub id "owner/name" whose
    HUB_FILE holds them; an existing file comes first. Classifier weights in it are ignored. All parameters are frozen;
    gradients flow to the pictures. Raises MissingFileError when the backbone or the heads are not there, WeightsError
    when the file is not such a network.
    """

    shift: Tensor
    scale: Tensor

    def __init__(self, path_or_hub: str | Path, net: Literal["vgg", "alex"] = "vgg") -> None:
        super().__init__()
        stack = {"vgg": _vgg16, "alex": _alexnet}[net]()
        self.features, self.taps, self.smallest = stack.layers, stack.taps, stack.smallest
        self.features.load_state_dict(_backbone(_locate(path_or_hub, net), net, self.features.state_dict()))
        self.heads = nn.ParameterList(_heads(net, stack.channels))
        self.register_buffer("shift", torch.tensor(INPUT_SHIFT).view(3, 1, 1), persistent=False)
        self.register_buffer("scale", torch.tensor(INPUT_SCALE).view(3, 1, 1), persistent=False)
        self.requires_grad_(False).eval()

    def forward(self, prediction: Tensor, target: Tensor, chunk: int = 8) -> Tensor:
        """Distance of each pair: N C H W floats in [0, 1], RGB, to N float32 values (frames of a clip go in N).

        `chunk` pictures go through the network at a time; without gradients, memory does not grow with N. Raises
        ValueError for shapes that differ, are not RGB, or are smaller than the network's last feature needs (16 pixels
        for VGG16, 31 for AlexNet).
        """
        if prediction.shape != target.shape or target.ndim != 4 or target.shape[1] != 3 or len(target) == 0:
            raise ValueError(f"LPIPS takes two N 3 H W batches, got {tuple(prediction.shape)}, {tuple(target.shape)}")
        if min(target.shape[-2:]) < self.smallest:
            height, width = target.shape[-2:]
            raise ValueError(f"LPIPS needs at least {self.smallest} x {self.smallest} pixels, got {height} x {width}")
        pairs = zip(prediction.split(chunk), target.split(chunk), strict=True)
        return torch.cat([self._distance(p, t) for p, t in pairs])

    def clip_distance(self, prediction: Tensor, target: Tensor) -> Tensor:
        """Mean distance over the frames of each clip: N T C H W in [0, 1] to N float64 values. Raises as `forward`."""
        if prediction.shape != target.shape or target.ndim != 5:
            raise ValueError(f"LPIPS takes two N T 3 H W clips, got {tuple(prediction.shape)}, {tuple(target.shape)}")
        return torch.stack([self(p, t).double().mean() for p, t in zip(prediction, target, strict=True)])

    def _distance(self, prediction: Tensor, target: Tensor) -> Tensor:
        # Side by side rather than as one batch: a target without gradient then costs no backward pass.
        x, y = (((2 * pictures - 1) - self.shift) / self.scale for pictures in (prediction, target))
        total = torch.zeros(len(target), device=x.device)
        heads = iter(self.heads)
        for index, layer in enumerate(self.features):
            x, y = layer(x), layer(y)
            if index in self.taps:
                first, second = (F.normalize(features.float(), dim=1, eps=1e-10) for features in (x, y))
                total = total + ((first - second).square() * next(heads)).sum(dim=1).mean(dim=(1, 2))
        return total


def _locate(path_or_hub: str | Path, net: str) -> Path:
    """The backbone's file; fetched from the hub (or its local cache) when nothing but a hub id goes by that name."""
    path, name = Path(path_or_hub).expanduser(), str(path_or_hub)
    if path.is_file():
        return path
    ours = (
        f"the path of torchvision's ImageNet weights ({'vgg16' if net == 'vgg' else 'alexnet'}-….pth, or the same as "
        ".safetensors) in validation.lpips_backbone, or leave the key out to validate without LPIPS."
    )
    if path.exists() or name.endswith(_FILE_ENDINGS) or not _HUB_ID.fullmatch(name):
        raise MissingFileError(f"LPIPS has no {net} backbone at {path}: no such file. Give {ours}")
    from huggingface_hub import hf_hub_download

    try:
        return Path(hf_hub_download(name, HUB_FILE))
    except Exception as error:  # the hub's client fails in dozens of ways; all of them leave us without weights
        reason = next(iter(str(error).splitlines()), "")
        raise MissingFileError(
            f"LPIPS has no {net} backbone at {path}: no such file, and the Hugging Face hub did not give {HUB_FILE} of "
            f"{name} ({type(error).__name__}: {reason}). Fetch it where there is a network (hf download {name} "
            f"{HUB_FILE}) and copy it here, then give its path; or give {ours}"
        ) from error


def _backbone(path: Path, net: str, expected: dict[str, Tensor]) -> dict[str, Tensor]:
    """The feature weights in the user's file, checked against the architecture name by name and shape by shape."""
    try:
        plain = path.suffix == ".safetensors"
        state = load_file(path) if plain else torch.load(path, map_location="cpu", weights_only=True)
        found = {str(k).removeprefix("features."): v for k, v in state.items() if str(k).startswith("features.")}
    except Exception as error:
        raise WeightsError(f"{path} cannot be read as a weight file (.pth or .safetensors): {error}") from error
    wrong = [name for name in expected if name not in found or found[name].shape != expected[name].shape]
    surplus = sorted(found.keys() - expected.keys())
    if wrong or surplus:
        faults = [f"features.{name} is missing or has another shape" for name in wrong]
        faults += [f"features.{name} is not part of it" for name in surplus]
        more = f", and {len(faults) - 3} more" if len(faults) > 3 else ""
        raise WeightsError(
            f"{path} is not torchvision's {'VGG16' if net == 'vgg' else 'AlexNet'}: {', '.join(faults[:3])}{more}."
        )
    return found


def _heads(net: str, channels: tuple[int, ...]) -> list[nn.Parameter]:
    """The five 1x1 heads, each C 1 1, from the files in the installed torchmetrics (found without importing it)."""
    package = importlib.util.find_spec("torchmetrics")
    folder = Path(package.submodule_search_locations[0]) if package and package.submodule_search_locations else None
    path = folder / "functional" / "image" / "lpips_models" / f"{net}.pth" if folder else None
    if path is None or not path.is_file():
        raise MissingFileError(
            f"LPIPS needs its linear heads, which torchmetrics ships as {net}.pth; they are not at "
            f"{path or 'torchmetrics (not installed)'}. Install torchmetrics again: pip install torchmetrics."
        )
    state = torch.load(path, map_location="cpu", weights_only=True)
    heads = [state[f"lin{k}.model.1.weight"] for k in range(len(channels))]
    if [head.shape for head in heads] != [(1, width, 1, 1) for width in channels]:
        raise WeightsError(f"The LPIPS heads in {path} do not fit the {net} network: another torchmetrics version?")
    return [nn.Parameter(head[0]) for head in heads]
