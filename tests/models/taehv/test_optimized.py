"""The folded networks give what the public chain gives: every architecture, every law, every length, every number type."""

import copy

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from tests.models.taehv.formula import clip, formula_model, small_spec
from tinyworld import Taehv
from tinyworld.core.errors import ConfigError
from tinyworld.core.frames import training_plan
from tinyworld.core.variants import VARIANTS

MODELS = {name: formula_model(small_spec(name)) for name in VARIANTS}
FAST = {name: model.optimize() for name, model in MODELS.items()}


def close(left: Tensor, right: Tensor) -> None:
    torch.testing.assert_close(left, right, atol=2e-5, rtol=0)


@settings(max_examples=40)
@given(name=st.sampled_from(list(VARIANTS)), count=st.integers(1, 24), clips=st.integers(1, 2))
@torch.no_grad()
def test_equals_the_model_it_was_made_of(name: str, count: int, clips: int) -> None:
    model, fast = MODELS[name], FAST[name]
    size = model.spec.size_multiple
    frames = clip(count, size, 2 * size, clips)
    latents = model.encode(frames)
    close(fast.encode(frames), latents)
    close(fast.decode(latents, clamp=False), model.decode(latents, clamp=False))


@pytest.mark.parametrize("space", [True, False])
@torch.no_grad()
def test_previews_too(space: bool) -> None:
    model, fast = MODELS["taew2_2"], FAST["taew2_2"]
    latents = torch.randn(1, 4, 48, 3, 5, generator=torch.Generator().manual_seed(0))
    close(fast.preview(space=space).decode(latents), model.preview(space=space).decode(latents))


@torch.no_grad()
def test_all_widths_of_a_public_model() -> None:
    model = formula_model(VARIANTS["taehv"])
    latents = torch.randn(1, 3, 16, 4, 6, generator=torch.Generator().manual_seed(0))
    close(model.optimize().decode(latents), model.decode(latents))


@torch.no_grad()
def test_half_precision_agrees_and_keeps_the_callers_number_type() -> None:
    model = MODELS["taehv"]
    fast = model.optimize(torch.bfloat16)
    frames = clip(12)
    latents = model.encode(frames)
    wanted, found = model.decode(latents), fast.decode(latents)
    assert found.dtype == torch.float32
    assert fast.encode(frames).dtype == torch.float32
    assert fast.decode(latents.bfloat16()).dtype == torch.bfloat16
    assert 10 * torch.log10(1 / (found - wanted).square().mean()) > 45
    assert not torch.equal(found, wanted)  # it did compute in another type


def test_public_weights_stay() -> None:
    model = MODELS["taehv"]
    before = copy.deepcopy(model.state_dict())
    fast = model.optimize(torch.bfloat16)
    assert list(fast.state_dict()) == list(before)
    for state in (fast.state_dict(), model.state_dict()):
        assert all(torch.equal(state[key], before[key]) for key in before)


@torch.no_grad()
def test_loading_weights_folds_anew() -> None:
    model = formula_model(small_spec("taehv"))
    fast = Taehv(model.spec).optimize()
    fast.load_state_dict(model.state_dict())
    latents = torch.randn(1, 2, 16, 3, 3, generator=torch.Generator().manual_seed(0))
    close(fast.decode(latents), model.decode(latents))


def test_no_graph_is_kept() -> None:
    fast = FAST["taehv"]
    latents = fast.encode(clip(8).requires_grad_())
    assert not latents.requires_grad
    assert not fast.decode(latents.requires_grad_()).requires_grad


def test_mistakes_are_refused() -> None:
    model, fast = MODELS["taehv"], FAST["taehv"]
    with pytest.raises(ConfigError, match="bfloat16"):
        model.optimize(torch.float16)
    with pytest.raises(ConfigError, match="none of"):
        model.optimize(torch.float64)
    with pytest.raises(ConfigError, match="auto, eager, compile, onnx"):
        model.optimize(backend="tensorrt")  # type: ignore[arg-type]
    with pytest.raises(ConfigError, match="inference only"):
        fast(clip(12), training_plan(12, model.spec))
    with pytest.raises(ConfigError, match="sequential"):
        fast.decode(torch.zeros(1, 2, 16, 3, 3), mode="serial")  # type: ignore[arg-type]
