"""File names for ids that may be paths, of any length and with any characters."""

import hashlib
import re

MAX_BYTES = 100
"""Longest name; file systems take 255 bytes, and a name still gets an ending and perhaps a temporary prefix."""
_DIGEST = re.compile(r"-[0-9a-f]{10}$")


def file_name(identity: str) -> str:
    """A file name without ending for an id: the id itself where it can be one, else a like one with a digest.

    Letters, digits, "_", "-" and "." stay, except a leading "." or "-"; the rest becomes "_", and what exceeds
    MAX_BYTES is cut. Then ten hex digits of the id's SHA-256 follow, so that different ids never share a name; an id
    that already ends in such digits gets its own, too.
    """
    safe = re.sub(r"[^\w.-]|^[.-]|^$", "_", identity)
    if safe == identity and len(safe.encode()) <= MAX_BYTES and not _DIGEST.search(safe):
        return safe
    tail = "-" + hashlib.sha256(identity.encode("utf-8", "surrogatepass")).hexdigest()[:10]
    return safe.encode()[: MAX_BYTES - len(tail)].decode("utf-8", "ignore") + tail
