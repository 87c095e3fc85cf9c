"""All frame arithmetic of the project: pure functions over integers, no torch.

How a TAEHV clip becomes latents and back. With t frames per latent (`t_down`), the encoder makes ceil(n / t) latents of
n frames, repeating the last frame to fill the last latent. The decoder makes t frames (`t_up`) of each latent and runs
t - 1 frames late, so its first t - 1 outputs are dropped. Three laws ("flavours") follow from the video VAEs that the
public weights imitate (madebyollin/taehv, `encode_video` and `decode_video`):

* plain: as above; L latents decode to t·L - (t - 1) frames.
* cogvideox: nothing is dropped when L is even (t·L frames). CogVideoX's own clips of 4k + 1 frames make odd L.
* h3: clips are cut into chunks of 17 frames; each is encoded on its own behind 3 black frames (5 latents), and the last
  3 latents of the clip are left out. Decoding runs through and drops the first 3 of every 20 outputs. 17k + 5 frames
  make 5k + 2 latents make 17k + 5 frames. Where the public decoder invents black frames or drops pictures for other
  latent counts, every real frame is kept here.

Decoded frame i is always about input frame i.
"""

from dataclasses import dataclass
from typing import Protocol

from tinyworld.core.errors import FramePlanError

H3_CHUNK = 17
"""Frames that H3 encodes together."""
H3_LEAD = 3
"""Black frames in front of each chunk."""
H3_CHUNK_LATENTS = 5
H3_LAST_LATENTS = 2
"""Latents kept of a clip's last chunk, which hold its first H3_LAST_FRAMES frames."""
H3_LAST_FRAMES = 5


class TemporalLaw(Protocol):
    """What the arithmetic asks of an architecture (`core.variants.TaehvSpec` has it)."""

    @property
    def t_down(self) -> int: ...
    @property
    def t_up(self) -> int: ...
    @property
    def flavour(self) -> str: ...


@dataclass(frozen=True)
class FramePlan:
    """What happens to the frames of one clip: decoded[:target_frames] is about frames[:target_frames].

    Frames of the clip beyond `target_frames` are only looked at by the encoder; decoded frames beyond it are padding.
    """

    n_frames: int
    """Frames of the clip."""
    encoded_frames: int
    """Frames that the encoder is given: the clip, then its last frame repeated `padding` times."""
    latent_frames: int
    decoded_frames: int
    """Frames that decoding gives, after the dropped ones."""
    target_frames: int

    @property
    def padding(self) -> int:
        """How often the last frame is repeated before encoding."""
        return self.encoded_frames - self.n_frames

    @property
    def mask(self) -> tuple[bool, ...]:
        """One entry per decoded frame: whether the clip has a frame to compare it with."""
        return tuple(i < self.target_frames for i in range(self.decoded_frames))


@dataclass(frozen=True)
class GroupPlan:
    """Consecutive frames in groups of equal size, as Seraena's discriminator takes them as channels."""

    frames: int
    group: int
    groups: int

    @property
    def padding(self) -> int:
        """Slots at the end of the last group that repeat the last frame."""
        return self.groups * self.group - self.frames

    @property
    def indices(self) -> tuple[tuple[int, ...], ...]:
        """Frame index of every slot of every group. Flattened and cut to `frames` entries it is 0, 1, 2, …"""
        return tuple(
            tuple(min(g * self.group + slot, self.frames - 1) for slot in range(self.group)) for g in range(self.groups)
        )

    @property
    def mask(self) -> tuple[tuple[bool, ...], ...]:
        """Whether each slot of each group holds its own frame rather than padding."""
        return tuple(
            tuple(g * self.group + slot < self.frames for slot in range(self.group)) for g in range(self.groups)
        )


def encoded_count(n_frames: int, spec: TemporalLaw) -> int:
    """Frames that the encoder needs for a clip of n: the last frame repeated up to it. H3 may need fewer than n."""
    _check_count(n_frames, "n_frames")
    if spec.flavour == "h3":
        return (_ceil(n_frames, H3_CHUNK) - 1) * H3_CHUNK + H3_LAST_FRAMES
    return _ceil(n_frames, spec.t_down) * spec.t_down


def latent_count(n_frames: int, spec: TemporalLaw) -> int:
    """Latents that `encode` makes of n frames (the public encoder's count)."""
    encoded = encoded_count(n_frames, spec)
    if spec.flavour == "h3":
        return encoded // H3_CHUNK * H3_CHUNK_LATENTS + H3_LAST_LATENTS
    return encoded // spec.t_down


def is_kept(output: int, latents: int | None, spec: TemporalLaw) -> bool:
    """Whether the decoder's raw output frame of this index belongs to the decoded clip of `latents` latents.

    Only CogVideoX's law asks for `latents`, so the others can do without (None) while a clip still grows.
    """
    late = spec.t_up - 1
    if spec.flavour == "h3":
        return output % (H3_CHUNK_LATENTS * spec.t_up) >= late
    if spec.flavour == "cogvideox":
        if latents is None:
            raise FramePlanError("which CogVideoX frames are kept depends on the number of latents, which is not given")
        return latents % 2 == 0 or output >= late
    return output >= late


def kept_runs(latents: int, spec: TemporalLaw) -> list[range]:
    """The raw output frames that are kept of `latents` latents, as runs of consecutive indices (never empty ones)."""
    _check_count(latents, "latents")
    outputs, late = latents * spec.t_up, spec.t_up - 1
    if spec.flavour == "h3":
        chunk = H3_CHUNK_LATENTS * spec.t_up
        return [range(start + late, min(start + chunk, outputs)) for start in range(0, outputs, chunk)]
    return [range(0 if is_kept(0, latents, spec) else late, outputs)]


def decoded_count(latents: int, spec: TemporalLaw) -> int:
    """Frames that `decode` makes of `latents` latents."""
    return sum(len(run) for run in kept_runs(latents, spec))


def group_positions(frames: int, latents: int, spec: TemporalLaw) -> tuple[int, ...]:
    """Place of each of the first `frames` decoded frames among the `t_up` outputs of the latent that it was made of.

    The plain law gives t - 1 to the first frame, the only one kept of its latent, then 0, 1, … t - 1 over and over.
    Raises FramePlanError when the latents hold fewer frames.
    """
    kept = [output for run in kept_runs(latents, spec) for output in run]
    if not 1 <= frames <= len(kept):
        raise FramePlanError(f"frames={frames}, but {latents} latents decode to {len(kept)} frames.", (len(kept),))
    return tuple(output % spec.t_up for output in kept[:frames])


def shown_frames(latents: int, spec: TemporalLaw) -> tuple[int, ...]:
    """Which input frame each decoded frame is about. At full rate 0, 1, 2, …; a reduced-rate preview skips frames.

    Raises FramePlanError for a decoder that grows time partly: its frames are not evenly spaced.
    """
    if spec.t_up not in (1, spec.t_down):
        raise FramePlanError(
            f"a decoder with {spec.t_up}x time growth for {spec.t_down}x compression shows unevenly spaced frames; "
            f"use the full rate ({spec.t_down}x) or one frame per latent (1x)"
        )
    step = spec.t_down // spec.t_up
    full = [step * (output + 1) - 1 for run in kept_runs(latents, spec) for output in run]
    if spec.flavour == "h3":
        chunk = H3_CHUNK_LATENTS * spec.t_down
        return tuple(index // chunk * H3_CHUNK + index % chunk - H3_LEAD for index in full)
    late = 0 if spec.flavour == "cogvideox" and latents % 2 == 0 else spec.t_down - 1
    return tuple(index - late for index in full)


def round_trip_plan(n_frames: int, spec: TemporalLaw) -> FramePlan:
    """The least padding with which decoding gives every frame of the clip back; exists for any n_frames ≥ 1.

    CogVideoX clips always get an odd number of latents. A causal network learns one alignment: with odd counts, as
    CogVideoX's own clips of 4k + 1 frames have (49 frames, 13 latents), decoded frame i is raw output i + 3; the even
    law would ask the same weights for frame i at output i, three frames before the decoder has seen it whole. So 12
    and 16 frames take 5 latents, which decode to 17.
    """
    _check_full_rate(spec)
    encoded = encoded_count(n_frames, spec)
    while (
        encoded < n_frames
        or decoded_count(latent_count(encoded, spec), spec) < n_frames
        or (spec.flavour == "cogvideox" and latent_count(encoded, spec) % 2 == 0)
    ):
        encoded += H3_CHUNK if spec.flavour == "h3" else spec.t_down
    latents = latent_count(encoded, spec)
    return FramePlan(n_frames, encoded, latents, decoded_count(latents, spec), n_frames)


def training_plan(n_frames: int, spec: TemporalLaw, pad: bool = False) -> FramePlan:
    """How a training window of n_frames is used.

    Without `pad` only windows that fill whole latents are taken, so that nothing the model sees is made up; the last
    t - 1 frames are then context for the encoder and have no decoded counterpart. With `pad` any window works: its
    last frame is repeated until every frame is decoded, and the surplus is masked.

    Raises FramePlanError with the nearest valid counts.
    """
    _check_count(n_frames, "n_frames")
    if pad:
        return round_trip_plan(n_frames, spec)
    _check_full_rate(spec)
    if encoded_count(n_frames, spec) != n_frames:
        period, offset = (H3_CHUNK, H3_LAST_FRAMES) if spec.flavour == "h3" else (spec.t_down, 0)
        nearest = nearest_counts(n_frames, period, offset)
        rule = f"{period}k + {offset}" if offset else f"a multiple of {period}"
        raise FramePlanError(
            f"n_frames={n_frames} does not fill whole latents: this model takes {rule} frames. "
            f"Use {' or '.join(map(str, nearest))} (key: data.n_frames), or set data.pad_frames=true to pad to "
            f"{round_trip_plan(n_frames, spec).encoded_frames} frames, of which all {n_frames} are decoded, and mask the rest.",
            nearest,
        )
    latents = latent_count(n_frames, spec)
    decoded = decoded_count(latents, spec)
    return FramePlan(n_frames, n_frames, latents, decoded, min(decoded, n_frames))


def seraena_groups(frames: int, group: int, pad: bool = False) -> GroupPlan:
    """Cut `frames` consecutive frames into groups of `group`, so that the inverse is exact.

    A group size that does not divide the frames is refused with the sizes that do; with `pad` the last group is filled
    with the last frame and the plan's mask says so.

    Raises FramePlanError (its `nearest` holds the nearest group sizes).
    """
    _check_count(frames, "frames")
    _check_count(group, "group")
    if frames % group and not pad:
        sizes = divisors(frames)
        nearest = (*[s for s in sizes if s < group][-1:], *[s for s in sizes if s > group][:1])
        raise FramePlanError(
            f"groups of {group} do not divide {frames} decoded frames. Use a group size of "
            f"{' or '.join(map(str, sizes))}, or pad the last group and mask it.",
            nearest,
        )
    return GroupPlan(frames, group, _ceil(frames, group))


def divisors(count: int) -> tuple[int, ...]:
    """All divisors, ascending."""
    _check_count(count, "count")
    return tuple(size for size in range(1, count + 1) if count % size == 0)


def nearest_counts(n: int, period: int, offset: int) -> tuple[int, ...]:
    """The valid counts period·k + offset (at least 1) around n: n alone when valid, else those below and above."""
    if n >= 1 and n % period == offset % period and n >= offset:
        return (n,)
    least = offset if offset >= 1 else period
    below = (n - offset) // period * period + offset
    return (below, below + period) if below >= least else (least,)


def nearest_wan_counts(n: int) -> tuple[int, ...]:
    """The frame counts 4k + 1 around n, which Wan's video VAE and transformer take."""
    return nearest_counts(n, 4, 1)


def wan_latent_count(n_frames: int) -> int:
    """Latents of Wan's video VAE for 4k + 1 frames: the first frame alone, then four at a time.

    Raises FramePlanError with the nearest valid counts.
    """
    nearest = nearest_wan_counts(n_frames)
    if nearest != (n_frames,):
        raise FramePlanError(
            f"n_frames={n_frames} is not 4k + 1, as Wan needs (the first frame alone, then four per latent). "
            f"Use {' or '.join(map(str, nearest))} (key: data.n_frames).",
            nearest,
        )
    return (n_frames - 1) // 4 + 1


def _ceil(count: int, size: int) -> int:
    return -(-count // size)


def _check_count(count: int, name: str) -> None:
    if count < 1:
        raise FramePlanError(f"{name}={count} must be at least 1.", (1,))


def _check_full_rate(spec: TemporalLaw) -> None:
    """A plan pairs decoded frames with input frames, which a reduced-rate decoder does not do one to one."""
    if spec.t_up != spec.t_down:
        raise FramePlanError(
            f"a decoder with {spec.t_up}x time growth for {spec.t_down}x compression returns fewer frames than went "
            "in; frame plans need the full rate. Use the full model for training and reconstruction."
        )
