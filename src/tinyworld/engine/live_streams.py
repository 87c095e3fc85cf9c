"""What others write on the terminal while the live view is drawn: it goes above the view."""

import io
import logging
import mmap
import os
import sys
from collections.abc import Callable, Iterable, Iterator
from contextlib import ExitStack, contextmanager, redirect_stderr, redirect_stdout, suppress
from typing import IO, cast

from rich.file_proxy import FileProxy

from tinyworld.core.console import CONSOLE, DRAWING, LOGGER, ConsoleHandler, draws_on, is_not_drawn

LED = (ConsoleHandler, logging.StreamHandler, logging.NullHandler)
"""Handlers whose lines can be led above the view. Where any other kind writes is not to be known."""


class ForkedLines:
    """Lines of forked processes (a loader's workers) on their way to the process that draws: only that one knows how high its
    frame is, and would wipe off what another writes below it."""

    def __init__(self) -> None:
        self._drawer = os.getpid()
        self._from, self._to = os.pipe()
        os.set_blocking(self._from, False)
        self._over, self._part = mmap.mmap(-1, 1), b""  # shared with forked processes

    @property
    def in_child(self) -> bool:
        return os.getpid() != self._drawer

    def hand(self, line: str) -> bool:
        """For a child. False when nobody draws any more."""
        if self._over[0] or os.getppid() != self._drawer:
            return False
        data = f"{line}\n".encode(errors="replace")
        while data:
            data = data[os.write(self._to, data) :]
        return True

    def taken(self) -> list[str]:
        """For the process that draws: the lines since the last call."""
        with suppress(BlockingIOError):
            while part := os.read(self._from, 1 << 16):
                self._part += part
        *lines, self._part = self._part.split(b"\n")
        return [line.decode(errors="replace") for line in lines]

    def end(self) -> list[str]:
        """No more are taken but these."""
        self._over[0] = 1
        lines = self.taken()
        os.close(self._from)
        os.close(self._to)
        return lines


class AboveTheView(FileProxy):
    """Standard output or error while the view is drawn: whole lines go above it. In a forked process they are handed over,
    and the half line that its parent holds back is not printed twice."""

    def __init__(self, stream: IO[str], forked: ForkedLines) -> None:
        super().__init__(CONSOLE, stream)
        self._stream, self._forked, self._half = stream, forked, ""

    @property
    def rich_proxied_file(self) -> IO[str]:
        """What rich's consoles write to."""
        return cast(IO[str], self) if self._forked.in_child else self._stream

    def write(self, text: str) -> int:
        with DRAWING:
            if self._forked.in_child:
                *lines, self._half = (self._half + text).split("\n")
                for line in lines:
                    if not self._forked.hand(line):
                        self._stream.write(f"{line}\n")
            else:
                super().write(text)
        return len(text)

    def flush(self) -> None:
        with DRAWING:
            if not self._forked.in_child:
                super().flush()
            elif self._half:
                self.write("\n")


def can_lead_the_log() -> bool:
    """Whether all handlers that print this project's log lines are of kinds that `above_the_view` can lead. With a view that
    they do not know of, others would write into it, and the next frame would wipe their lines off."""
    return all(isinstance(handler, LED) for handler in (*LOGGER.handlers, *logging.root.handlers))


@contextmanager
def above_the_view() -> Iterator[Callable[[], None]]:
    """Standard output and error and every logging handler on a terminal, of any library, write above the view meanwhile.
    Yields the function to call now and then, which prints what forked processes have written.

    A handler holds the stream that was there when it was made (`logging.basicConfig` does), so it is led there itself.
    """
    with ExitStack() as held:
        handlers, forked = _handlers_on_a_terminal(), ForkedLines()
        out, error = AboveTheView(sys.stdout, forked), AboveTheView(sys.stderr, forked)

        def say(lines: Iterable[str]) -> None:
            for line in lines:
                error.write(f"{line}\n")

        for proxy in (out, error):
            held.callback(proxy.flush)
        held.callback(lambda: say(forked.end()))
        held.enter_context(redirect_stdout(out))
        held.enter_context(redirect_stderr(error))
        for handler in handlers:
            held.callback(handler.setStream, handler.stream)
            handler.setStream(cast(IO[str], error))
            held.callback(handler.removeFilter, is_not_drawn)
            handler.addFilter(is_not_drawn)
        yield lambda: say(forked.taken())


def _handlers_on_a_terminal() -> list["logging.StreamHandler[IO[str]]"]:
    loggers = [logging.root, *logging.root.manager.loggerDict.values()]
    handlers = {each: None for logger in loggers if isinstance(logger, logging.Logger) for each in logger.handlers}
    return [
        handler
        for handler in handlers
        if isinstance(handler, logging.StreamHandler)
        and isinstance(handler.stream, io.TextIOWrapper)
        and draws_on(handler.stream, {})
    ]
