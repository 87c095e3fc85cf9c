"""Pruning: nothing of what matters is lost, and every axis is cut at the right places."""

from collections.abc import Iterator
from dataclasses import replace

import pytest
import torch

from tests.models.taehv.formula import clip, formula_model, small_spec
from tinyworld.core.errors import ConfigError, DataError
from tinyworld.core.variants import VARIANTS, TaehvSpec
from tinyworld.models.taehv import Taehv
from tinyworld.models.taehv.layout import expected_shapes
from tinyworld.models.taehv.prune import Axis, connections, cut, input_moments, narrower, prune

KINDS = ["taecvx", "taew2_2", "taeh3", "taeltx2_3", "taew2_2_super"]
"""One of every kind: patch size 1, 2, 4, all temporal laws, both decoders."""


def wide_spec(name: str) -> TaehvSpec:
    """Widths that differ between stages, so that a mixed-up stage cannot fit."""
    return replace(VARIANTS[name], encoder_width=16, decoder_widths=(64, 48, 32, 16))


def clips(count: int = 3) -> Iterator[torch.Tensor]:
    return (clip(5, seed=seed) for seed in range(count))


def embedded(narrow: Taehv, spec: TaehvSpec) -> Taehv:
    """The narrow model inside a wider one whose other channels are zero everywhere, at random places."""
    generator = torch.Generator().manual_seed(0)
    own, shapes = narrow.state_dict(), expected_shapes(spec)
    places: dict[str, torch.Tensor] = {}

    def positions(axis: Axis | None, few: int, many: int) -> torch.Tensor:
        if axis is None:
            return torch.arange(many)
        chosen = torch.randperm(many // axis.copies, generator=generator)[: few // axis.copies].sort().values
        return axis.positions(places.setdefault(axis.channels, chosen), many)

    tensors = {key: torch.zeros(shape) for key, shape in shapes.items()}
    for link in connections(spec):
        weight, bias = f"{link.key}.weight", f"{link.key}.bias"
        rows = positions(link.written, own[weight].shape[0], shapes[weight][0])
        columns = positions(link.read, own[weight].shape[1], shapes[weight][1])
        tensors[weight][rows[:, None], columns] = own[weight]
        if bias in own:
            tensors[bias][rows] = own[bias]
    return Taehv.assembled(spec, tensors).eval()


@pytest.mark.parametrize("name", KINDS)
def test_keeping_all_channels_changes_nothing(name: str) -> None:
    model = formula_model(small_spec(name))
    same = prune(model, 1.0, clips(1))
    assert same.spec == model.spec and not same.training
    assert all(torch.equal(value, same.state_dict()[key]) for key, value in model.state_dict().items())
    same.encoder[0].weight.data.zero_()
    assert model.encoder[0].weight.any()  # tensors of its own


@pytest.mark.parametrize("name", KINDS)
def test_channels_that_do_nothing_are_the_ones_that_go(name: str) -> None:
    """In float64: some of these models amplify rounding. On the calibration clip itself a dead channel stays dead."""
    narrow = formula_model(narrower(wide_spec(name), 0.5))
    wide = embedded(narrow, wide_spec(name)).double()
    frames = clip(9).double()
    pruned = prune(wide, 0.5, [frames])
    assert pruned.spec == narrow.spec
    wanted = narrow.double().reconstruct(frames)
    assert wanted.std() > 0.1
    torch.testing.assert_close(wide.reconstruct(frames), wanted)  # or the embedding itself would be wrong
    torch.testing.assert_close(pruned.reconstruct(frames), wanted)
    torch.testing.assert_close(pruned.reconstruct(frames, mode="sequential"), wanted)


@pytest.mark.parametrize("name", list(VARIANTS))
def test_every_variant_gives_an_ordinary_model(name: str) -> None:
    model = Taehv(wide_spec(name))
    pruned = prune(model, 0.6, clips(1))
    spec = replace(VARIANTS[name], encoder_width=16, decoder_widths=(40, 32, 24, 16))
    assert pruned.spec == spec and pruned.training
    assert {key: tuple(value.shape) for key, value in pruned.state_dict().items()} == expected_shapes(spec)
    ordinary = Taehv(spec)
    assert sum(p.numel() for p in pruned.parameters()) == sum(p.numel() for p in ordinary.parameters())
    ordinary.load_state_dict(pruned.state_dict())
    assert all(not part._forward_pre_hooks for part in model.modules())


def test_every_convolution_is_connected() -> None:
    for spec in VARIANTS.values():
        assert [link.key for link in connections(spec)] == [
            key.removesuffix(".weight") for key in expected_shapes(spec) if key.endswith(".weight")
        ]


def test_widths_are_rounded_up_to_multiples_of_8() -> None:
    assert narrower(VARIANTS["taehv"], 0.75).decoder_widths == (192, 96, 48, 48)
    spec = replace(VARIANTS["taehv"], encoder_width=80, decoder_widths=(100, 12, 8, 4))
    assert narrower(spec, 0.7) == replace(spec, encoder_width=56, decoder_widths=(72, 12, 8, 4))
    assert narrower(spec, 0.01) == replace(spec, encoder_width=8, decoder_widths=(8, 8, 8, 4))
    assert narrower(spec, 1.0) == spec


def test_readers_make_up_for_the_channels_that_are_gone() -> None:
    spec = wide_spec("taehv")
    model, smaller, frames = formula_model(spec), narrower(spec, 0.75), clip(9, seed=7)
    moments = input_moments(model, clips())
    unrelated = {key: moment.diagonal().diag() for key, moment in moments.items()}
    wanted = model.reconstruct(frames)
    error = {}
    for name, known in (("made up", moments), ("cut", unrelated)):
        pruned = Taehv.assembled(smaller, cut(model.state_dict(), known, spec, smaller)).eval()
        error[name] = (pruned.reconstruct(frames) - wanted).square().mean().item()
    assert error["made up"] < 0.7 * error["cut"]


def test_mistakes_are_refused() -> None:
    model = formula_model(small_spec("taehv"))
    for keep in (0.0, -1.0, 1.01, float("nan")):
        with pytest.raises(ConfigError, match="above 0, at most 1"):
            prune(model, keep, clips(1))
    with pytest.raises(DataError, match="no clip was given"):
        prune(model, 0.5, [])
    with pytest.raises(DataError, match="N T 3 H W"):
        prune(model, 0.5, [torch.zeros(1, 3, 8, 8)])
