"""Streams computed in strips equal the whole, and keep one state."""

import pytest
import torch

from tests.models.taehv.formula import clip, formula_model, small_spec
from tinyworld.core.errors import ConfigError, DataError, FramePlanError
from tinyworld.core.frames import round_trip_plan
from tinyworld.models.taehv import StreamingTaehv
from tinyworld.models.taehv.strips import Strips


@pytest.mark.parametrize("name", ["taew2_1", "taecvx", "taeh3", "taew2_2_super", "taew2_2"])
@pytest.mark.parametrize("tile", [8, 13, 21])
@torch.no_grad()
def test_streams_in_strips_equal_the_whole(name: str, tile: int) -> None:
    model = formula_model(small_spec(name)).optimize()
    size = model.spec.size_multiple
    frames = clip(9, 43 * size - 3, 2 * size + 1)
    latents = round_trip_plan(9, model.spec).latent_frames
    stream = StreamingTaehv(model, latents, tile=tile)
    for _ in range(2):  # the second clip begins anew
        made = list(stream.reconstruct(frames.split(4, 1)))
        torch.testing.assert_close(torch.cat(made, 1), model.reconstruct(frames), atol=1e-5, rtol=0)


@torch.no_grad()
def test_the_state_is_kept_once_and_renewed_in_place() -> None:
    stream = StreamingTaehv(formula_model(small_spec("taew2_1")).optimize(), tile=10)
    frames = clip(12, 8 * 41, 8 * 3)
    stream.decode(stream.encode(frames[:, :4]))
    before = [kept[0].data_ptr() for kept in (*stream.encoder.state[:-1], *stream.decoder.state)]
    assert [kept[0].shape[-2] // 41 for kept in stream.decoder.state] == [1, 1, 1, 2, 2, 2, 4, 4, 4]
    stream.decode(stream.encode(frames[:, 4:]))
    assert [kept[0].data_ptr() for kept in (*stream.encoder.state[:-1], *stream.decoder.state)] == before


def test_a_step_sees_no_more_than_a_strip_with_its_border() -> None:
    """Cells look one row up and down, now and one frame earlier; strips of two rows, the last of one."""
    seen = []

    def step(
        inputs: list[torch.Tensor], past: list[torch.Tensor | None]
    ) -> tuple[list[torch.Tensor], list[torch.Tensor]]:
        seen.append(inputs[0].shape[-2])
        around = torch.nn.functional.avg_pool2d(inputs[0], (3, 1), 1, (1, 0))
        if past[0] is not None:
            around = around + torch.nn.functional.avg_pool2d(past[0], (3, 1), 1, (1, 0))
        return [around], [inputs[0] * 2]

    first, second = torch.randn(2, 1, 1, 7, 3, generator=torch.Generator().manual_seed(0))
    strips, state = Strips(2, 1), [None]
    for picture in (first, second):
        (whole,), after = step([picture], state if state[0] is None else [state[0].clone()])
        (made,), state = strips.run(step, [picture], state, 7)
        torch.testing.assert_close(made, whole)
        torch.testing.assert_close(state[0], after[0])
    assert seen == [7, 3, 4, 4, 2] * 2


@torch.no_grad()
def test_mistakes_are_refused() -> None:
    model = formula_model(small_spec("taew2_1"))
    with pytest.raises(ConfigError, match=r"model\.optimize\(\)"):
        StreamingTaehv(model, tile=4)
    with pytest.raises(ConfigError, match="at least 1"):
        StreamingTaehv(model.optimize(), tile=0)
    stream = StreamingTaehv(model.optimize(), tile=4)
    with pytest.raises(FramePlanError):
        stream.flush_encoder()
    list(stream.reconstruct([clip(4, 64, 64)]))
    with pytest.raises(DataError, match="picture size changes"):
        list(stream.reconstruct([clip(4, 64, 64), clip(4, 64, 72)]))
