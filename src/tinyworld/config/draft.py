"""Values gathered from recipe files and flags, and what is wrong with each of them in words."""

import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from difflib import get_close_matches
from pathlib import Path
from typing import Any

from pydantic import ValidationError

from tinyworld.config import guide
from tinyworld.config.keys import Key, keys, sections
from tinyworld.config.rules import check_rules
from tinyworld.config.schema import EMBEDDED_ROOMS, Recipe
from tinyworld.config.yaml_text import parse_value
from tinyworld.core.errors import ConfigError

FLAG = "a flag"
DATA_ROOTS = {"data.data_root", "data.dataset_base_path"}
NOT_GIVEN = "(not given)"


@dataclass
class Draft:
    """A recipe in the making: values, where each came from, and every problem met so far."""

    family: type[Recipe]
    values: dict[str, Any] = field(default_factory=dict)
    origins: dict[str, str] = field(default_factory=dict)
    flags: dict[str, str] = field(default_factory=dict)
    problems: list[str] = field(default_factory=list)
    meant: set[str] = field(default_factory=set)
    """Keys that a misspelt or misplaced one was meant for: not reported as missing as well."""

    def __post_init__(self) -> None:
        self.keys: dict[str, Key] = {key.dotted: key for key in keys(self.family)}
        self.by_leaf: dict[str, Key] = {key.leaf: key for key in self.keys.values()}
        self.sections = list(sections(self.family))
        self.values.update({name: {} for name in self.sections})

    def add_file(self, content: Mapping[str, Any], file: str, folder: Path | None) -> None:
        """Put a file's keys over those there are; `folder` is where its relative paths may be found."""
        for name, value in content.items():
            if name not in self.sections:
                self._add("", name, value, file, folder)
            elif isinstance(value, dict):
                for leaf, leaf_value in value.items():
                    self._add(name, str(leaf), leaf_value, file, folder)
            elif value is not None:
                self.problems.append(f"{name}: {show(value)} (in {file}) must hold keys of its own, below it.")

    def _add(self, section: str, leaf: str, value: Any, file: str, folder: Path | None) -> None:
        leaf = guide.NAMES.get(leaf, leaf)
        name = f"{section}.{leaf}" if section else leaf
        key = self.keys.get(name)
        if key is None or key.section != section:
            self.problems.append(self._unknown(name, f"{name} (in {file})", ""))
        else:
            self._set(key, _beside(key, value, folder), file)

    def add_flag(self, name: str, value: Any) -> None:
        """Put one value over all files; `name` with or without its section."""
        key = self.keys.get(name) or self.by_leaf.get(guide.NAMES.get(name, name))
        if key is None:
            self.problems.append(self._unknown(name, f"--{name}", "--"))
            return
        if self.origins.get(key.dotted) == FLAG:
            other = self.flags[key.dotted]
            self.problems.append(f"--{other} and --{name} are the same key. Give one of them.")
        self.flags[key.dotted] = name
        self._set(key, _from_text(key, value) if isinstance(value, str) else value, FLAG)

    def _set(self, key: Key, value: Any, origin: str) -> None:
        place = self.values[key.section] if key.section else self.values
        place[key.leaf] = value
        self.origins[key.dotted] = origin

    def _unknown(self, name: str, shown: str, prefix: str) -> str:
        """What is wrong with a key that does not exist, and which one was meant."""
        section, _, leaf = name.rpartition(".")
        known = self.by_leaf.get(leaf)
        if prefix and leaf.startswith(("no-", "no_")) and leaf[3:] in self.by_leaf:
            return f"{shown}: unknown. To switch a key off write --{leaf[3:]} false."
        if known:
            self.meant.add(known.dotted)
            below = f" (in YAML: {known.leaf} below {known.section}:)" if known.section and not prefix else ""
            home = f"section {known.section}" if known.section else "the top level"
            return f"{shown}: {leaf} belongs to {home}: write {prefix}{known.dotted}{below}."
        if meant := [self.by_leaf[name] for name in guide.elsewhere(leaf) if name in self.by_leaf]:
            self.meant.update(key.dotted for key in meant)
            names = " and ".join(f"{prefix}{key.leaf if prefix else key.dotted}" for key in meant)
            return f"{shown}: unknown. Did you mean {names}?"
        siblings = [key for key in self.keys.values() if key.section == section] if section in self.sections else []
        for group in (siblings, list(self.keys.values())):
            close = get_close_matches(leaf, [key.leaf for key in group], n=1)
            if close:
                key = self.by_leaf[close[0]]
                self.meant.add(key.dotted)
                return f"{shown}: unknown. Did you mean {prefix}{key.leaf if prefix else key.dotted}?"
        if siblings:
            return f"{shown}: unknown. Keys of {section}: {', '.join(key.leaf for key in siblings)}."
        return f"{shown}: unknown. Sections: {', '.join(self.sections)}; `tinyworld train --help` lists every key."

    def recipe(self, complete: bool = True) -> Recipe:
        """The checked recipe. Without `complete` it may lack what only a run needs: a data set, weights to start from.
        Raises ConfigError with every problem."""
        if not complete:
            for key in (self.keys[name] for name in DATA_ROOTS & self.keys.keys()):
                self.values[key.section].setdefault(key.leaf, NOT_GIVEN)
        broken = self._validate()
        if broken <= DATA_ROOTS:  # no rule depends on it, so a recipe that still lacks it can be checked
            names = {name.rpartition(".")[2]: NOT_GIVEN for name in broken}
            stand_in = {"data": {**self.values["data"], **names}}
            recipe = self.family.model_validate({**self.values, **stand_in})
            self.problems += check_rules(recipe) if complete else []
        if self.problems:
            raise ConfigError(self.problems)
        return recipe

    def _validate(self) -> set[str]:
        """Add a problem for each value that the schema refuses; the keys of those values."""
        try:
            self.family.model_validate(self.values)
        except ValidationError as error:
            faults = {self._dotted(fault["loc"]): fault["type"] == "missing" for fault in error.errors()}
            for dotted, missing in faults.items():
                unset = missing and dotted not in self.origins
                if not (unset and dotted in self.meant):
                    self.problems.append(self._missing(dotted) if unset else self._wrong(dotted))
            return set(faults)
        return set()

    def _dotted(self, location: tuple[int | str, ...]) -> str:
        return ".".join(map(str, location[: 2 if location[0] in self.sections else 1]))

    def _missing(self, dotted: str) -> str:
        key = self.keys[dotted]
        return (
            f"{dotted} is not set. {key.field.description} Give --{key.leaf} {key.metavar}, or write {key.leaf} below "
            f"{key.section}: in the recipe."
        )

    def _wrong(self, dotted: str) -> str:
        key = self.keys[dotted]
        value = (self.values[key.section] if key.section else self.values)[key.leaf]
        if self.origins.get(dotted) != FLAG:
            return f"{dotted}: {show(value)} (in {self.origins.get(dotted)}) is not valid: it must be {key.expects}."
        name = self.flags[dotted]
        if value is True:
            return f"--{name} needs a value: {key.expects}."
        return f"--{name} {show(value)} is not valid: it must be {key.expects}."


def _from_text(key: Key, text: str) -> Any:
    """What a person typed after a flag, as the key's kind of value: `1,2` is a list where one is asked for."""
    if key.is_text:
        return None if text in ("null", "None") and not key.field.is_required() and key.field.default is None else text
    if key.is_list and not text.lstrip().startswith("["):
        return parse_value(f"[{text}]")
    return parse_value(text)


def _beside(key: Key, value: Any, folder: Path | None) -> Any:
    """A path that exists beside the recipe file and not from the working directory, made absolute."""
    if folder is None or "path" not in key.extra or not isinstance(value, str):
        return value
    given = Path(value).expanduser()
    if (key.extra.get("rooms") and value == EMBEDDED_ROOMS) or given.exists() or not (folder / given).exists():
        return value
    return str((folder / given).resolve())


def show(value: Any) -> str:
    """A value as it would stand in a recipe, shortened; text in quotes where it would be taken for something else."""
    plain = isinstance(value, str) and value and parse_value(value) == value
    text = value if plain else json.dumps(value, default=str, ensure_ascii=False)
    return text if len(text) <= 60 else f"{text[:57]}…"
