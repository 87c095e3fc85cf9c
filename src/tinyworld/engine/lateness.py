"""Which rank the others wait for, and one paragraph about it that a person can act on."""

from collections.abc import Collection, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from tinyworld.core.errors import EXIT_HUNG
from tinyworld.engine.ranks import Sign, condition

COLLECTIVE = frozenset({"agree", "reduce", "learn"})
"""Phases in which a rank waits for the others."""

_GPU = "a GPU error (look for Xid in the kernel's log), memory that is all but full, kernels that are compiled first"
_OTHERS = "another process that is late or has died, the network between hosts (NCCL_DEBUG=INFO tells more)"
_STORAGE = "slow, full or hung storage"
CAUSES = {
    "set up": "storage that is slow while weights and data are read, a process that could not start",
    "data": "slow or hung storage, a broken clip, a loader process that died or hangs",
    "forward and backward": _GPU,
    "agree": _OTHERS,
    "reduce": _OTHERS,
    "update": _GPU,
    "learn": _OTHERS,
    "log": _STORAGE,
    "validate": f"{_STORAGE}, more clips or frames than the time-out allows for",
    "preview": _STORAGE,
    "save": _STORAGE,
    "end": _STORAGE,
}
"""The phases of a step in the order of time, and what usually makes each last too long."""

_SHOWN_IDS = 8
Reason = Literal["late", "gone", "stopped", "silent", "absent", "left", "deadlock"]


@dataclass(frozen=True)
class Finding:
    """`sign` is None only for a rank that is absent: it never wrote one. `others` are in the same state."""

    rank: int
    reason: Reason
    sign: Sign | None
    others: tuple[int, ...] = ()


@dataclass(frozen=True)
class Limits:
    """Seconds that a phase may take."""

    startup: float
    step: float

    def of(self, startup: bool) -> float:
        return self.startup if startup else self.step

    def key(self, startup: bool) -> str:
        return f"parallel.{'startup' if startup else 'step'}_timeout"


def lost(signs: Mapping[int, Sign], silent: Collection[int], world: int) -> Finding | None:
    """A rank that cannot go on: its process is gone or stopped, as far as this host can see, or it gives no sign of life."""
    states: dict[Reason, list[int]] = {"gone": [], "stopped": [], "silent": [], "absent": []}
    for rank in range(world):
        if rank not in signs:
            states["absent"].append(rank)
        elif not signs[rank].closed:
            seen = condition(signs[rank])
            if seen == "gone" or seen == "stopped":
                states[seen].append(rank)
            elif rank in silent:
                states["silent"].append(rank)
    for reason, ranks in states.items():
        if ranks:
            first = min(ranks, key=lambda rank: signs[rank].written_ns) if reason != "absent" else ranks[0]
            return Finding(first, reason, signs.get(first), tuple(rank for rank in ranks if rank != first))
    return None


def left(signs: Mapping[int, Sign]) -> Finding | None:
    """The rank that was the first to end by itself."""
    closed = [sign for sign in signs.values() if sign.closed]
    first = min(closed, key=lambda sign: sign.written_ns, default=None)
    return Finding(first.rank, "left", first) if first else None


def late(
    signs: Mapping[int, Sign], silent: Collection[int], world: int, own: int, collective: Collection[str]
) -> Finding:
    """The rank that the others wait for, as rank `own` sees it, whose time is up.

    A rank that is proved to be gone or stopped comes first. A rank whose time is up in a phase in which it waits for
    nobody is the late one itself. Else a rank without a sign of life, else the least advanced one: the smaller step, then a
    phase in which it waits for nobody, then the earlier collective phase.
    """
    missing = lost(signs, silent, world)
    if missing is not None and missing.reason in ("gone", "stopped"):
        return missing
    if signs[own].phase not in collective:
        same = (rank for rank, sign in signs.items() if (sign.step, sign.phase) == (signs[own].step, signs[own].phase))
        return Finding(own, "late", signs[own], tuple(sorted(rank for rank in same if rank != own)))
    if missing is not None:
        return missing
    order = list(CAUSES)

    def progress(sign: Sign) -> tuple[int, bool, bool, int]:
        waits = sign.phase in collective and not sign.closed
        place = order.index(sign.phase) if waits and sign.phase in order else 0
        return sign.step, waits, sign.closed, place

    least = min(progress(sign) for sign in signs.values())
    behind = sorted((sign for sign in signs.values() if progress(sign) == least), key=lambda sign: -sign.since)
    first, others = behind[0], tuple(sorted(sign.rank for sign in behind[1:]))
    if first.closed:
        return Finding(first.rank, "left", first, others)
    waits = first.phase in collective and len(behind) == world > 1
    return Finding(first.rank, "deadlock" if waits else "late", first, others)


def paragraph(finding: Finding, finder: Sign, limits: Limits, folder: Path) -> str:
    """For people: who is late, in what, for how long, with which samples, where to look, what to change."""
    sign = finding.sign or finder
    startup = finder.startup if finding.reason != "late" else sign.startup
    parts = [verdict(finding)]
    if finding.rank != finder.rank:
        parts.append(
            f"Rank {finder.rank} (host {finder.host}, pid {finder.pid}) found this after {span(finder.since)} in phase "
            f'"{finder.phase}" of step {finder.step}.'
        )
    whose = str(finding.rank) if finding.reason == "late" else "*"
    parts.append(
        f"Stacks of all threads: {folder / f'rank-{whose}.stacks.txt'} (in the error output where it cannot be written)."
    )
    if finding.reason in ("late", "deadlock"):
        parts.append(f"Usual causes: {CAUSES.get(sign.phase, 'storage, GPU, network')}.")
    parts.append(
        f"A phase may take {span(limits.of(startup))} ({limits.key(startup)}); raise this when it needed the time. "
        f"This process ends with exit code {EXIT_HUNG}."
    )
    return " ".join(parts)


def verdict(finding: Finding) -> str:
    """One or two sentences on the rank itself."""
    if finding.sign is None:
        return f"Rank {finding.rank} never gave a sign of life{_also(finding.others)}."
    sign = finding.sign
    last = f'phase "{sign.phase}" of step {sign.step}'
    last += "" if not sign.ids else f", samples {_listed(sign.ids, sign.ids_total)}"
    name = f"Rank {finding.rank} (host {sign.host}, pid {sign.pid})"
    told = f"Its last sign of life, {span(sign.age)} before, was in {last}"
    words = {
        "late": f"{name} is late: for {span(sign.since)} in {last}{_also(finding.others)}.",
        "deadlock": f"All ranks wait for one another, {name[0].lower()}{name[1:]} for {span(sign.since)}, in {last}.",
        "gone": f"{name} is dead: its process is gone{_also(finding.others)}. {told}.",
        "stopped": f"{name} is stopped (a signal such as SIGSTOP, or a debugger){_also(finding.others)}. {told}.",
        "silent": f"{name} gives no sign of life{_also(finding.others)}: stopped, dead, its host down or cut off, or held in "
        f"native code that does not let Python go. {told}.",
        "left": f"{name} has left the run{_also(finding.others)}; its own last lines in the log tell why. {told}.",
    }
    return words[finding.reason]


def facts(finding: Finding, finder: Sign, text: str) -> dict[str, Any]:
    """The verdict for programs, as it stands in late.json."""
    sign = finding.sign
    known = (
        {"host": sign.host, "pid": sign.pid, "phase": sign.phase, "step": sign.step, "ids": sign.ids} if sign else {}
    )
    seconds = {"seconds": round(sign.since, 1)} if sign else {}
    return {"rank": finding.rank, "reason": finding.reason, **known, **seconds, "others": list(finding.others)} | {
        "found_by": finder.rank,
        "time": finder.time,
        "text": text,
    }


def span(seconds: float) -> str:
    """Seconds as people say them; below zero (a clock was set back) is now."""
    return f"{seconds:.0f} s" if seconds >= 10 else f"{max(seconds, 0):.1f} s"


def _also(ranks: tuple[int, ...]) -> str:
    if not ranks:
        return ""
    return f", as {'is rank' if len(ranks) == 1 else 'are ranks'} {_listed([str(rank) for rank in ranks], len(ranks))}"


def _listed(names: list[str], total: int) -> str:
    shown = names[:_SHOWN_IDS]
    return ", ".join(shown) + (f" and {total - len(shown)} more" if total > len(shown) else "")
