"""The branch's parts against their definitions, written out."""

import torch
from diffusers.models.transformers.transformer_wan import WanRotaryPosEmbed
from torch.nn import functional

from tests.models.fantasy.branches import stir
from tinyworld.core.rng import normal
from tinyworld.models.fantasy.attention import SelfAttention, plane_table, repeated, rotated, space_time_tables
from tinyworld.models.fantasy.bridge import LatentBridge, special_tokens, with_specials
from tinyworld.models.fantasy.camera_condition import CameraAdapter, PoseEncoder
from tinyworld.models.fantasy.cross_attention import TwoWayCrossAttention
from tinyworld.models.fantasy.geodit import GeoBlock

CPU = torch.device("cpu")
WIDTH, HEADS = 16, 2


def test_rotation_keeps_special_tokens_and_lengths_and_sees_only_distances() -> None:
    table = plane_table(3, 4, 5, 8, CPU)
    query, key = normal([1, 2], (1, 8))
    turned_q, turned_k = rotated(query.expand(17, 8), table), rotated(key.expand(17, 8), table)
    assert torch.equal(turned_q[:5], query.expand(5, 8))
    torch.testing.assert_close(turned_q.norm(dim=-1), query.norm().expand(17))
    scores = (turned_q @ turned_k.T)[5:, 5:].unflatten(0, (3, 4)).unflatten(2, (3, 4))
    torch.testing.assert_close(scores[0, 0, 1, 2], scores[1, 1, 2, 3])
    torch.testing.assert_close(scores[0, 1, 0, 0], scores[2, 3, 2, 2])
    assert not torch.isclose(scores[0, 0, 1, 2], scores[0, 0, 2, 1])
    # Patches are shifted by one: the first patch is not where special tokens are.
    assert not torch.allclose(turned_q[5], query[0], atol=1e-3)


def test_plane_angles() -> None:
    cosine, sine = plane_table(2, 3, 1, 8, CPU)
    row, column = 2, 3  # of the last patch, plus one
    angles = torch.tensor([row, row / 10, column, column / 10])
    torch.testing.assert_close(cosine[-1], angles.cos())
    torch.testing.assert_close(sine[-1], angles.sin())
    assert torch.equal(repeated((cosine, sine), 2)[0], torch.cat([cosine, cosine]))


def test_space_time_angles_are_those_of_wan() -> None:
    (cosine, sine), (with_cosine, with_sine) = space_time_tables((2, 3, 4), 5, 32, CPU)
    wan_cosine, wan_sine = WanRotaryPosEmbed(32, (1, 2, 2), 64)(torch.zeros(1, 16, 2, 6, 8))
    torch.testing.assert_close(cosine, wan_cosine[0, :, 0, 0::2].float())
    torch.testing.assert_close(sine, wan_sine[0, :, 0, 0::2].float())
    assert torch.equal(with_cosine.unflatten(0, (2, 17))[:, 5:].flatten(0, 1), cosine)
    assert (with_cosine.unflatten(0, (2, 17))[:, :5] == 1).all() and (with_sine.unflatten(0, (2, 17))[:, :5] == 0).all()


def test_bridge_passes_features_at_first_and_stays_inside_a_frame() -> None:
    bridge = LatentBridge(WIDTH, 8, 2)
    bridge.init_weights(torch.Generator().manual_seed(0))
    features = normal([1, 2], (12, WIDTH))
    assert torch.equal(bridge(features, 3), features.unflatten(1, (3, 4)))
    stir(bridge, size=0.3)
    changed = features.clone()
    changed[:, 5] = normal([9], (WIDTH,))  # a token of frame 1
    before, after = bridge(features, 3), bridge(changed, 3)
    assert torch.equal(before[:, [0, 2]], after[:, [0, 2]])
    assert (before[:, 1] != after[:, 1]).any(-1).all()


def test_special_tokens_have_a_set_for_the_first_frame_and_one_for_all_others() -> None:
    camera, registers = special_tokens(4, WIDTH)
    camera.data.copy_(normal([1], camera.shape[1:])), registers.data.copy_(normal([2], registers.shape[1:]))
    patches = normal([3, 4], (3, 6, WIDTH))
    tokens = with_specials(patches, camera, registers)
    assert tokens.shape == (2, 3, 11, WIDTH)
    assert torch.equal(tokens[:, :, 5:], patches)
    for frame, chosen in enumerate((0, 1, 1)):
        assert torch.equal(tokens[1, frame, :1], camera[0, chosen])
        assert torch.equal(tokens[1, frame, 1:5], registers[0, chosen])


def test_block_is_its_definition() -> None:
    block = GeoBlock(WIDTH, HEADS, 24)
    stir(block, size=0.3)
    hidden, time = normal([1, 2], (3, 7, WIDTH)), normal([3, 4], (6, WIDTH))
    frame_table = plane_table(1, 2, 5, WIDTH // HEADS, CPU)
    tables = frame_table, repeated(frame_table, 3)
    framed, attended = block.attend(hidden, time, tables)
    fed = block.feed(attended, time)

    attend, feed = block.attend, block.feed
    shift, scale = (time[:, None, None, place] for place in (0, 1))
    rows = attend.modulation
    x = hidden
    y = attend.norm_frame(x) * (1 + rows[1] + scale) + rows[0] + shift
    x = x + attend.scale_frame * torch.stack([attend.frame(y[:, frame], tables[0]) for frame in range(3)], 1)
    torch.testing.assert_close(framed, x)
    y = attend.norm_all(x) * (1 + rows[3] + scale) + rows[2] + shift
    x = x + attend.scale_all * attend.all(y.flatten(1, 2), tables[1]).unflatten(1, (3, 7))
    torch.testing.assert_close(attended, x)
    y = feed.norm(x) * (1 + feed.modulation[1] + time[:, None, None, 4]) + feed.modulation[0] + time[:, None, None, 3]
    x = x + feed.scale * feed.down(functional.gelu(feed.up(y), approximate="tanh"))
    torch.testing.assert_close(fed, x)


def test_frames_meet_in_global_attention_only() -> None:
    block = GeoBlock(WIDTH, HEADS, 24)
    stir(block, size=0.3)
    hidden, time = normal([1], (3, 7, WIDTH)), normal([3], (6, WIDTH))
    table = plane_table(1, 2, 5, WIDTH // HEADS, CPU)
    changed = hidden.clone()
    changed[:, 2, 0] = normal([9], (WIDTH,))
    (framed, attended), (other, other_attended) = (
        block.attend(x, time, (table, repeated(table, 3))) for x in (hidden, changed)
    )
    assert torch.equal(framed[:, :2], other[:, :2]) and not torch.equal(framed[:, 2], other[:, 2])
    assert (attended != other_attended).any(-1).all()


def test_self_attention_is_softmax_of_normed_heads() -> None:
    attention = SelfAttention(WIDTH, HEADS, norm=True)
    stir(attention, size=0.3)
    tokens = normal([1, 2], (6, WIDTH))
    table = plane_table(2, 3, 0, 8, CPU)
    out = torch.zeros(2, 6, WIDTH)
    query, key, value = attention.qkv(tokens).chunk(3, -1)
    for head in range(HEADS):
        part = slice(8 * head, 8 * head + 8)
        q, k = rotated(attention.norm_q(query[..., part]), table), rotated(attention.norm_k(key[..., part]), table)
        out[..., part] = (q @ k.mT / 8**0.5).softmax(-1) @ value[..., part]
    torch.testing.assert_close(attention(tokens, table), attention.proj(out))


def test_two_way_cross_attention_is_its_definition() -> None:
    cross = TwoWayCrossAttention(WIDTH, 24, 2)
    stir(cross, size=0.3)
    video, geometry = normal([1, 2], (8, WIDTH)), normal([3, 4], (2, 9, WIDTH))
    tables = space_time_tables((2, 2, 2), 5, 12, CPU)
    out_video, out_geometry = cross(video, geometry, tables)

    seen, made = (functional.layer_norm(x, (WIDTH,), eps=1e-6) for x in (video, geometry.flatten(1, 2)))
    to_video, to_geometry = torch.zeros(2, 8, 24), torch.zeros(2, 18, 24)
    for head in range(2):
        part = slice(12 * head, 12 * head + 12)
        q, k = rotated(cross.query(seen)[..., part], tables[0]), rotated(cross.key(made)[..., part], tables[1])
        scores = q @ k.mT / 12**0.5
        to_video[..., part] = scores.softmax(-1) @ cross.value_geometry(made)[..., part]
        to_geometry[..., part] = scores.mT.softmax(-1) @ cross.value_video(seen)[..., part]
    torch.testing.assert_close(out_video, video + cross.gate_video * cross.out_video(to_video))
    expected = geometry + (cross.gate_geometry * cross.out_geometry(to_geometry)).unflatten(1, (2, 9))
    torch.testing.assert_close(out_geometry, expected)


def test_cross_attention_starts_closed_and_can_be_shut_for_a_sample() -> None:
    cross = TwoWayCrossAttention(WIDTH, 24, 2)
    cross.init_weights(torch.Generator().manual_seed(0))
    video, geometry = normal([1, 2], (8, WIDTH)), normal([3, 4], (2, 9, WIDTH))
    tables = space_time_tables((2, 2, 2), 5, 12, CPU)
    closed = cross(video, geometry, tables)
    assert torch.equal(closed[0], video) and torch.equal(closed[1], geometry)
    bound = (6 / (WIDTH + 24)) ** 0.5
    assert 0.9 * bound < cross.query.weight.abs().max() <= bound and (cross.query.bias == 0).all()
    stir(cross, size=0.3)
    out = cross(video, geometry, tables, torch.tensor([False, True]))
    assert torch.equal(out[0][0], video[0]) and torch.equal(out[1][0], geometry[0])
    assert not torch.equal(out[0][1], video[1]) and not torch.equal(out[1][1], geometry[1])


def test_pose_encoder_averages_the_frames_of_a_latent() -> None:
    encoder = PoseEncoder(5, WIDTH)
    rays = normal([1, 2], (6, 9, 32, 48))
    encoder.init_weights(torch.Generator().manual_seed(0))
    assert (encoder(rays) == 0).all()
    stir(encoder, size=0.3)
    tokens = encoder(rays)
    assert tokens.shape == (2, 3, 2, 3, WIDTH)
    mixed = torch.stack(
        [functional.silu(encoder.mix(functional.pixel_unshuffle(rays[:, :, f], 8))) for f in range(9)], 1
    )
    means = torch.stack([mixed[:, 0], mixed[:, 1:5].mean(1), mixed[:, 5:9].mean(1)], 1)
    # The token at row 1, column 2 is made of the 2 x 2 cells that begin at row 2, column 4.
    expected = torch.einsum("btcij,dcij->btd", means[..., 2:4, 4:6], encoder.join.weight) + encoder.join.bias
    torch.testing.assert_close(tokens[:, :, 1, 2], expected)


def test_a_single_latent_frame_has_camera_tokens() -> None:
    assert PoseEncoder(5, WIDTH)(normal([1], (6, 1, 16, 16))).shape == (1, 1, 1, 1, WIDTH)


def test_camera_adapter_starts_silent() -> None:
    adapter = CameraAdapter(WIDTH)
    adapter.init_weights(torch.Generator())
    camera = normal([1], (4, WIDTH))
    assert (adapter(camera) == 0).all()
    stir(adapter)
    torch.testing.assert_close(adapter(camera), adapter.linear(camera * camera.sigmoid()))
