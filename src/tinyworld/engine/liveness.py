"""A rank that hangs is found, named and ended, instead of holding a thousand others for the night.

Two daemon threads: one watches the main thread's phase against its time-out by the monotonic clock and does no I/O, so that
hung storage cannot stop it; the other writes the sign of life and looks for a verdict of another rank. No collectives:
they are what hangs. The first rank to create run/ranks/late.json decides who is late, the others quote it.
"""

import faulthandler
import os
import threading
import time
from collections import deque
from collections.abc import Callable, Collection, Sequence
from pathlib import Path
from typing import NamedTuple

from tinyworld.core.console import LOGGER
from tinyworld.core.errors import EXIT_HUNG
from tinyworld.engine import ranks
from tinyworld.engine.inquiry import QUIET_PERIODS, Inquiry
from tinyworld.engine.lateness import COLLECTIVE, Limits, span
from tinyworld.engine.ranks import Sign

FOLDER = "ranks"
_KEPT_IDS = 64
_STDERR = 2


class _Moment(NamedTuple):
    """What the main thread does since `began` (monotonic)."""

    name: str
    step: int
    ids: Sequence[str]
    startup: bool
    began: float


class Liveness:
    """Watches one rank. `on_late` gets the paragraph before the process ends with EXIT_HUNG; it is called in a thread.

    Time-outs in seconds, for one phase. `collective` names the phases in which a rank waits for the others (with sharded
    weights "forward and backward" is one of them). `period` is the seconds between two signs of life; it grows with the
    number of ranks so that all of them together write at most a hundred small files a second.
    """

    def __init__(
        self,
        run: Path,
        rank: int,
        world: int,
        startup_timeout: float,
        step_timeout: float,
        on_late: Callable[[str], None] | None = None,
        collective: Collection[str] = COLLECTIVE,
        period: float = 5.0,
    ) -> None:
        self.folder, self.rank = run / FOLDER, rank
        self.limits = Limits(startup_timeout, step_timeout)
        self.period = min(max(period, world / 100), min(startup_timeout, step_timeout) / 8)
        self._inquiry = Inquiry(self.folder, rank, world, self.limits, collective, self.period)
        self._on_late = on_late
        self._moment = _Moment("set up", 0, (), True, time.monotonic())
        self._restarted = self._moment.began
        self._closing, self._ending, self._writing = threading.Event(), threading.Lock(), threading.Lock()
        self._notes: deque[str] = deque()
        self._threads: list[threading.Thread] = []
        self._stacks = _STDERR
        self._complained = False
        self._follows = True

    @property
    def step(self) -> int:
        """The step that the main thread is at."""
        return self._moment.step

    def phase(self, name: str, step: int, ids: Sequence[str] = (), startup: bool = False) -> None:
        """The main thread begins something. `ids` are kept as they are: they must not change afterwards."""
        self._moment = _Moment(name, step, ids, startup, time.monotonic())

    def start(self) -> None:
        """Clear what an earlier life of this rank left, give the first sign of life and begin to watch."""
        try:
            self.folder.mkdir(parents=True, exist_ok=True)
            ranks.clear_sign(self.folder, self.rank)
            path = self.folder / f"rank-{self.rank}.stacks.txt"
            self._stacks = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o666)
            self._inquiry.clear()
        except OSError as error:
            self._follows = False  # an old verdict may still lie there
            self._complain(error)
        # A forked child that ends in the ordinary way would wait forever for the C watchdog, which it does not have.
        os.register_at_fork(before=faulthandler.cancel_dump_traceback_later)
        self._moment = self._moment._replace(began=time.monotonic())
        self._restarted = self._moment.began
        self._give_sign()
        for work in (self._watch, self._live):
            self._threads.append(threading.Thread(target=work, name=f"liveness {work.__name__}", daemon=True))
            self._threads[-1].start()

    def close(self) -> None:
        """Stop watching; the last sign of life stays and says that this rank ended by itself. May be called twice."""
        with self._ending:
            if self._closing.is_set():
                return
            self._closing.set()
            for thread in self._threads:
                thread.join(timeout=2)  # longer only where storage hangs, which must not hold the process
            faulthandler.cancel_dump_traceback_later()
            if self._stacks != _STDERR:
                os.close(self._stacks)

    def who_is_missing(self) -> str | None:
        """One or two sentences on the rank that died, stopped or left; None when all live. For a collective that raised.

        Waits, a few periods at most, for a sign of life of every rank whose end this host cannot see. Where a verdict on a
        late rank is out, this process ends here with EXIT_HUNG, as all ranks do.
        """
        self._follow()
        text = str(self._inquiry.missing(*self._give_sign())["text"])
        self._follow()
        return text or None

    def _watch(self) -> None:
        """Says when time is up. Never waits for storage, a logger or the main thread."""
        last = time.monotonic()
        self._arm()
        while not self._closing.wait(self.period):
            now = time.monotonic()
            gap, last = now - last, now
            limit, moment = self._arm(), self._moment
            if gap > QUIET_PERIODS * self.period:
                self._restarted = now
                self._notes.append(
                    f"this process did not run for {span(gap)} (stopped, asleep, or held in native code)"
                )
            elif now - max(moment.began, self._restarted) > limit and moment is self._moment:
                self._end()

    def _arm(self) -> float:
        """The time-out of this phase. The stacks are written from C when native code holds Python's lock for that long, so
        that no thread of Python comes round."""
        limit = self.limits.of(self._moment.startup)
        faulthandler.dump_traceback_later(limit, file=self._stacks)
        return limit

    def _live(self) -> None:
        """Gives signs of life, and ends with the others when one of them has given its verdict."""
        while not self._closing.wait(self.period):
            self._give_sign()
            while self._notes:
                LOGGER.warning("rank %d: %s; the time of its phase is counted anew", self.rank, self._notes.popleft())
            self._follow()
        self._give_sign(closed=True)

    def _sign(self, closed: bool = False) -> Sign:
        moment, (host, space) = self._moment, ranks.here()
        return Sign(
            rank=self.rank,
            host=host,
            pid=os.getpid(),
            pid_space=space,
            phase=moment.name,
            step=moment.step,
            ids=[str(sample) for sample in moment.ids[:_KEPT_IDS]],
            ids_total=len(moment.ids),
            seconds=round(time.monotonic() - max(moment.began, self._restarted), 3),
            startup=moment.startup,
            closed=closed,
            time=ranks.wall_time(),
        )

    def _give_sign(self, closed: bool = False) -> tuple[Sign, bool]:
        """This rank's state, and whether the others can see it."""
        sign = self._sign(closed)
        try:
            with self._writing:
                ranks.write_sign(self.folder, sign)
        except OSError as error:
            self._complain(error)
            return sign, False
        return sign, True

    def _complain(self, error: OSError) -> None:
        """Once: a run must not end because a file for its watcher could not be written, nor fill its log with it."""
        if not self._complained:
            self._complained = True
            LOGGER.warning("rank %d cannot show the other ranks that it lives: %s", self.rank, error)

    def _follow(self) -> None:
        """Without the rank that gave the verdict no collective can succeed any more."""
        if self._follows and self._inquiry.is_decided():
            self._end()

    def _end(self) -> None:
        """Say who is late and end the process, even when saying it hangs. Whoever comes second waits for the end."""
        with self._ending:
            if self._closing.is_set():
                return
            sign = self._sign()
            speaker = threading.Thread(target=self._report, name="liveness _report", daemon=True)
            speaker.start()
            speaker.join(2 * self._inquiry.patience)
            if speaker.is_alive():  # one write to the launcher's pipe needs neither storage nor the logger's lock
                os.write(_STDERR, f"{_headline(sign)}; storage or the log hangs, too: exit code {EXIT_HUNG}\n".encode())
            os._exit(EXIT_HUNG)

    def _report(self) -> None:
        self._dump_stacks()
        text = str(self._inquiry.late(*self._give_sign())["text"])
        LOGGER.error("%s", text)
        if self._on_late is not None:
            self._on_late(text)

    def _dump_stacks(self) -> None:
        faulthandler.cancel_dump_traceback_later()
        about = f"{_headline(self._sign())}; its main thread is 0x{threading.main_thread().ident or 0:016x}\n"
        for file in (self._stacks, _STDERR):
            try:
                os.write(file, about.encode())
                faulthandler.dump_traceback(file=file, all_threads=True)
                return
            except OSError as error:  # a full disk: then to where the launcher keeps the output
                self._complain(error)


def _headline(sign: Sign) -> str:
    return (
        f"rank {sign.rank} (host {sign.host}, pid {sign.pid}) at {sign.time}: {span(sign.seconds)} in phase "
        f'"{sign.phase}" of step {sign.step}, samples {", ".join(sign.ids) or "none"}'
    )
