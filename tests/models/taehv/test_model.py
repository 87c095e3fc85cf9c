"""The model's contract: sizes, equal execution modes, exact lengths, training."""

from collections.abc import Callable

import pytest
import torch
from torch import Tensor, nn

from tests.models.taehv.formula import clip, formula_model, small_spec
from tinyworld.core.errors import ConfigError, DataError, FramePlanError
from tinyworld.core.frames import latent_count, training_plan
from tinyworld.core.variants import VARIANTS, variant
from tinyworld.models.taehv import Taehv
from tinyworld.models.taehv.blocks import MemBlock, TGrow, TPool
from tinyworld.models.taehv.layout import expected_shapes

PARAMETERS = {
    **dict.fromkeys(("taehv", "taew2_1", "taecvx", "taeos1_3"), 11_315_539),
    "taew2_2": 11_418_108,
    "taehv1_5": 11_372_012,
    "taeh3": 11_348_964,
    **dict.fromkeys(("taeltx_2", "taeltx2_3"), 11_759_728),
    "taew2_2_super": 20_487_996,
    "taehv1_5_super": 20_470_572,
}
DISTINCT = ["taehv", "taecvx", "taew2_2", "taeh3", "taeltx_2", "taew2_2_super"]
"""One variant of each architecture and temporal law."""


def close(left: Tensor, right: Tensor) -> None:
    torch.testing.assert_close(left, right, atol=1e-5, rtol=0)


@pytest.mark.parametrize("name", VARIANTS)
def test_parameter_counts_are_the_published_ones(name: str) -> None:
    shapes = expected_shapes(variant(name))
    assert sum(torch.Size(shape).numel() for shape in shapes.values()) == PARAMETERS[name]


def test_blocks_are_in_the_public_order() -> None:
    for name in DISTINCT:
        model = Taehv(small_spec(name))
        assert (len(model.encoder), len(model.decoder)) == (18, 23)
    keys = set(Taehv(small_spec("taehv")).state_dict())
    assert {"encoder.2.conv.weight", "encoder.4.conv.0.bias", "encoder.17.bias", "decoder.3.conv.4.weight"} <= keys
    assert {"decoder.7.conv.weight", "decoder.8.weight", "decoder.22.bias"} <= keys
    assert not {"decoder.6.weight", "decoder.8.bias", "encoder.3.bias"} & keys


@pytest.mark.parametrize("name", DISTINCT)
@torch.no_grad()
def test_sequential_equals_parallel(name: str) -> None:
    model = formula_model(small_spec(name))
    size = model.spec.size_multiple
    for count in (1, 5, 22, 40):
        frames = clip(count, size, 2 * size, clips=2, seed=count)
        latents = model.encode(frames)
        assert latents.shape == (2, latent_count(count, model.spec), model.spec.latent_channels, 1, 2)
        close(model.encode(frames, mode="sequential"), latents)
        close(model.decode(latents, mode="sequential", clamp=False), model.decode(latents, clamp=False))


@torch.no_grad()
def test_clips_of_a_batch_do_not_mix() -> None:
    model = formula_model(small_spec("taehv"))
    frames = clip(9, clips=3)
    latents = model.encode(frames)
    for index in range(3):
        close(model.encode(frames[index : index + 1])[0], latents[index])
        close(model.decode(latents[index : index + 1])[0], model.decode(latents)[index])


@torch.no_grad()
def test_no_latent_and_no_frame_looks_ahead() -> None:
    model = formula_model(small_spec("taehv"))
    frames = clip(16)
    changed = frames.clone()
    changed[:, 8:] = 1 - changed[:, 8:]
    latents, other = model.encode(frames), model.encode(changed)
    close(latents[:, :2], other[:, :2])
    assert (latents[:, 2:] - other[:, 2:]).abs().amax((0, 2, 3, 4)).min() > 1e-3
    mixed = torch.cat([latents[:, :2], other[:, 2:]], 1)
    close(model.decode(latents)[:, :5], model.decode(mixed)[:, :5])


@torch.no_grad()
def test_h3_chunks_are_encoded_on_their_own_behind_black_frames() -> None:
    model = formula_model(small_spec("taeh3"))
    frames = clip(22)
    latents = model.encode(frames)
    black = torch.zeros(1, 3, 3, 32, 32)
    plain = formula_model(small_spec("taew2_2"))  # the same blocks under the plain law, but for latent channels
    plain.encoder = model.encoder
    by_hand = [plain.encode(torch.cat([black, part], 1)) for part in (frames[:, :17], frames[:, 17:])]
    close(latents, torch.cat(by_hand, 1))


@pytest.mark.parametrize("name", DISTINCT)
@pytest.mark.parametrize("mode", ["parallel", "sequential"])
def test_reconstruct_returns_what_came_in(name: str, mode: str) -> None:
    model = formula_model(small_spec(name))
    for count, height, width in ((1, 7, 50), (2, 32, 33), (6, 40, 16), (18, 32, 32)):
        frames = clip(count, height, width)
        result = model.reconstruct(frames, mode=mode)  # type: ignore[arg-type]
        assert result.shape == frames.shape
        assert not result.requires_grad
        assert result.min() >= 0 and result.max() <= 1


@pytest.mark.parametrize("name", ["taehv", "taecvx", "taeltx_2"])
def test_reconstruct_any_number_of_frames(name: str) -> None:
    model = formula_model(small_spec(name))
    size = model.spec.size_multiple
    for count in range(1, 21):
        assert model.reconstruct(clip(count, size, size)).shape[1] == count


@torch.no_grad()
def test_edge_padding_is_cut_back() -> None:
    model = formula_model(small_spec("taehv"))
    frames = clip(5, 30, 29)
    padded = torch.cat([frames, frames[..., -1:].expand(*frames.shape[:-1], 3)], -1)
    padded = torch.cat([padded, padded[..., -1:, :].expand(1, 5, 3, 2, 32)], -2)
    close(model.reconstruct(frames), model.reconstruct(padded)[..., :30, :29])


def test_decode_by_number_of_frames() -> None:
    model = formula_model(small_spec("taehv"))
    frames = clip(10)
    latents = model.encode(frames, round_trip=True)
    close(model.decode(latents, num_frames=10), model.decode(latents)[:, :10])
    with pytest.raises(FramePlanError, match=r"num_frames=10, but 3 latents decode to 9 frames.*round_trip"):
        model.decode(model.encode(frames), num_frames=10)


@pytest.mark.parametrize("name", ["taehv", "taecvx", "taeh3"])
@pytest.mark.parametrize("pad", [False, True])
def test_forward_follows_the_plan(name: str, pad: bool) -> None:
    model = formula_model(small_spec(name))
    count = 19 if pad else 22 if name == "taeh3" else 16
    plan = training_plan(count, model.spec, pad=pad)
    frames = clip(count, clips=2)
    latents, decoded = model(frames, plan)
    assert latents.shape[1] == plan.latent_frames
    assert decoded.shape[:3] == (2, plan.decoded_frames, 3)
    if pad:
        close(decoded[:, : plan.target_frames].clamp(0, 1), model.reconstruct(frames))
    with pytest.raises(FramePlanError, match="for a plan of"):
        model(frames[:, :-1], plan)


def test_training_output_has_a_gradient_everywhere() -> None:
    model = formula_model(small_spec("taehv"))
    _, decoded = model(clip(8), training_plan(8, model.spec))
    outside = (decoded < 0) | (decoded > 1)
    assert outside.any()
    decoded.retain_grad()
    decoded.square().sum().backward()
    assert (decoded.grad[outside] != 0).all()
    assert all(parameter.grad is not None and parameter.grad.abs().sum() > 0 for parameter in model.parameters())


@torch.no_grad()
def test_only_the_clamped_output_is_within_range() -> None:
    model = formula_model(small_spec("taehv"))
    latents = model.encode(clip(8))
    free = model.decode(latents, clamp=False)
    assert free.min() < 0 and free.max() > 1
    close(model.decode(latents), free.clamp(0, 1))


def kept_for_backward(run: Callable[[], Tensor]) -> int:
    """Bytes that autograd keeps of a forward pass, every storage once, parameters not counted."""
    storages = {}

    def note(tensor: Tensor) -> Tensor:
        if not isinstance(tensor, nn.Parameter):
            storages[tensor.untyped_storage().data_ptr()] = tensor.untyped_storage()  # held, so addresses stay unique
        return tensor

    with torch.autograd.graph.saved_tensors_hooks(note, lambda tensor: tensor):
        run()
    return sum(storage.nbytes() for storage in storages.values())


@pytest.mark.parametrize("name", ["taehv", "taew2_2_super"])
def test_gradient_checkpointing_keeps_less_and_changes_nothing(name: str) -> None:
    model = formula_model(small_spec(name))
    frames, plan = clip(12), training_plan(12, model.spec)

    def loss() -> Tensor:
        latents, decoded = model(frames, plan)
        return decoded.square().mean() + latents.square().mean()

    def gradients() -> list[Tensor]:
        model.zero_grad()
        loss().backward()
        return [parameter.grad.clone() for parameter in model.parameters()]

    plain_bytes, plain = kept_for_backward(loss), gradients()
    model.enable_gradient_checkpointing()
    assert kept_for_backward(loss) * 2 <= plain_bytes
    for one, other in zip(plain, gradients(), strict=True):
        torch.testing.assert_close(one, other, atol=1e-6, rtol=1e-5)


def test_preview_shares_weights_and_leaves_the_model_alone() -> None:
    model = formula_model(small_spec("taehv"))
    model.decoder[1].weight.requires_grad_(False)
    preview = model.preview()
    assert preview.decoder[1].weight.data_ptr() == model.decoder[1].weight.data_ptr()
    assert not model.decoder[1].weight.requires_grad
    assert model.spec.t_up == 4 and preview.spec.t_up == 1
    assert preview.decode(model.encode(clip(12))).shape == (1, 3, 3, 4, 4)
    grown = model.preview(time=True)
    assert grown.decode(model.encode(clip(12))).shape == (1, 9, 3, 4, 4)
    with pytest.raises(ConfigError, match="super decoder"):
        formula_model(small_spec("taew2_2_super")).preview()


@torch.no_grad()
def test_a_preview_at_full_size_shows_frames_of_the_full_decoder_when_growing_repeats() -> None:
    model = Taehv(small_spec("taehv"))
    latents = model.encode(clip(12))
    for block in model.decoder:
        if hasattr(block, "stride") and block.stride == 2 and hasattr(block, "conv"):
            block.conv.weight[: block.conv.weight.shape[0] // 2] = block.conv.weight[block.conv.weight.shape[0] // 2 :]
    close(model.preview(space=True).decode(latents), model.decode(latents)[:, ::4])


def test_from_variant() -> None:
    model = Taehv.from_variant("taehv", encoder_width=8, decoder_widths=[16, 8, 8, 8])
    assert model.spec == small_spec("taehv")
    with pytest.raises(ConfigError, match='Did you mean "encoder_width"'):
        Taehv.from_variant("taehv", encoder_widths=8)
    with pytest.raises(ConfigError, match="encoder_width=0"):
        Taehv.from_variant("taehv", encoder_width=0)


def test_wrong_input_is_refused_with_the_rule() -> None:
    model = formula_model(small_spec("taew2_2"))
    with pytest.raises(DataError, match=r"40 × 48 pixels.*multiples of 16.*Use 32 × 48.*reconstruct"):
        model.encode(clip(4, 40, 48))
    with pytest.raises(DataError, match="floating point"):
        model.encode((clip(4) * 255).byte())
    with pytest.raises(DataError, match=r"N T 3 H W"):
        model.reconstruct(clip(4)[0])
    with pytest.raises(DataError, match="nothing to encode"):
        model.reconstruct(clip(4)[:, :0])
    with pytest.raises(DataError, match="N L 48 h w"):
        model.decode(torch.zeros(1, 2, 16, 4, 4))
    with pytest.raises(DataError, match="at least one latent"):
        model.decode(torch.zeros(1, 0, 48, 4, 4))
    with pytest.raises(ConfigError, match='Did you mean "parallel"'):
        model.encode(clip(4), mode="paralel")  # type: ignore[arg-type]


@pytest.mark.parametrize("name", DISTINCT)
@torch.no_grad()
def test_a_new_model_already_carries_the_colours(name: str) -> None:
    torch.manual_seed(0)
    model = Taehv(small_spec(name))
    size = model.spec.size_multiple
    levels = torch.linspace(0.1, 0.9, 3)[None, None, :, None, None]
    smooth = levels + 0.1 * torch.sin(torch.arange(4 * size) * 2 * torch.pi / (4 * size))
    frames = smooth.expand(1, 6, 3, 4 * size, 4 * size)
    worst = (model.reconstruct(frames) - frames)[..., size:-size, size:-size].abs().mean()
    grey = (frames - 0.5).abs().mean()
    assert worst < grey / 2
    assert 0.2 < model.encode(frames).std() < 5


def carrying_model(name: str, delay: int) -> Taehv:
    """Weights by hand: raw output frame j shows encoder input frame j - delay, delay ≤ t. Frames of one colour only.

    The encoder stacks the t frames of a latent in t channels, scaled down to where SoftClamp is linear. The decoder's
    first memory block picks the t frames to show from this latent and the one before, and growing deals them out.
    """
    model = Taehv(small_spec(name))
    t = model.spec.t_down
    for parameter in model.parameters():
        nn.init.zeros_(parameter)
    slots = 1
    for block in model.encoder:
        if isinstance(block, TPool):
            for frame in range(block.stride):
                carry(block.conv, slots, frame * slots, frame * block.conv.out_channels)
            slots *= block.stride
        elif isinstance(block, nn.Conv2d):
            carry(block, slots)
    model.encoder[-1].weight.mul_(0.1)
    picking = next(block for block in model.decoder if isinstance(block, MemBlock))
    width = picking.conv[0].out_channels
    for place in range(t):
        source = place - delay if place >= delay else width + place - delay + t
        picking.conv[0].weight[place, source, 1, 1] = picking.conv[0].weight[t + place, place, 1, 1] = 1
        picking.conv[4].weight[place, place, 1, 1], picking.conv[4].weight[place, t + place, 1, 1] = 1, -1
    carry(picking.conv[2], 2 * t)
    for block in model.decoder:
        if isinstance(block, TGrow):
            slots //= block.stride
            for frame in range(block.stride):
                carry(block.conv, slots, frame * block.conv.in_channels, frame * slots)
        elif isinstance(block, nn.Conv2d):
            carry(block, slots)
    model.decoder[-1].weight[:, 0, 1, 1] = 1
    first = next(block for block in model.decoder if isinstance(block, nn.Conv2d))
    first.weight.mul_(10)
    return model.eval()


def carry(conv: nn.Conv2d, count: int, outputs: int = 0, inputs: int = 0) -> None:
    """Let `count` output channels from `outputs` on be the input channels from `inputs` on."""
    centre = conv.kernel_size[0] // 2
    for channel in range(count):
        conv.weight[outputs + channel, inputs + channel, centre, centre] = 1


@pytest.mark.parametrize(("name", "delay"), [("taehv", 3), ("taecvx", 3), ("taeh3", 0), ("taeltx_2", 7)])
@torch.no_grad()
def test_one_set_of_weights_gives_every_frame_back_in_its_place(name: str, delay: int) -> None:
    """Delayed by what the law drops (H3 puts that many black frames in front instead), each frame comes out as itself,
    whatever the length. With another delay it does not, so this can tell."""
    model, size = carrying_model(name, delay), small_spec(name).size_multiple
    wrong = carrying_model(name, delay + 1)
    for count in (1, 2, 5, 8, 12, 16, 22, 32, 39):
        levels = 0.1 + 0.8 * clip(count, 1, 1, seed=count)[:, :, :1]
        frames = levels.expand(1, count, 3, size, size)
        assert (model.reconstruct(frames) - frames).abs().max() < 2e-3, count
        assert (wrong.reconstruct(frames) - frames).abs().max() > 0.02
    for count in (22, 39) if name == "taeh3" else (8, 24) if name == "taeltx_2" else (12, 20):
        plan = training_plan(count, model.spec)
        frames = clip(count, 1, 1)[:, :, :1].expand(1, count, 3, size, size) * 0.9
        _, decoded = model(frames, plan)
        trained = decoded[:, : plan.target_frames]
        assert (trained - frames[:, : plan.target_frames]).abs().max() < 2e-3, count
        close(trained.clamp(0, 1), model.reconstruct(frames)[:, : plan.target_frames])
