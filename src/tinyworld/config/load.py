"""From a recipe's name or file, and flags over it, to a checked recipe; every problem is reported at once."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from tinyworld.config import guide
from tinyworld.config.draft import Draft, show
from tinyworld.config.schema import FAMILIES, FantasyRecipe, Recipe
from tinyworld.config.yaml_text import read_yaml
from tinyworld.core.errors import ConfigError, MissingFileError, nearest_name

BUNDLED = Path(__file__).resolve().parent.parent / "recipes"
SUFFIXES = (".yaml", ".yml")


def family_of(source: str | Path, overrides: Mapping[str, Any]) -> type[Recipe]:
    """The class that a recipe with these overrides is of. Raises as `load_recipe` for one that does not exist."""
    return _family(_chain(source), overrides)


def bundled_recipes() -> list[str]:
    """Names of the recipes that come with the package."""
    return sorted(path.stem for path in BUNDLED.glob("*.yaml"))


def load_recipe(source: str | Path, overrides: Mapping[str, Any] | None = None, complete: bool = True) -> Recipe:
    """Read a recipe, put `overrides` over it and check it.

    `source` is the name of a bundled recipe or the path of a YAML file. A file may say `extends: <name or path>`; its
    keys then replace those of the recipe it extends, key by key within the sections (lists as a whole). `overrides`
    maps a key, plain or with its section ("n_frames", "data.n_frames"), to a value; a string is read as YAML unless the
    key holds text, so what a person typed can be given as it is.

    A relative path that is not there from the working directory, but beside the file that it is written in, becomes
    absolute, so that the recipe means the same from wherever its copy is read.

    complete: False asks nothing of what only a run needs (see `Draft.recipe`).

    Raises ConfigError with all problems, MissingFileError for a recipe that does not exist.
    """
    files = _chain(source)
    family = _family(files, overrides or {})
    if family is FantasyRecipe:
        overrides = guide.translated(overrides or {})
    draft = Draft(family)
    for path, content in files:
        draft.add_file(content, path.name, _folder(path))
    for name, value in (overrides or {}).items():
        draft.add_flag(name, value)
    draft.values.setdefault("name", files[-1][0].stem)
    recipe = draft.recipe(complete)
    recipe._source_folder = _folder(files[-1][0])
    return recipe


def _chain(source: str | Path) -> list[tuple[Path, dict[str, Any]]]:
    """The files of a recipe, the one that extends nothing first."""
    path = _locate(str(source), None)
    files: list[tuple[Path, dict[str, Any]]] = []
    while True:
        if any(path == seen for seen, _ in files):
            circle = " → ".join(p.name for p in [*(seen for seen, _ in files), path])
            raise ConfigError(f"extends goes round in a circle: {circle}. One of these files must not extend the next.")
        content = read_yaml(path)
        parent = content.pop("extends", None)
        files.append((path, content))
        if parent is None:
            return files[::-1]
        if not isinstance(parent, str):
            raise ConfigError(f"extends: {show(parent)} (in {path}) must be the name or the path of one recipe.")
        path = _locate(parent, path)


def _locate(source: str, extended_by: Path | None) -> Path:
    """File of a recipe. Paths are taken from the working directory, in `extends` from the extending file's folder."""
    bundled = BUNDLED / f"{source}.yaml"
    is_path = source.endswith(SUFFIXES) or "/" in source or "\\" in source
    if not is_path and bundled.is_file():
        return bundled
    given = Path(source).expanduser()
    folders = [extended_by.parent, Path.cwd()] if extended_by else [Path.cwd()]
    for folder in folders:
        if (folder / given).is_file():
            return (folder / given).resolve()
    names = bundled_recipes()
    wanted = f" (extends in {extended_by})" if extended_by else ""
    looked = f" Looked for {' and '.join(str(folder / given) for folder in dict.fromkeys(folders))}." if is_path else ""
    raise MissingFileError(
        f"No recipe {source!r}{wanted}.{nearest_name(given.stem, names)}{looked} Bundled recipes: {', '.join(names)}; "
        "or give the path of a YAML file."
    )


def _folder(path: Path) -> Path | None:
    """Where relative paths of this file may be found; the package's own folder holds nobody's files."""
    return None if path.parent == BUNDLED else path.parent


def _family(files: list[tuple[Path, dict[str, Any]]], overrides: Mapping[str, Any]) -> type[Recipe]:
    tasks = [content["task"] for _, content in [*files, (None, overrides)] if "task" in content]
    if not tasks:
        raise ConfigError(f"task is not set (in {files[-1][0]}). Write task: {' or '.join(FAMILIES)} at its top level.")
    if tasks[-1] not in FAMILIES:
        raise ConfigError(f"task: {show(tasks[-1])} is unknown. Known tasks: {', '.join(FAMILIES)}.")
    return FAMILIES[tasks[-1]]
