"""The embedded data set: rendered rooms with moving things and exact depth, points and cameras.

`make_rooms` writes a folder of samples. A scene can also be used from Python: `build_scene(seed, index)` gives its
description as plain data, `Renderer(scene).frame(time, height, width)` a picture with depth and camera.
"""

from tinyworld.data.rooms.export import make_rooms
from tinyworld.data.rooms.render import Frame, Renderer
from tinyworld.data.rooms.scene import Scene, build_scene

__all__ = ["Frame", "Renderer", "Scene", "build_scene", "make_rooms"]
