"""Read a cloud's PLY by hand, from the format's description: nothing of the package's writer."""

import io
from pathlib import Path

import numpy as np

from tinyworld.infer.world.cloud import Cloud


def read_ply(path: Path) -> Cloud:
    """Its header is exactly what is documented, and its body exactly as long as the header promises."""
    file = io.BytesIO(path.read_bytes())
    header: list[str] = []
    while not header or header[-1] != "end_header":
        header.append(file.readline().decode("ascii").removesuffix("\n"))
        assert header[-1], "the header has no end"
    count = int(header[2].removeprefix("element vertex "))
    assert header == [
        "ply",
        "format binary_little_endian 1.0",
        f"element vertex {count}",
        *[f"property float {axis}" for axis in "xyz"],
        *[f"property uchar {colour}" for colour in ("red", "green", "blue")],
        "end_header",
    ]
    vertices = [(np.frombuffer(file.read(12), "<f4"), list(file.read(3))) for _ in range(count)]
    assert file.read() == b""
    points = np.array([point for point, _ in vertices], np.float32).reshape(count, 3)
    return Cloud(points, np.array([colour for _, colour in vertices], np.uint8).reshape(count, 3))
