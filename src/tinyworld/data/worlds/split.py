"""Which samples are held out: decided by scene, so that no place is trained on and held out at the same time."""

from collections.abc import Sequence

from tinyworld.core.errors import DataError
from tinyworld.data import split as by_name
from tinyworld.data.scan import ClipRef
from tinyworld.data.worlds.scan import WorldRef


def split_worlds(worlds: Sequence[WorldRef], held_out: float | int, seed: int) -> tuple[list[WorldRef], list[WorldRef]]:
    """(training samples, held-out samples), both in the order given; whole scenes on either side.

    held_out: the fraction, or the number, of scenes, by the rules of `data.split.split`: a scene's side depends on (seed,
    scene), and each side gets at least one. Raises DataError with fewer than two scenes, or a number that leaves none.
    """
    scenes: dict[str, ClipRef] = {}
    for world in worlds:
        scenes.setdefault(
            world.scene, ClipRef(world.scene, world.entry.video, world.frames, world.width, world.height, world.fps)
        )
    if len(scenes) < 2:
        raise DataError(
            f"{len(worlds)} usable samples show {len(scenes)} scene{'s' if len(scenes) != 1 else ''}: at least 2 are needed, one "
            'to train on and one to validate on. Add samples of other scenes, or name the scenes under "scene" in metadata.json '
            "(key: data.dataset_base_path)"
        )
    if isinstance(held_out, int) and not 1 <= held_out < len(scenes):
        raise DataError(f"{held_out} of {len(scenes)} scenes cannot be held out: 1 to {len(scenes) - 1} can")
    _, chosen = by_name.split(list(scenes.values()), held_out, seed)
    names = {scene.id for scene in chosen}
    return [world for world in worlds if world.scene not in names], [world for world in worlds if world.scene in names]
