"""Frame arithmetic: every variant, every count from 1 to 200."""

from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tinyworld.core import frames as fr
from tinyworld.core.errors import FramePlanError
from tinyworld.core.variants import VARIANTS, variant

N_MAX = 200
specs = st.sampled_from(sorted(VARIANTS)).map(variant)
counts = st.integers(1, N_MAX)
all_variants = pytest.mark.parametrize("name", VARIANTS)


def public_counts(n: int, name: str) -> tuple[int, int]:
    """(latents, decoded frames) of the public implementation, written out law by law."""
    spec = variant(name)
    t = spec.t_down
    if spec.flavour == "h3":
        latents = 5 * -(-n // 17) - 3
        return latents, 17 * -(-latents // 5) - 12
    latents = -(-n // t)
    keeps_all = spec.flavour == "cogvideox" and latents % 2 == 0
    return latents, t * latents - (0 if keeps_all else t - 1)


@all_variants
def test_counts_are_those_of_the_public_code(name: str) -> None:
    spec = variant(name)
    for n in range(1, N_MAX + 1):
        latents = fr.latent_count(n, spec)
        assert (latents, fr.decoded_count(latents, spec)) == public_counts(n, name), n


@pytest.mark.parametrize(
    ("name", "n", "decoded"),
    [
        *[("taehv", 10, 9), ("taehv", 12, 9), ("taehv", 9, 9)],
        *[("taeltx_2", 2, 1), ("taeltx_2", 8, 1), ("taeltx_2", 9, 9)],
        *[("taecvx", 5, 8), ("taecvx", 13, 16), ("taecvx", 12, 9), ("taecvx", 16, 16)],
        *[("taeh3", 17, 5), ("taeh3", 22, 22), ("taeh3", 39, 39), ("taeh3", 124, 124)],
    ],
)
def test_measured_counts(name: str, n: int, decoded: int) -> None:
    assert fr.decoded_count(fr.latent_count(n, variant(name)), variant(name)) == decoded


@all_variants
def test_a_round_trip_gives_back_every_frame_with_the_least_padding(name: str) -> None:
    spec = variant(name)
    for n in range(1, N_MAX + 1):
        plan = fr.round_trip_plan(n, spec)
        assert plan.target_frames == plan.n_frames == n
        assert plan.decoded_frames >= n
        assert plan.latent_frames == fr.latent_count(plan.encoded_frames, spec)
        assert fr.encoded_count(plan.encoded_frames, spec) == plan.encoded_frames  # nothing is padded twice
        assert 0 <= plan.padding < 2 * 17
        assert (len(plan.mask), sum(plan.mask)) == (plan.decoded_frames, n)
        assert plan.mask[:n] == (True,) * n
        for fewer in range(n, plan.encoded_frames):
            if fr.encoded_count(fewer, spec) == fewer:
                latents = fr.latent_count(fewer, spec)
                wrong_alignment = spec.flavour == "cogvideox" and latents % 2 == 0
                assert wrong_alignment or fr.decoded_count(latents, spec) < n


@pytest.mark.parametrize(("n", "latents", "decoded"), [(1, 1, 1), (5, 3, 9), (12, 5, 17), (16, 5, 17), (49, 13, 49)])
def test_cogvideox_round_trips_have_odd_latent_counts(n: int, latents: int, decoded: int) -> None:
    plan = fr.round_trip_plan(n, variant("taecvx"))
    assert (plan.latent_frames, plan.decoded_frames, plan.target_frames) == (latents, decoded, n)


@all_variants
def test_one_alignment_for_every_length(name: str) -> None:
    """The raw output that a round trip shows as frame i does not depend on how long the clip is."""
    spec = variant(name)
    longest = raw_outputs(fr.round_trip_plan(N_MAX, spec), spec)
    for n in range(1, N_MAX):
        plan = fr.round_trip_plan(n, spec)
        assert raw_outputs(plan, spec) == longest[: plan.decoded_frames]


@all_variants
def test_training_and_round_trip_agree(name: str) -> None:
    """What is trained is what is measured; CogVideoX's even counts are the public law and stand apart."""
    spec = variant(name)
    for n in (m for m in range(1, N_MAX + 1) if not refused(m, name)):
        training, measured = fr.training_plan(n, spec), fr.round_trip_plan(n, spec)
        if spec.flavour != "cogvideox" or training.latent_frames % 2:
            assert raw_outputs(training, spec) == raw_outputs(measured, spec)[: training.decoded_frames]


def raw_outputs(plan: fr.FramePlan, spec: fr.TemporalLaw) -> list[int]:
    return [output for run in fr.kept_runs(plan.latent_frames, spec) for output in run]


@pytest.mark.parametrize(
    ("name", "latents", "expected"),
    [
        ("taehv", 3, (3, 0, 1, 2, 3, 0, 1, 2, 3)),
        ("taeltx_2", 2, (7, 0, 1, 2, 3, 4, 5, 6, 7)),
        ("taecvx", 3, (3, 0, 1, 2, 3, 0, 1, 2, 3)),
        ("taecvx", 2, (0, 1, 2, 3, 0, 1, 2, 3)),
        ("taeh3", 7, (3, *(0, 1, 2, 3) * 4, 3, 0, 1, 2, 3)),
    ],
)
def test_positions_in_the_group_of_a_latent(name: str, latents: int, expected: tuple[int, ...]) -> None:
    spec = variant(name)
    for frames in range(1, len(expected) + 1):
        assert fr.group_positions(frames, latents, spec) == expected[:frames]
    for frames in (0, len(expected) + 1):
        with pytest.raises(FramePlanError, match=f"{latents} latents decode to {len(expected)} frames"):
            fr.group_positions(frames, latents, spec)


@all_variants
def test_a_training_plan_is_exact_or_refused_with_counts_that_work(name: str) -> None:
    spec = variant(name)
    exact = 0
    for n in range(1, N_MAX + 1):
        try:
            plan = fr.training_plan(n, spec)
        except FramePlanError as error:
            below = [m for m in error.nearest if m < n]
            above = [m for m in error.nearest if m > n]
            assert len(above) == 1 and len(below) <= 1
            assert (not below) == all(refused(m, name) for m in range(1, n))
            for m in (*below, *above):
                assert not refused(m, name)
            assert all(refused(m, name) for m in range(max(below, default=0) + 1, above[0]))
            assert all(str(m) in str(error) for m in error.nearest)
            assert f"pad to {fr.training_plan(n, spec, pad=True).encoded_frames} frames" in str(error)
        else:
            exact += 1
            assert plan.padding == 0
            assert all(plan.mask)
            assert plan.target_frames == plan.decoded_frames <= n
        assert fr.training_plan(n, spec, pad=True) == fr.round_trip_plan(n, spec)
    assert exact == {"plain": N_MAX // spec.t_down, "cogvideox": 50, "h3": 12}[spec.flavour]


def refused(n: int, name: str) -> bool:
    spec = variant(name)
    return n % 17 != 5 if spec.flavour == "h3" else n % spec.t_down != 0


def test_the_refusal_says_what_to_do() -> None:
    with pytest.raises(FramePlanError) as caught:
        fr.training_plan(19, variant("taehv"))
    assert caught.value.nearest == (16, 20)
    assert str(caught.value) == (
        "n_frames=19 does not fill whole latents: this model takes a multiple of 4 frames. Use 16 or 20 "
        "(key: data.n_frames), or set data.pad_frames=true to pad to 24 frames, of which all 19 are decoded, and mask the rest."
    )


@all_variants
def test_decoded_frame_i_is_about_input_frame_i(name: str) -> None:
    spec = variant(name)
    for latents in range(1, 61):
        assert fr.shown_frames(latents, spec) == tuple(range(fr.decoded_count(latents, spec)))


@all_variants
def test_a_preview_shows_the_last_frame_that_each_latent_completes(name: str) -> None:
    spec = variant(name)
    preview = replace(spec, decoder_time_upscale=(False, False, False))
    for n in range(1, N_MAX + 1):
        latents = fr.latent_count(n, spec)
        shown = fr.shown_frames(latents, preview)
        assert len(shown) == latents == fr.decoded_count(latents, preview)
        kept = {index: i for i, index in enumerate(index for run in fr.kept_runs(latents, spec) for index in run)}
        full = fr.shown_frames(latents, spec)
        assert shown == tuple(full[kept[spec.t_down * (latent + 1) - 1]] for latent in range(latents))


def test_plans_need_the_full_rate() -> None:
    preview = replace(variant("taehv"), decoder_time_upscale=(False, False, False))
    for plan in (fr.training_plan, fr.round_trip_plan):
        with pytest.raises(FramePlanError, match="full rate"):
            plan(16, preview)
    with pytest.raises(FramePlanError, match="unevenly"):
        fr.shown_frames(2, replace(variant("taehv"), decoder_time_upscale=(False, False, True)))


@given(spec=specs, latents=st.integers(1, 80))
def test_runs_hold_exactly_the_kept_outputs(spec: fr.TemporalLaw, latents: int) -> None:
    runs = fr.kept_runs(latents, spec)
    assert all(len(run) > 0 for run in runs)
    kept = [output for output in range(latents * spec.t_up) if fr.is_kept(output, latents, spec)]
    assert [output for run in runs for output in run] == kept
    assert len(kept) == fr.decoded_count(latents, spec)


@given(spec=specs, latents=st.integers(1, 80), output=st.integers(0, 300))
def test_only_cogvideox_needs_the_length_of_the_clip(spec: fr.TemporalLaw, latents: int, output: int) -> None:
    if spec.flavour == "cogvideox":
        with pytest.raises(FramePlanError, match="number of latents"):
            fr.is_kept(output, None, spec)
    else:
        assert fr.is_kept(output, None, spec) == fr.is_kept(output, latents, spec)


@given(frames=counts, group=st.integers(1, 64))
def test_grouping_has_an_exact_inverse(frames: int, group: int) -> None:
    plan = fr.seraena_groups(frames, group, pad=True)
    slots = [index for indices in plan.indices for index in indices]
    mask = [real for group_mask in plan.mask for real in group_mask]
    assert all(len(indices) == group for indices in plan.indices)
    assert slots[:frames] == list(range(frames))
    assert slots[frames:] == [frames - 1] * plan.padding
    assert mask == [True] * frames + [False] * plan.padding
    assert 0 <= plan.padding < group
    if frames % group == 0:
        assert plan == fr.seraena_groups(frames, group)
        assert plan.padding == 0
    else:
        with pytest.raises(FramePlanError, match=f"groups of {group} do not divide {frames}") as caught:
            fr.seraena_groups(frames, group)
        assert all(frames % size == 0 for size in caught.value.nearest)
        assert 1 <= len(caught.value.nearest) <= 2


@given(n=st.integers(-5, N_MAX))
def test_nearest_counts_of_wan_and_h3(n: int) -> None:
    for nearest, period, offset in ((fr.nearest_wan_counts(n), 4, 1), (fr.nearest_counts(n, 17, 5), 17, 5)):
        valid = [m for m in range(1, N_MAX + 40) if m % period == offset]
        around = [max((m for m in valid if m <= n), default=None), min(m for m in valid if m >= n)]
        assert nearest == tuple(dict.fromkeys(m for m in around if m is not None))


def test_wan_latents() -> None:
    assert [fr.wan_latent_count(n) for n in (1, 5, 81)] == [1, 2, 21]
    with pytest.raises(FramePlanError, match=r"Use 81 or 85 \(key: data\.n_frames\)"):
        fr.wan_latent_count(84)


@pytest.mark.parametrize("count", [0, -3])
def test_counts_start_at_one(count: int) -> None:
    for function in (fr.latent_count, fr.round_trip_plan, fr.training_plan, fr.decoded_count):
        with pytest.raises(FramePlanError, match="at least 1"):
            function(count, variant("taehv"))
    with pytest.raises(FramePlanError, match="at least 1"):
        fr.seraena_groups(4, count)
