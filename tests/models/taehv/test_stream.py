"""Streaming: pieces equal the whole, exact lengths, constant state."""

from collections.abc import Iterator

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from tests.models.taehv.formula import clip, formula_model, small_spec
from tinyworld.core.errors import DataError, FramePlanError
from tinyworld.core.frames import latent_count, round_trip_plan
from tinyworld.models.taehv import StreamingTaehv

NAMES = ["taehv", "taecvx", "taew2_2", "taeh3", "taeltx_2", "taew2_2_super"]
MODELS = {name: formula_model(small_spec(name)) for name in NAMES}


def close(left: Tensor, right: Tensor) -> None:
    torch.testing.assert_close(left, right, atol=1e-5, rtol=0)


def pieces(tensor: Tensor, sizes: list[int]) -> Iterator[Tensor]:
    """The tensor along dimension 1 in pieces of the given sizes, over and over."""
    start = 0
    while start < tensor.shape[1]:
        for size in sizes:
            if start < tensor.shape[1]:
                yield tensor[:, start : start + size]
            start += size


@settings(max_examples=40)
@given(
    name=st.sampled_from(NAMES),
    count=st.integers(1, 40),
    sizes=st.lists(st.integers(1, 7), min_size=1, max_size=4),
    clips=st.integers(1, 2),
)
def test_pieces_equal_the_whole(name: str, count: int, sizes: list[int], clips: int) -> None:
    model = MODELS[name]
    size = model.spec.size_multiple
    frames = clip(count, size, size, clips)
    with torch.no_grad():
        latents = model.encode(frames)
        decoded = model.decode(latents)
    stream = StreamingTaehv(model, num_latents=latents.shape[1])
    found = torch.cat([*[stream.encode(piece) for piece in pieces(frames, sizes)], stream.flush_encoder()], 1)
    close(found, latents)
    close(torch.cat([stream.decode(piece) for piece in pieces(latents, sizes)], 1), decoded)


@settings(max_examples=30)
@given(name=st.sampled_from(NAMES), count=st.integers(1, 40), size=st.integers(1, 9))
def test_reconstruct_gives_every_frame_back(name: str, count: int, size: int) -> None:
    model = MODELS[name]
    frames = clip(count, 30, 33)
    stream = StreamingTaehv(model, num_latents=round_trip_plan(count, model.spec).latent_frames)
    result = torch.cat(list(stream.reconstruct(pieces(frames, [size]))), 1)
    close(result, model.reconstruct(frames))


def test_frames_leave_while_the_clip_is_still_coming() -> None:
    """4x: a latent after every 4th frame; the first one decodes to 1 frame, the next to 4 each."""
    stream = StreamingTaehv(MODELS["taehv"])
    given_out = []
    for frame in clip(12).split(1, 1):
        given_out.append(stream.decode(stream.encode(frame)).shape[1])
    assert given_out == [0, 0, 0, 1, 0, 0, 0, 4, 0, 0, 0, 4]


def test_nothing_yet_has_the_right_shape() -> None:
    stream = StreamingTaehv(MODELS["taew2_2"])
    latents = stream.encode(clip(1, 32, 48))
    assert latents.shape == (1, 0, 48, 2, 3)
    assert stream.decode(latents).shape == (1, 0, 3, 32, 48)


def bytes_of(values: list) -> int:
    """Bytes of the distinct storages below nested lists."""
    flat, stack = {}, [values]
    while stack:
        value = stack.pop()
        if isinstance(value, Tensor):
            flat[value.untyped_storage().data_ptr()] = value.untyped_storage().nbytes()
        elif isinstance(value, list):
            stack += value
    return sum(flat.values())


@pytest.mark.parametrize("name", NAMES)
def test_the_state_does_not_grow(name: str) -> None:
    model = MODELS[name]
    size = model.spec.size_multiple
    stream = StreamingTaehv(model, num_latents=10**6)
    sizes = []
    for _ in range(4):
        for _ in range(2 * 17 * model.spec.t_down):  # whole latents and whole H3 chunks
            stream.decode(stream.encode(clip(1, size, size)))
        state = [stream.encoder.state, stream.encoder.held, stream.encoder.last_frame, stream.decoder.state]
        sizes.append(bytes_of(state))
    assert len(set(sizes)) == 1
    blocks = [*model.encoder, *model.decoder]
    assert sum(len(kept) for kept in [*stream.encoder.state, *stream.decoder.state]) <= len(blocks)


def test_streams_keep_no_graph() -> None:
    stream = StreamingTaehv(MODELS["taehv"])
    latents = stream.encode(clip(8))
    assert not latents.requires_grad
    assert not stream.decode(latents).requires_grad
    assert not any(tensor.requires_grad for kept in stream.decoder.state for tensor in kept)


def test_reset_forgets_the_clip() -> None:
    stream = StreamingTaehv(MODELS["taeh3"])
    first = stream.encode(clip(20))
    stream.reset()
    close(stream.encode(clip(20)), first)
    assert stream.flush_encoder().shape[1] + first.shape[1] == latent_count(20, MODELS["taeh3"].spec)
    close(stream.encode(clip(20)), first)  # a flush starts a new clip by itself


def test_cogvideox_must_know_how_many_latents_come() -> None:
    model = MODELS["taecvx"]
    with pytest.raises(FramePlanError, match=r"needs num_latents.*odd.*even"):
        StreamingTaehv(model)
    stream = StreamingTaehv(model, num_latents=2)
    stream.decode(torch.zeros(1, 2, 16, 4, 4))
    with pytest.raises(FramePlanError, match="3 latents came where num_latents=2"):
        stream.decode(torch.zeros(1, 1, 16, 4, 4))
    with pytest.raises(FramePlanError, match="round_trip_plan"):
        list(StreamingTaehv(model, num_latents=7).reconstruct(pieces(clip(12), [4])))


def test_mistakes_are_refused() -> None:
    stream = StreamingTaehv(MODELS["taehv"])
    with pytest.raises(FramePlanError, match="at least 1"):
        stream.flush_encoder()
    with pytest.raises(DataError, match="multiples of 8"):
        stream.encode(clip(1, 30, 32))
    with pytest.raises(DataError, match=r"N L 16 h w"):
        stream.decode(torch.zeros(1, 1, 48, 4, 4))
    changing = iter([clip(2, 32, 32), clip(2, 32, 40)])
    with pytest.raises(DataError, match="picture size changes from 32 × 32 to 32 × 40"):
        list(stream.reconstruct(changing))
