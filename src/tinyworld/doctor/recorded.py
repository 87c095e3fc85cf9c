"""The sixteen errors that the TAEHV guide records, each with the words in which it showed itself there.

Messages of one form are told apart by their numbers. With 4x time compression and n frames, decoding gives
4·ceil(n / 4) - 3 frames and the old target had n - 3 (error 12); with the CogVideoX weights and an even number of
latents it gives n, and the target still had n - 3 (error 14). The old grouping helper then added 3 frames to whatever
the target had (errors 13 and 15).
"""

import math

from tinyworld.core.frames import nearest_counts
from tinyworld.doctor.causes import Cause, Facts

T_DOWN = 4
TRIMMED = T_DOWN - 1
EVEN_LATENTS = 2 * T_DOWN
"""Frames of two latents: multiples of it make an even number of latents."""


def _unfilled_latents(facts: Facts) -> Facts | None:
    decoded, target = int(facts["decoded"]), int(facts["target"])
    n_frames = target + TRIMMED
    if n_frames % T_DOWN == 0 or decoded != math.ceil(n_frames / T_DOWN) * T_DOWN - TRIMMED:
        return None
    below, above = (0, *nearest_counts(n_frames, T_DOWN, 0))[-2:]
    return {
        "n_frames": n_frames,
        "latents": math.ceil(n_frames / T_DOWN),
        "below": below or above,
        "above": above,
        "odd": above if above % EVEN_LATENTS else below,
    }


def _even_latents(facts: Facts) -> Facts | None:
    decoded, target = int(facts["decoded"]), int(facts["target"])
    if decoded % EVEN_LATENTS or decoded - target != TRIMMED:
        return None
    return {"latents": decoded // T_DOWN, "below": decoded - T_DOWN, "above": decoded + T_DOWN}


def _lost_frames(facts: Facts) -> Facts | None:
    decoded, target = int(facts["decoded"]), int(facts["target"])
    return {"lost": decoded - target} if decoded > target else None


def _grouped_trimmed(facts: Facts) -> Facts | None:
    count, group = int(facts["count"]), int(facts["group"])
    if _grouped_untrimmed(facts) or count <= TRIMMED:
        return None
    return {"decoded": count - TRIMMED, "lost": count % group}


def _grouped_untrimmed(facts: Facts) -> Facts | None:
    real = int(facts["count"]) - TRIMMED
    if real < EVEN_LATENTS or real % EVEN_LATENTS:
        return None
    return {"real": real, "below": real - T_DOWN, "above": real + T_DOWN}


def _not_a_multiple(facts: Facts) -> Facts | None:
    per_clip = int(facts["frames"]) * 3 * int(facts["height"]) * int(facts["width"])
    size = int(facts["size"])
    return {"ratio": round(size / per_clip, 2)} if size % per_clip else None


def _configured_count(facts: Facts) -> Facts | None:
    actual, configured = int(facts["actual"]), int(facts["configured"])
    batch = (actual - configured) // TRIMMED
    if batch < 1 or (actual - configured) % TRIMMED or configured % batch:
        return None
    return {"batch": batch, "counted": actual // batch, "n_frames": configured // batch}


def _mismatch(first: str, second: str, dimension: int) -> str:
    """PyTorch's words for two sizes that differ, which are caught under these names."""
    return (
        rf"[Tt]he size of tensor a \((?P<{first}>\d+)\) must match the size of tensor b \((?P<{second}>\d+)\) "
        rf"at non-singleton dimension {dimension}\b"
    )


SIZES = _mismatch("decoded", "target", 1)
BROADCAST = (
    r"target size \(torch\.Size\(\[\d+, (?P<target>\d+), 3, \d+, \d+\]\)\) that is different to the\s+input size "
    r"\(torch\.Size\(\[\d+, (?P<decoded>\d+), 3, "
)
GROUPS = r"[Ff]rame count (?P<count>\d+) is not divisible by n_seraena_frames (?P<group>\d+)"
ZERO = r"zero stage [123] requires an optimizer"

RECORDED: tuple[Cause, ...] = (
    Cause(
        slug="seraena-context",
        title="Seraena's context was built for the configured frame count, not for the frames that were there",
        guide_error=16,
        patterns=(_mismatch("actual", "configured", 0),),
        fits=_configured_count,
        why="{batch} clips of {counted} frames (as the grouping helper counted) met a context for {batch} clips of "
        "{n_frames}. The context was also averaged over channels instead of time, and the exception was swallowed, "
        "so the adversarial loss never ran.",
        prevented="The context is the time-mean of each clip's latents, repeated for each of its groups; shapes "
        "are checked, and an error in the adversarial part stops the run instead of being logged.",
        now="Use the recipe's keys as they are: --use_seraena true --n_seraena_frames 3. To train without it: "
        "--use_seraena false.",
    ),
    Cause(
        slug="seraena-grouping",
        title="Seraena's grouping was not undone by its inverse",
        guide_error=11,
        patterns=(
            r"shape '\[-1, (?P<frames>\d+), 3, (?P<height>\d+), (?P<width>\d+)\]' is invalid for input of size (?P<size>\d+)",
        ),
        fits=_not_a_multiple,
        why="{size} values are {ratio} clips of {frames} frames of {height} x {width}: ungrouping guessed the "
        "frame count from what grouping had left.",
        prevented="One plan (core.frames.seraena_groups) both groups and ungroups; the two are exact inverses for "
        "every frame count, which is tested for all of them.",
        now="Nothing to set. Any n_frames that `tinyworld check RECIPE` accepts works with any n_seraena_frames "
        "that it accepts.",
    ),
    Cause(
        slug="untrimmed-then-padded",
        title="19 frames for 16: the grouping helper added 3 frames where nothing had been trimmed",
        guide_error=15,
        patterns=(GROUPS,),
        fits=_grouped_untrimmed,
        why="{real} decoded frames are a multiple of 8, so the CogVideoX weights decode them all; the helper added "
        "the 3 trimmed frames all the same and counted {count}. The decoder has no hidden logic.",
        prevented="Nothing is added to decoded frames: 16 frames reconstruct to exactly 16.",
        now="Any n_seraena_frames works, 3 is usual; a group of 1 hid the symptom, but takes motion away from the "
        "discriminator. With the reference VAE: --n_frames {below} or {above}, an odd number of latents.",
    ),
    Cause(
        slug="groups-lose-frames",
        title="The group size of Seraena does not divide the frames, and frames were cut off",
        guide_error=13,
        patterns=(GROUPS,),
        fits=_grouped_trimmed,
        why="{decoded} decoded frames and 3 repeated ones are {count}; groups of {group} leave {lost} over, which "
        "were dropped without an error.",
        prevented="No frame is lost: the last group is filled up with the last frame.",
        now="Nothing to set: any n_seraena_frames works, 3 is usual. To fill every group: n_frames 24 has 21 "
        "decoded frames (groups of 3 or 7), 28 has 25 (groups of 5).",
    ),
    Cause(
        slug="groups-lose-frames",
        title="The group size of Seraena does not divide the frames, and frames were cut off",
        guide_error=13,
        patterns=(
            r"[Ss]hape mismatch: decoded torch\.Size\(\[\d+, (?P<decoded>\d+), "
            r".*seraena_target torch\.Size\(\[\d+, (?P<target>\d+), ",
        ),
        fits=_lost_frames,
        why="{decoded} frames were decoded, and {target} came back from the corrector: {lost} fell out of the last "
        "group.",
        prevented="No frame is lost: the last group is filled up with the last frame.",
        now="Nothing to set: any n_seraena_frames works, 3 is usual. To fill every group: n_frames 24 has 21 "
        "decoded frames (groups of 3 or 7), 28 has 25 (groups of 5).",
    ),
    Cause(
        slug="groups-lose-frames",
        title="A group size that does not divide the decoded frames",
        guide_error=13,
        patterns=(r"groups of (?P<group>\d+) do not divide (?P<decoded>\d+) decoded frames",),
        why="{decoded} decoded frames do not make whole groups of {group}.",
        prevented="Frames are never dropped in silence: training fills the last group up, and whoever asks for "
        "exact groups is told.",
        now="Set n_seraena_frames to one of the sizes named in the message, or another n_frames.",
    ),
    Cause(
        slug="even-latents",
        title="CogVideoX weights decode an even number of latents untrimmed, and the target was trimmed",
        guide_error=14,
        patterns=(SIZES, BROADCAST),
        fits=_even_latents,
        why="{latents} latents are an even number: taecvx gives all {decoded} frames back, and the target had "
        "{target}.",
        prevented="Decoded and target frames come from one plan that knows each variant's law. An encoder is not "
        "taught both alignments: with the reference VAE an even number of latents is refused, without one the "
        "model follows the plain law.",
        now="With the reference VAE: --n_frames {below} or {above}, an odd number of latents. With --use_ref_vae "
        "false, n_frames={decoded} trains as it is.",
    ),
    Cause(
        slug="unfilled-latents",
        title="n_frames does not fill whole latents, so decoded frames and target differ",
        guide_error=12,
        patterns=(SIZES, BROADCAST),
        fits=_unfilled_latents,
        why="n_frames was {n_frames}: {latents} latents, which decode to {decoded} frames, against a target of "
        "{target}.",
        prevented="Such a count is refused before anything is loaded, with the nearest counts that work; with "
        "pad_frames any count trains on the right target.",
        now="--n_frames {above} or {below} (with CogVideoX's reference VAE {odd}, an odd number of latents); or "
        "--n_frames {n_frames} --pad_frames true.",
    ),
    Cause(
        slug="unfilled-latents",
        title="n_frames does not fill whole latents",
        guide_error=12,
        patterns=(r"n_frames=(?P<n_frames>\d+) does not fill whole latents",),
        why="Each latent stands for 4 frames (8 with LTX-2). {n_frames} frames would leave the last latent part empty.",
        prevented="It is refused before anything is loaded; earlier scripts failed at the first loss.",
        now="Take one of the counts in the message with --n_frames, or keep {n_frames} with --pad_frames true.",
    ),
    Cause(
        slug="optimizer-for-seraena",
        title="Seraena was given to the engine's prepare(), which wants an optimizer for it",
        guide_error=10,
        patterns=(ZERO, r"seraena\s*=\s*accelerator\.prepare\("),
        near=r"seraena\s*=\s*accelerator\.prepare|prepare\(seraena",
        why="DeepSpeed ZeRO prepares only modules that it optimises. Seraena trains itself with an optimizer of "
        "its own.",
        prevented="Each module has a role: trainable (prepared), auxiliary (own optimizer, synchronised and "
        "saved), frozen. Only trainable ones are prepared. Seraena is auxiliary.",
        now="--use_seraena true is all it takes. Copying it to each device without synchronising it, as the old "
        "fix did, trains a different one on every GPU.",
    ),
    Cause(
        slug="optimizer-for-teacher",
        title="A frozen module (the reference VAE) was given to the engine's prepare(), which wants an optimizer "
        "for it",
        guide_error=2,
        patterns=(ZERO,),
        why="DeepSpeed ZeRO prepares only modules that it optimises. A reference VAE is never trained.",
        prevented="Each module has a role: trainable, auxiliary or frozen. Frozen ones are moved to the device and "
        "never prepared.",
        now="--use_ref_vae true --ref_vae_path FOLDER_OR_HUB_ID is all it takes; --use_ref_vae false trains "
        "without one.",
    ),
    Cause(
        slug="tracker-types",
        title="TensorBoard was given a setting that is neither a number nor text",
        guide_error=3,
        patterns=(r"value should be one of int, float, str, bool, or torch\.Tensor",),
        why="Lists, dictionaries, dates and None cannot be stored as hyper-parameters.",
        prevented="One place (config.dump.flatten) turns every setting into a number or text before any tracker "
        "sees it.",
        now="Nothing to set. To train without a tracker: --tracker_name none; journal.jsonl is always written.",
    ),
    Cause(
        slug="mixed-types",
        title="float32 input met bfloat16 weights",
        guide_error=4,
        patterns=(
            r"Input type \((?:c10::)?\w+\) and (?:bias|weight) type \((?:c10::)?\w+\) should be the same",
            r"expected (?:mat1 and mat2|m1 and m2) to have the same dtype, but got",
        ),
        why="The weights themselves had been cast to bf16, and the batch had not.",
        prevented="Weights stay fp32, autocast runs the arithmetic in bf16, and one function casts batches.",
        now="--mixed_precision bf16 needs nothing else; --mixed_precision no runs everything in fp32.",
    ),
    Cause(
        slug="finite-check",
        title="torch.isfinite was asked about a Python number",
        guide_error=6,
        patterns=(r"isfinite\(\): argument 'input' \(position 1\) must be Tensor, not float",),
        why="The clipped gradient norm can be a number or a tensor, depending on the engine below.",
        prevented="One check judges every number of a step, with one verdict for all ranks.",
        now="Nothing to set. max_skipped_steps says how many steps in a row may be skipped before the run ends.",
    ),
    Cause(
        slug="resume-path",
        title="The checkpoint's name was looked for in the new run's folder",
        guide_error=9,
        patterns=(
            r"Tried to find \S+ but folder does not exist",
            r"No checkpoint-\d+ in \S+; there: ",
            r"is not a checkpoint folder \(no readable",
        ),
        why="A full path was cut down to its last part and joined to the folder of the run that had just begun.",
        prevented="One resolver takes a path as it is, a name in the run that is named (or the newest of the "
        "recipe), and `latest`. What is missing is refused with what is there; training never starts over in "
        "silence.",
        now="tinyworld train RECIPE --resume_from_checkpoint latest, or the full path of a checkpoint-N folder. "
        "`tinyworld checkpoint list RUN` shows what there is.",
    ),
    Cause(
        slug="empty-checkpoint",
        title="A checkpoint folder is empty or incomplete",
        guide_error=7,
        patterns=(
            r"checkpoint-\d+ is damaged and is passed over",
            r"checkpoint-\d+ cannot be resumed from",
            r"checkpoint-\d+/manifest\.json is missing or unreadable",
            r"(?i)checkpoint[- ]\d+.{0,20}\b(?:is|was) empty\b",
            r"checkpoint-\d+/?:?\s+total 0\b",
            r"(?i)empty checkpoint (?:folder|director)",
            r"(?i)checkpoint目录.{0,12}空",
        ),
        why="Saving ran on one process only, or was cut off half-way, and left a folder under its final name.",
        prevented="A checkpoint is written aside, digested, read back and only then renamed: it is complete or "
        "absent. `latest` passes over what does not verify.",
        now="tinyworld checkpoint verify RUN, then tinyworld train RECIPE --resume_from_checkpoint latest.",
    ),
    Cause(
        slug="missing-path",
        title="A file was looked for from the wrong folder",
        guide_error=1,
        patterns=(
            r"No such file or directory: '(?P<path>[^']*\.(?:pth|pt|ckpt|safetensors|json|yaml|py))'",
            r"error: No [a-z -]+ at '[^']+': looked at ",
        ),
        why="A relative path means another place whenever the command starts in another folder.",
        prevented="Paths are looked for from the working directory, then beside the recipe that names them. A file "
        "that is missing is named before any work, with the places looked at (exit code 2).",
        now="--pretrained_model_path checkpoints/taecvx.pth from the folder that holds checkpoints/, or an "
        "absolute path.",
    ),
    Cause(
        slug="collective-timeout",
        title="One process waited for another until the communication timed out",
        guide_error=5,
        patterns=(
            r"Watchdog caught collective operation timeout",
            r"ProcessGroup\w+.{0,80}\b[Tt]imed? ?out",
            r"Rank \d+ \(host \S+, pid \d+\) is (?:late|stopped|dead|silent)",
        ),
        why="Most often one rank does something alone while the rest wait (validation on rank 0, a skipped step, "
        "an early stop), or one rank has died before: look above this line for the first error of any rank.",
        prevented="Validation is shared out evenly over the ranks; skips, stops and early stopping are agreed on by "
        "all. A process that is late all the same is named after step_timeout, with its phase, samples and stacks "
        "(ranks/ in the run folder), and the run ends with exit code 76.",
        now="Read ranks/late.json and the stacks beside it; where they are missing, look for the first error in the logs of "
        "all ranks and give it to `tinyworld doctor`. Longer time-outs only hide it. `tinyworld supervise` goes on from "
        "the newest checkpoint.",
    ),
    Cause(
        slug="terminated",
        title="The run was ended from outside by a signal",
        guide_error=8,
        patterns=(
            r"Signal 15 \(SIGTERM\) received",
            r"Received signal (?:15|2)\b",
            r"exitcode\s*:\s*-15\b",
            r"stopped by SIG(?:TERM|INT); saved",
        ),
        why="A scheduler, an operator, a lost connection or a shutdown sent the signal. It is no fault of the "
        "training.",
        prevented="SIGTERM and Ctrl-C end the step, save a complete checkpoint on all ranks and exit with code 75; "
        "a resume gives the run that was never stopped.",
        now="The same command with --run_name RUN --resume_from_checkpoint latest. To have it go on by itself:\n"
        "$ tinyworld supervise RECIPE --run_name RUN",
    ),
    Cause(
        slug="worker-ended",
        title="torchrun reports that one of its processes ended; the reason stands above",
        guide_error=8,
        patterns=(r"ChildFailedError", r"torch\.distributed\.elastic\.multiprocessing"),
        last_resort=True,
        why="This line only repeats that a process ended. With exit code -15 it was a signal, with -9 mostly a "
        "lack of memory, with 1 an error of its own.",
        prevented="Errors of the main rank reach all ranks, and each run's journal.jsonl ends with the reason.",
        now="Give `tinyworld doctor` the lines above this one, from the first Traceback on, or the run folder.",
    ),
)
