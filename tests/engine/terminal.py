"""A terminal that is no more than what the live view needs of one: what stands where after all that was written."""

import contextlib
import fcntl
import os
import pty
import re
import struct
import subprocess
import termios
import time
from collections.abc import Sequence


class Terminal:
    """Rows without end, so that nothing scrolls away. Whatever it does not know is an error."""

    def __init__(self, width: int) -> None:
        self.width, self.rows, self.row, self.column, self.cursor_shown = width, [""], 0, 0, True

    def write(self, text: str) -> None:
        for token in re.findall(r"\x1b\[[?0-9;]*[A-Za-z]|.|\n", text, re.DOTALL):
            if token.startswith("\x1b"):
                self._control(token[2:-1], token[-1])
            elif token == "\r":
                self.column = 0
            elif token == "\n":
                self._down()
            else:
                self._put(token)

    def _control(self, numbers: str, kind: str) -> None:
        if kind == "A":
            self.row -= int(numbers or 1)
            assert self.row >= 0
        elif kind == "K":
            assert numbers == "2"
            self.rows[self.row] = ""
        elif kind in "hl":
            assert numbers == "?25"
            self.cursor_shown = kind == "h"
        else:
            assert kind == "m", kind

    def _down(self) -> None:
        self.row += 1
        if self.row == len(self.rows):
            self.rows.append("")

    def _put(self, character: str) -> None:
        assert character.isprintable(), repr(character)
        if self.column == self.width:
            self._down()
            self.column = 0
        line = self.rows[self.row].ljust(self.column)
        self.rows[self.row] = line[: self.column] + character + line[self.column + 1 :]
        self.column += 1

    @property
    def text(self) -> str:
        return "\n".join(line.rstrip() for line in self.rows)


def run_in_terminal(
    command: Sequence[str], width: int, height: int, kill_at: tuple[str, int] | None = None, seconds: float = 100
) -> tuple[int, str, bool]:
    """Run a command in a terminal of its own: exit code, all that it wrote, whether it left the line settings as they were.

    kill_at: words and how often they were written when it is killed. After `seconds` it is killed too, with an
    AssertionError.
    """
    ours, theirs = pty.openpty()
    fcntl.ioctl(theirs, termios.TIOCSWINSZ, struct.pack("HHHH", height, width, 0, 0))
    before = termios.tcgetattr(theirs)
    left_out = ("CI", "NO_COLOR", "COLUMNS", "LINES")
    environment = {k: v for k, v in os.environ.items() if k not in left_out} | {"TERM": "xterm-256color"}
    process = subprocess.Popen(command, stdin=theirs, stdout=theirs, stderr=theirs, env=environment, close_fds=True)
    written, deadline = b"", time.monotonic() + seconds
    os.set_blocking(ours, False)
    try:
        while True:
            ended = process.poll() is not None
            written += _waiting(ours)
            if ended:
                break
            if kill_at is not None and written.count(kill_at[0].encode()) >= kill_at[1]:
                process.kill()
            assert time.monotonic() < deadline, f"not done after {seconds} s; it wrote: {written.decode()!r}"
            with contextlib.suppress(subprocess.TimeoutExpired):
                process.wait(0.02)
        same = termios.tcgetattr(theirs) == before
    finally:
        process.kill()
        process.wait()
        os.close(ours)
        os.close(theirs)
    return process.returncode, written.decode(), same


def _waiting(descriptor: int) -> bytes:
    """All that can be read at once."""
    found = b""
    with contextlib.suppress(BlockingIOError):
        while part := os.read(descriptor, 1 << 16):
            found += part
    return found
