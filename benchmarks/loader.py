"""Does the loader starve the training? Ours against a plain one: clips a second, CPU time a clip, and what a step waits.

    python benchmarks/loader.py [--data_root DIR | --long] [--workers 1 --batches 40 --repeats 3 --frame_cache_mb 1024]

Without --data_root the embedded rooms are rendered into a temporary folder (16 of 37 frames, as in the demo); --long makes 4
videos of 900 frames of them, with a keyframe every 60. The plain loader is what one writes first: torch's DataLoader over a
data set that opens the video with PyAV, decodes from its start up to the last wanted frame, converts the wanted ones, cuts and
resizes. All are asked for the same clips by as many worker processes, in turns; ratios are taken within a repetition.

Then `--steps` steps tell the share of the time that they wait for a batch: optimizer steps of the demo's model, and steps that
only take `--pace` milliseconds, as where another device computes. CPU time is that of this process and of the workers; on a
machine that does other work it is the number that repeats.
"""

import argparse
import itertools
import resource
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import closing
from pathlib import Path

import av
import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor
from torch.utils.data import DataLoader, Dataset

from timing import spread
from tinyworld.config.load import load_recipe
from tinyworld.config.schema import TaehvRecipe
from tinyworld.core.rng import seed_all
from tinyworld.data.clips import ClipDataset
from tinyworld.data.loader import ClipBatch, train_batches
from tinyworld.data.order import Draw, Order
from tinyworld.data.rooms import make_rooms
from tinyworld.engine.accelerate_setup import training_device
from tinyworld.media.read import iter_frames
from tinyworld.tasks.taehv import TaehvTask
from tinyworld.tasks.taehv.clips import clip_dataset, order

ROOMS, ROOM_FRAMES = 16, 37
LONG_VIDEOS, LONG_FRAMES, LONG_KEYFRAMES = 4, 900, 60

Batches = Iterator[ClipBatch]
Open = Callable[[int], Batches]
"""Batches of that many steps."""


class PlainDataset(Dataset[Tensor]):
    """The clips that `ours` would give, read in the plain way: uint8 T C H W."""

    def __init__(self, ours: ClipDataset) -> None:
        self.ours = ours

    def __getitem__(self, draw: Draw) -> Tensor:
        cut = self.ours.plan(draw)
        top, left, height, width = cut.region
        wanted, found = set(cut.numbers), {}
        with av.open(str(cut.clip.path)) as container:
            container.streams.video[0].thread_count = 1  # as ours: the workers are the parallelism
            for number, frame in enumerate(container.decode(video=0)):
                if number in wanted:
                    found[number] = frame.to_ndarray(format="rgb24")[top : top + height, left : left + width]
                if len(found) == len(wanted):
                    break
        pictures = torch.from_numpy(np.stack([found[number] for number in cut.numbers])).permute(0, 3, 1, 2)
        if (height, width) != (cut.height, cut.width):
            pictures = F.interpolate(pictures.float(), (cut.height, cut.width), mode="bicubic", antialias=True)
            pictures = pictures.round().clamp(0, 255).to(torch.uint8)
        return (pictures.flip(-1) if cut.mirror else pictures).contiguous()


def plain_batches(ours: ClipDataset, clips: Order, steps: int, workers: int) -> Batches:
    draws = [clips.batch(step) for step in range(steps)]
    loader = DataLoader(PlainDataset(ours), batch_sampler=draws, num_workers=workers)  # type: ignore[arg-type]
    for frames, batch in zip(loader, draws, strict=True):
        names = [ours.clips[draw.index].id for draw in batch]
        yield ClipBatch(frames, names, [0] * len(names), [1] * len(names), [], [draw.noise_seed for draw in batch])


def our_batches(ours: ClipDataset, clips: Order, steps: int, workers: int, prefetch: int) -> Batches:
    with closing(train_batches(ours, clips, 0, steps, num_workers=workers, prefetch=prefetch)) as batches:  # type: ignore[type-var]
        for (batch,) in batches:
            yield batch


def cpu_seconds() -> float:
    """Of this process and of all its processes that have ended."""
    used = [resource.getrusage(who) for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN)]
    return sum(times.ru_utime + times.ru_stime for times in used)


def drain(opened: Open, batches: int, size: int) -> tuple[float, float]:
    """Seconds and CPU seconds per clip, from opening the loader until its workers have ended."""
    began, used = time.perf_counter(), cpu_seconds()
    for _ in opened(batches):
        pass
    clips = batches * size
    return (time.perf_counter() - began) / clips, (cpu_seconds() - used) / clips


def waiting(opened: Open, steps: int, work: Callable[[int, ClipBatch], None]) -> float:
    """The share of `steps` steps that is waiting for a batch; the first one, which starts the workers, left out."""
    waited, began = 0.0, 0.0
    batches = opened(steps + 1)
    for step in range(steps + 1):
        asked = time.perf_counter()
        batch = next(batches)
        if step == 0:
            began = time.perf_counter()
        else:
            waited += time.perf_counter() - asked
        work(step, batch)
    share = waited / (time.perf_counter() - began)
    list(batches)
    return share


def training(task: TaehvTask, device: torch.device) -> Callable[[int, ClipBatch], None]:
    """An optimizer step of the demo's model."""
    model = task.model.to(device)
    optimizer = torch.optim.AdamW(model.parameters(), 1e-4)

    def work(step: int, batch: ClipBatch) -> None:
        with torch.autocast(device.type, torch.bfloat16):
            total = task.step(model, batch, device, step).total
        total.backward()
        optimizer.step()
        optimizer.zero_grad()
        total.item()  # waits for the device

    return work


def make_videos(folder: Path, long: bool) -> Path:
    rooms = make_rooms(folder / "rooms", ROOMS, ROOM_FRAMES, points=False)
    if not long:
        return rooms
    (folder / "long").mkdir()
    for number, video in enumerate(sorted(rooms.rglob("*.mp4"))[:LONG_VIDEOS]):
        there = list(iter_frames(video))
        with av.open(str(folder / "long" / f"{number}.mp4"), "w") as container:
            stream = container.add_stream("libx264", rate=24, options={"g": str(LONG_KEYFRAMES), "crf": "18"})
            stream.width, stream.height, stream.pix_fmt = 128, 128, "yuv420p"
            for picture in itertools.islice(itertools.cycle([*there, *there[::-1]]), LONG_FRAMES):
                container.mux(stream.encode(av.VideoFrame.from_ndarray(picture, "rgb24")))
            container.mux(stream.encode())
    return folder / "long"


def make_recipe(options: argparse.Namespace, root: Path, folder: str, cache_mb: int) -> TaehvRecipe:
    values = {
        "data_root": str(root), "num_workers": options.workers, "frame_cache_mb": cache_mb, "output_dir": folder,
        "train_batch_size": options.batch, "height": options.size, "width": options.size, "n_frames": options.frames,
        "crop_scale": options.crop_scale, "device": options.device,
    }  # fmt: skip
    return load_recipe("taehv_demo", values)


def apart(first: Sequence[ClipBatch], second: Sequence[ClipBatch]) -> float:
    """Mean difference of the pixels of two loaders, in levels of 255: what two conversions of YUV differ by."""
    pairs = zip(first, second, strict=True)
    return float(np.mean([(a.frames.float() - b.frames.float()).abs().mean().item() for a, b in pairs]))


def measure(options: argparse.Namespace, root: Path, folder: str) -> None:
    recipe = make_recipe(options, root, folder, options.frame_cache_mb)
    task, device = TaehvTask(recipe), training_device(recipe)
    clips, stage, prefetch = task.sources.train, recipe.stages()[0], recipe.data.prefetch_factor
    cached = clip_dataset(recipe, clips, stage)
    bare = clip_dataset(make_recipe(options, root, folder, 0), clips, stage)
    drawn, workers = order(recipe, cached, options.batch), options.workers
    kept = f"ours, {options.frame_cache_mb} MiB of frames kept"
    loaders: dict[str, Open] = {
        "plain": lambda steps: plain_batches(bare, drawn, steps, workers),
        "ours, nothing kept": lambda steps: our_batches(bare, drawn, steps, workers, prefetch),
        kept: lambda steps: our_batches(cached, drawn, steps, workers, prefetch),
    }
    frames = sum(clip.frames for clip in clips)
    print(
        f"{len(clips)} videos of {frames} frames; {options.batches} batches of {options.batch} clips of {options.size} x "
        f"{options.size} x {options.frames} ({options.crop_scale}), {workers} workers, {options.repeats} repetitions"
    )
    off = apart(list(loaders["plain"](2)), list(loaders["ours, nothing kept"](2)))
    print(f"the same clips: pixels {off:.2f} levels apart in the mean")
    works = {
        "a training step": training(task, device),
        f"a step of {options.pace:g} ms that needs no CPU": lambda _step, _batch: time.sleep(options.pace / 1000),
    }
    repeats = range(options.repeats)
    rounds = [
        {name: drain(opened, options.batches, options.batch) for name, opened in loaders.items()} for _ in repeats
    ]
    shares = {
        what: [{name: waiting(opened, options.steps, work) for name, opened in loaders.items()} for _ in repeats]
        for what, work in works.items()
    }
    for name in loaders:
        wall, cpu = [times[name][0] for times in rounds], [times[name][1] for times in rounds]
        print(f"{name}: {spread([1 / t for t in wall], 1)} clips/s, {spread([1000 * t for t in cpu], 1)} CPU ms a clip")
        for what, found in shares.items():
            print(f"    {what} waits {spread([100 * share[name] for share in found], 1)} % of the time")
        if name != "plain":
            faster = [times["plain"][0] / times[name][0] for times in rounds]
            cheaper = [times["plain"][1] / times[name][1] for times in rounds]
            print(f"    plain / this: {spread(faster)} in time, {spread(cheaper)} in CPU time")


def main() -> None:
    made = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    made.add_argument("--data_root", type=Path, help="a folder of videos instead of the rooms")
    made.add_argument("--long", action="store_true", help="long videos instead of the rooms")
    made.add_argument("--workers", type=int, default=1)
    made.add_argument("--batches", type=int, default=40)
    made.add_argument("--batch", type=int, default=4)
    made.add_argument("--size", type=int, default=64)
    made.add_argument("--frames", type=int, default=12)
    made.add_argument("--crop_scale", choices=("native", "cover", "random"), default="native")
    made.add_argument("--frame_cache_mb", type=int, default=1024)
    made.add_argument("--steps", type=int, default=20)
    made.add_argument("--pace", type=float, default=100.0, help="milliseconds")
    made.add_argument("--repeats", type=int, default=3)
    made.add_argument("--device", default="auto", choices=("auto", "cpu", "cuda"))
    options = made.parse_args()
    seed_all(0)
    with tempfile.TemporaryDirectory() as folder:
        measure(options, options.data_root or make_videos(Path(folder), options.long), folder)


if __name__ == "__main__":
    main()
