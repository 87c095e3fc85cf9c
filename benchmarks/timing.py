"""What the speed benchmarks share: interleaved repetitions, ratios with their spread, work done against what the machine can do.

Every repetition runs all candidates once, one after another, so that a busy moment meets all of them; ratios are taken within a
repetition. `--clock cpu` counts the process's CPU time instead of the wall clock and uses one thread: on a machine shared with
others that is the number that repeats.
"""

import argparse
import importlib.util
import statistics
import time
from collections.abc import Callable
from typing import Any

import torch
import torch.nn.functional as F
from torch.utils.flop_counter import FlopCounterMode

Run = Callable[[], Any]


def parser(description: str | None, repeats: int = 5) -> argparse.ArgumentParser:
    made = argparse.ArgumentParser(description=description, formatter_class=argparse.RawDescriptionHelpFormatter)
    made.add_argument("--threads", type=int, default=2, help="1 with --clock cpu")
    made.add_argument("--repeats", type=int, default=repeats)
    made.add_argument("--clock", choices=("wall", "cpu"), default="wall")
    made.add_argument("--variant", default="taew2_1")
    made.add_argument("--height", type=int, default=240)
    made.add_argument("--width", type=int, default=416)
    return made


def prepare(options: argparse.Namespace) -> None:
    if options.clock == "cpu":
        options.threads = 1
    torch.set_num_threads(options.threads)
    torch.manual_seed(0)
    print(f"torch {torch.__version__}, {options.threads} threads, {options.clock} clock, {options.repeats} repetitions")


def onnx_installed() -> bool:
    """Whether the ONNX backend can run here; says so where it cannot."""
    missing = [name for name in ("onnx", "onnxscript", "onnxruntime") if importlib.util.find_spec(name) is None]
    if missing:
        print(f"onnx fp32: left out, {' and '.join(missing)} not installed (pip install 'tinyworld[onnx]')")
    return not missing


def seconds(run: Run, clock: str) -> float:
    read = time.perf_counter if clock == "wall" else time.process_time
    began = read()
    run()
    return read() - began


def interleaved(candidates: dict[str, Run], options: argparse.Namespace) -> dict[str, list[float]]:
    """Seconds of each candidate in each repetition, after one round that is not counted."""
    for run in candidates.values():
        run()
    rounds = [{name: seconds(run, options.clock) for name, run in candidates.items()} for _ in range(options.repeats)]
    return {name: [times[name] for times in rounds] for name in candidates}


def work(run: Run) -> float:
    """GFLOP of convolutions and matrix products, 1 multiply-add = 2."""
    with FlopCounterMode(display=False) as counter:
        run()
    return counter.get_total_flops() / 1e9


def peak(dtype: torch.dtype, clock: str) -> dict[str, float]:
    """GFLOP/s of a large matrix product and of a 3×3 convolution with 256 channels, the best of five each."""
    left, right = (torch.randn(2048, 2048, dtype=dtype) for _ in range(2))
    x = torch.randn(1, 256, 60, 104, dtype=dtype).contiguous(memory_format=torch.channels_last)
    weight = torch.randn(256, 256, 3, 3, dtype=dtype).contiguous(memory_format=torch.channels_last)
    runs: dict[str, Run] = {"matmul": lambda: left @ right, "convolution": lambda: F.conv2d(x, weight, padding=1)}
    found = {}
    with torch.no_grad():
        for name, run in runs.items():
            run()
            found[name] = work(run) / min(seconds(run, clock) for _ in range(5))
    return found


def _effort(flops: float | None, own: list[float], peaks: dict[str, float]) -> str:
    if flops is None:
        return ""
    rate = flops / statistics.median(own)
    shares = ", ".join(f"{rate / value:.0%} of the {kind} peak" for kind, value in peaks.items())
    return f", {flops:.0f} GFLOP, {rate:.0f} GFLOP/s ({shares})"


def spread(values: list[float], digits: int = 2) -> str:
    return f"{statistics.median(values):.{digits}f} ({min(values):.{digits}f} to {max(values):.{digits}f})"


def report(
    times: dict[str, list[float]],
    baselines: list[str],
    flops: dict[str, float],
    types: dict[str, torch.dtype],
    clock: str,
) -> None:
    """One line per candidate: seconds, GFLOP/s of its own work against the machine's best in its number type, ratios.

    A candidate whose work torch does not see has no entry in `flops`: of it only seconds and ratios are told.
    """
    peaks = {dtype: peak(dtype, clock) for dtype in dict.fromkeys(types.values())}
    for dtype, found in peaks.items():
        print(f"machine, {str(dtype)[6:]}: " + ", ".join(f"{name} {rate:.0f} GFLOP/s" for name, rate in found.items()))
    for name, own in times.items():
        print(f"{name}: {spread(own, 3)} s{_effort(flops.get(name), own, peaks[types[name]])}")
        for base in baselines:
            if base != name:
                print(f"    {base} / this: {spread([b / t for b, t in zip(times[base], own, strict=True)])}")
