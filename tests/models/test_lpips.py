"""LPIPS with a random backbone in torchvision's format: the structure is checked, not the ImageNet weights."""

from pathlib import Path

import huggingface_hub
import pytest
import torch
from safetensors.torch import save_file
from torch import Tensor
from torch.nn import functional as F

from tinyworld.core.errors import MissingFileError, WeightsError
from tinyworld.models import lpips
from tinyworld.models.lpips import LPIPS

VGG = {0: (64, 3), 2: (64, 64), 5: (128, 64), 7: (128, 128), 10: (256, 128), 12: (256, 256), 14: (256, 256)}
VGG |= {17: (512, 256)} | dict.fromkeys((19, 21, 24, 26, 28), (512, 512))
ALEX = {0: (64, 3, 11), 3: (192, 64, 5), 6: (384, 192, 3), 8: (256, 384, 3), 10: (256, 256, 3)}


def torchvision_state(net: str) -> dict[str, Tensor]:
    """Random weights under torchvision's names, with a classifier entry as in its published files."""
    generator = torch.Generator().manual_seed(0)
    state = {"classifier.0.weight": torch.zeros(8, 8)}
    for index, shape in (VGG if net == "vgg" else ALEX).items():
        width, channels, kernel = (*shape, 3)[:3]
        weight = torch.randn(width, channels, kernel, kernel, generator=generator)
        state[f"features.{index}.weight"] = weight * (2 / (channels * kernel**2)) ** 0.5
        state[f"features.{index}.bias"] = 0.1 * torch.randn(width, generator=generator)
    return state


@pytest.fixture(scope="module")
def backbones(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    folder = tmp_path_factory.mktemp("backbones")
    for net in ("vgg", "alex"):
        torch.save(torchvision_state(net), folder / f"{net}.pth")
    return {net: folder / f"{net}.pth" for net in ("vgg", "alex")}


@pytest.fixture(scope="module", params=["vgg", "alex"])
def metric(request: pytest.FixtureRequest, backbones: dict[str, Path]) -> LPIPS:
    return LPIPS(backbones[request.param], request.param)


def pictures(n: int = 3, size: int = 32, seed: int = 0) -> Tensor:
    return torch.rand(n, 3, size, size, generator=torch.Generator().manual_seed(seed))


def test_distance_is_zero_for_the_same_picture_and_symmetric(metric: LPIPS) -> None:
    a, b = pictures(seed=1), pictures(seed=2)
    assert metric(a, a).tolist() == [0, 0, 0]
    there, back = metric(a, b), metric(b, a)
    assert there.shape == (3,) and (there > 1e-3).all()
    torch.testing.assert_close(there, back)


def test_more_noise_is_farther_away(metric: LPIPS) -> None:
    target, noise = pictures(seed=1), pictures(seed=2) - 0.5
    distances = torch.stack([metric((target + scale * noise).clamp(0, 1), target) for scale in (0.05, 0.2, 0.8)])
    assert (distances.diff(dim=0) > 0).all()


def test_chunks_do_not_change_the_result(metric: LPIPS) -> None:
    a, b = pictures(5, seed=1), pictures(5, seed=2)
    torch.testing.assert_close(metric(a, b, chunk=2), metric(a, b, chunk=8))


def test_a_clip_is_as_far_as_its_frames_are_on_average(metric: LPIPS) -> None:
    a, b = pictures(6, seed=1).view(2, 3, 3, 32, 32), pictures(6, seed=2).view(2, 3, 3, 32, 32)
    distances = metric.clip_distance(a, b)
    assert distances.shape == (2,) and distances.dtype == torch.float64
    frames = metric(a.flatten(0, 1), b.flatten(0, 1)).double().view(2, 3)
    torch.testing.assert_close(distances, frames.mean(dim=1))
    with pytest.raises(ValueError, match="two N T 3 H W clips"):
        metric.clip_distance(a[0], b[0])


def test_gradient_reaches_the_picture_and_nothing_else(metric: LPIPS) -> None:
    prediction = pictures(1, seed=1)
    prediction[:, :, :16] = 0  # flat regions: dead features must not give NaN
    prediction.requires_grad_()
    metric(prediction, torch.zeros(1, 3, 32, 32)).sum().backward()
    assert prediction.grad is not None and torch.isfinite(prediction.grad).all()
    assert prediction.grad.abs().sum() > 0
    assert not any(parameter.requires_grad for parameter in metric.parameters())


def test_alexnet_equals_the_formula_written_out(backbones: dict[str, Path]) -> None:
    """Reference for one pair, straight from the paper: unit-normalised features, weighted, summed over layers."""
    state = torch.load(backbones["alex"], weights_only=True)
    a, b = pictures(1, 48, seed=1), pictures(1, 48, seed=2)

    def features(x: Tensor) -> list[Tensor]:
        mean, deviation = torch.tensor([0.485, 0.456, 0.406]), torch.tensor([0.229, 0.224, 0.225])
        x, taps = (x - mean.view(1, 3, 1, 1)) / deviation.view(1, 3, 1, 1), []
        for index, (stride, padding) in {0: (4, 2), 3: (1, 2), 6: (1, 1), 8: (1, 1), 10: (1, 1)}.items():
            if index in (3, 6):
                x = F.max_pool2d(x, 3, 2)
            x = F.conv2d(x, state[f"features.{index}.weight"], state[f"features.{index}.bias"], stride, padding).relu()
            taps.append(x / (x.square().sum(dim=1, keepdim=True).sqrt() + 1e-10))
        return taps

    model = LPIPS(backbones["alex"], "alex")
    total = 0.0
    for x, y, head in zip(features(a), features(b), model.heads, strict=True):
        total += float(((x - y).square() * head).sum(dim=1).mean())
    # The reference's input constants are ImageNet's mean and deviation for [-1, 1], rounded to three digits.
    assert model(a, b).item() == pytest.approx(total, rel=5e-3)


def test_a_safetensors_backbone_is_the_same(backbones: dict[str, Path], tmp_path: Path) -> None:
    save_file(torchvision_state("alex"), tmp_path / "alex.safetensors")
    a, b = pictures(seed=1), pictures(seed=2)
    one, other = LPIPS(backbones["alex"], "alex"), LPIPS(tmp_path / "alex.safetensors", "alex")
    torch.testing.assert_close(one(a, b), other(a, b), rtol=0, atol=0)


def test_a_missing_backbone_names_the_path_and_the_key(tmp_path: Path) -> None:
    with pytest.raises(MissingFileError, match=r"nowhere\.pth.*vgg16.*validation\.lpips_backbone"):
        LPIPS(tmp_path / "nowhere.pth")


def test_a_hub_id_is_fetched(backbones: dict[str, Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """timm's repository: torchvision's feature names beside other heads."""
    state = torchvision_state("vgg") | {"pre_logits.fc1.weight": torch.zeros(4, 4), "head.fc.bias": torch.zeros(4)}
    save_file(state, tmp_path / "model.safetensors")
    asked = []

    def download(repo_id: str, filename: str) -> str:
        asked.append((repo_id, filename))
        return str(tmp_path / "model.safetensors")

    monkeypatch.setattr(huggingface_hub, "hf_hub_download", download)
    a, b = pictures(seed=1), pictures(seed=2)
    torch.testing.assert_close(LPIPS("timm/vgg16.tv_in1k")(a, b), LPIPS(backbones["vgg"])(a, b), rtol=0, atol=0)
    assert asked == [("timm/vgg16.tv_in1k", "model.safetensors")]


def test_a_hub_id_without_a_network_says_what_to_do(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_OFFLINE", True)
    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_CACHE", str(tmp_path))
    message = r"LocalEntryNotFoundError.*hf download timm/vgg16\.tv_in1k model\.safetensors.*validation\.lpips_backbone"
    with pytest.raises(MissingFileError, match=message) as caught:
        LPIPS("timm/vgg16.tv_in1k")
    assert "\n" not in str(caught.value)


def test_a_file_comes_before_a_hub_id(
    backbones: dict[str, Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(huggingface_hub, "hf_hub_download", lambda *_: pytest.fail("nothing may be fetched"))
    (tmp_path / "owner").mkdir()
    (tmp_path / "owner" / "vgg").symlink_to(backbones["vgg"])
    monkeypatch.chdir(tmp_path)
    LPIPS("owner/vgg")
    for name in ("owner/missing.pth", "/owner/missing", "a/b/c", "plain", "./owner/missing", "owner"):
        with pytest.raises(MissingFileError, match="no such file"):
            LPIPS(name)


def test_another_network_is_refused(backbones: dict[str, Path], tmp_path: Path) -> None:
    with pytest.raises(WeightsError, match="not torchvision's VGG16"):
        LPIPS(backbones["alex"], "vgg")
    deeper = torchvision_state("alex") | {"features.12.weight": torch.zeros(1)}
    torch.save(deeper, tmp_path / "deeper.pth")
    with pytest.raises(WeightsError, match=r"features\.12\.weight is not part of it"):
        LPIPS(tmp_path / "deeper.pth", "alex")


@pytest.mark.parametrize("name", ["noise.pth", "noise.safetensors"])
def test_a_file_that_is_no_weight_file_is_refused(name: str, tmp_path: Path) -> None:
    (tmp_path / name).write_bytes(b"not a weight file")
    with pytest.raises(WeightsError, match="cannot be read as a weight file"):
        LPIPS(tmp_path / name)


def test_code_in_a_pickle_is_not_run(tmp_path: Path) -> None:
    class Trap:
        def __reduce__(self) -> tuple:
            return (Path.touch, (tmp_path / "ran",))

    torch.save({"features.0.weight": Trap()}, tmp_path / "trap.pth")
    with pytest.raises(WeightsError, match="cannot be read"):
        LPIPS(tmp_path / "trap.pth")
    assert not (tmp_path / "ran").exists()


def test_missing_heads_are_named(backbones: dict[str, Path], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(lpips.importlib.util, "find_spec", lambda _name: None)
    with pytest.raises(MissingFileError, match="linear heads"):
        LPIPS(backbones["alex"], "alex")


def test_pictures_too_small_or_of_another_kind_are_refused(metric: LPIPS) -> None:
    small = pictures(size=metric.smallest - 1)
    with pytest.raises(ValueError, match=f"at least {metric.smallest} x {metric.smallest}"):
        metric(small, small)
    metric(pictures(1, metric.smallest), pictures(1, metric.smallest))
    with pytest.raises(ValueError, match="two N 3 H W batches"):
        metric(pictures(2), pictures(3))
