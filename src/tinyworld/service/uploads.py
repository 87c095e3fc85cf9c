"""A form as it comes over the wire: files go straight into the job's folder, counted as they grow; fields stay small.

The framework's own reading of forms would put uploads into the system's temporary folder, and refuse them when they are whole.
"""

import asyncio
from collections.abc import AsyncIterator, Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import IO, TYPE_CHECKING

from python_multipart.exceptions import FormParserError
from python_multipart.multipart import MultipartParser, parse_options_header

from tinyworld.service.limits import MEBIBYTE
from tinyworld.service.refusals import Refusal, TooLarge, TooSlow, WrongType

if TYPE_CHECKING:
    from python_multipart.multipart import MultipartCallbacks

MOST_FIELD_BYTES, MOST_PARTS = 16_384, 32
SILENCE_SECONDS = 60.0
"""After which a sender is given up."""
LONGEST_NAME = 100
UNNAMED = "upload"


@dataclass
class Form:
    """fields: name → text. file: the name of the field of the file that came, None without. name: what its sender calls it."""

    fields: dict[str, str] = field(default_factory=dict)
    file: str | None = None
    name: str = ""


def shown_name(raw: bytes) -> str:
    """A sender's name of a file, for people's eyes: without folders and control characters, short, never empty."""
    text = raw.decode("utf-8", "replace").replace("\\", "/").rpartition("/")[2]
    return "".join(letter for letter in text if letter.isprintable())[:LONGEST_NAME].strip() or UNNAMED


async def read_form(
    content_type: str,
    body: AsyncIterator[bytes],
    target: Path,
    file_field: str | None,
    most_bytes: int,
    grew: Callable[[int], None],
) -> Form:
    """Read a form of multipart/form-data. One file may come, in the field `file_field`, and goes to `target`.

    most_bytes: of the whole body. grew: is told of every piece before it is written, and may raise. Raises Refusal: TooLarge,
    TooSlow, WrongType, or 400 for what is no form of this kind.
    """
    kind, options = parse_options_header(content_type)
    if kind != b"multipart/form-data" or not options.get(b"boundary"):
        raise WrongType("Send a form of multipart/form-data, as browsers do and as curl does with -F.")
    reader = _Reader(target, file_field, grew)
    try:
        parser = MultipartParser(options[b"boundary"], reader.callbacks())
        total = 0
        while True:
            async with asyncio.timeout(SILENCE_SECONDS):
                piece = await anext(body, None)
            if piece is None:
                break
            total += len(piece)
            if total > most_bytes:
                raise too_large(most_bytes)
            parser.write(piece)
        parser.finalize()
    except FormParserError as error:
        raise Refusal(f"The form cannot be read: {error}.") from error
    except TimeoutError as error:
        raise TooSlow(f"Nothing came for {SILENCE_SECONDS:g} seconds.") from error
    finally:
        reader.close()
    if not reader.whole:
        raise Refusal("The form ends too early. Send it again.")
    return reader.form


def too_large(most_bytes: int) -> TooLarge:
    return TooLarge(
        f"This request is larger than the {most_bytes / MEBIBYTE:g} MiB that one may have (--max_upload_mb). Send a shorter or "
        "smaller video."
    )


class _Reader:
    """What the parser calls back: part after part, each with its headers and then its data."""

    def __init__(self, target: Path, file_field: str | None, grew: Callable[[int], None]) -> None:
        self.form, self.whole = Form(), False
        self._target, self._file_field, self._grew = target, file_field, grew
        self._parts = 0
        self._header, self._value = b"", b""
        self._disposition = b""
        self._name: str | None = None
        self._file: IO[bytes] | None = None
        self._text = bytearray()

    def callbacks(self) -> "MultipartCallbacks":
        return {
            "on_part_begin": self._begin,
            "on_header_field": self._on_header,
            "on_header_value": self._on_value,
            "on_header_end": self._header_end,
            "on_headers_finished": self._headers_finished,
            "on_part_data": self._data,
            "on_part_end": self._part_end,
            "on_end": self._end,
        }

    def close(self) -> None:
        if self._file is not None:
            self._file.close()
            self._file = None

    def _begin(self) -> None:
        self._parts += 1
        if self._parts > MOST_PARTS:
            raise Refusal(f"The form has more than {MOST_PARTS} fields.")
        self._disposition, self._header, self._value = b"", b"", b""

    def _on_header(self, data: bytes, start: int, end: int) -> None:
        self._header += data[start:end]

    def _on_value(self, data: bytes, start: int, end: int) -> None:
        self._value += data[start:end]

    def _header_end(self) -> None:
        if self._header.lower() == b"content-disposition":
            self._disposition = self._value
        self._header, self._value = b"", b""

    def _headers_finished(self) -> None:
        _, options = parse_options_header(self._disposition)
        name = options.get(b"name", b"").decode("utf-8", "replace")
        if not name:
            raise Refusal("A field of the form has no name.")
        self._text.clear()
        self._name = name
        if b"filename" not in options:
            if name == self._file_field:
                raise Refusal(f"{name} must be a file, not a text (with curl: -F {name}=@FILE).")
            if name in self.form.fields:
                raise Refusal(f"The field {name[:40]!r} is there twice.")
            return
        if name != self._file_field or self.form.file is not None:
            wanted = (
                f"one file is taken, in the field {self._file_field}" if self._file_field else "no file is taken here"
            )
            raise Refusal(f"There is a file in the field {name[:40]!r}; {wanted}.")
        self.form.file, self.form.name = name, shown_name(options[b"filename"])
        self._file = self._target.open("xb")

    def _data(self, data: bytes, start: int, end: int) -> None:
        if self._file is not None:
            self._grew(end - start)
            self._file.write(data[start:end])
            return
        if len(self._text) + end - start > MOST_FIELD_BYTES:
            raise TooLarge(f"The field {(self._name or '')[:40]!r} is longer than {MOST_FIELD_BYTES} bytes.")
        self._text += data[start:end]

    def _part_end(self) -> None:
        if self._file is not None:
            empty = self._file.tell() == 0
            self.close()
            if empty:  # what a browser sends for a file that was not chosen
                self._target.unlink()
                self.form.file, self.form.name = None, ""
        elif self._name is not None:
            self.form.fields[self._name] = self._text.decode("utf-8", "replace")
        self._name = None

    def _end(self) -> None:
        self.whole = True
