"""The keys of a recipe class: where each lives, and what it expects, in words."""

import types
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import Annotated, Any, Literal, Union, get_args, get_origin

import annotated_types as limits
from pydantic import BaseModel
from pydantic.fields import FieldInfo

UNITS = {int: "whole number", float: "number", str: "text", bool: "true or false"}
METAVARS = {int: "N", float: "X", str: "TEXT", bool: "[true|false]"}


@dataclass(frozen=True)
class Key:
    """One key of a recipe. `section` is empty for the keys at the top (task, name)."""

    section: str
    leaf: str
    field: FieldInfo

    @property
    def dotted(self) -> str:
        return f"{self.section}.{self.leaf}" if self.section else self.leaf

    @property
    def extra(self) -> dict[str, Any]:
        return self.field.json_schema_extra if isinstance(self.field.json_schema_extra, dict) else {}

    @property
    def kind(self) -> Any:
        """The type without `| None` and without limits: int, float, str, bool, a Literal or a tuple."""
        return _split(self.field.annotation)[0]

    @property
    def choices(self) -> tuple[Any, ...]:
        """The valid values where they can be listed; else empty."""
        return get_args(self.kind) if get_origin(self.kind) is Literal else ()

    @property
    def is_text(self) -> bool:
        return self.kind is str or (all(isinstance(value, str) for value in self.choices) and bool(self.choices))

    @property
    def is_list(self) -> bool:
        return get_origin(self.kind) is tuple

    @property
    def metavar(self) -> str:
        """What stands for the value in a help text."""
        if "metavar" in self.extra:
            return str(self.extra["metavar"])
        if self.choices:
            return "|".join(map(str, self.choices))
        return "[…]" if self.is_list else METAVARS[self.kind]

    @property
    def expects(self) -> str:
        """The valid values in words, e.g. "a whole number, at least 1"."""
        if "expects" in self.extra:
            return str(self.extra["expects"])
        words = _expects(self.field.annotation, self.field.metadata)
        return words if self.kind is bool or get_origin(self.kind) is Literal or self.is_list else _article(words)


def keys(recipe: type[BaseModel]) -> Iterator[Key]:
    """All keys in the order of the schema: those at the top first, then section by section."""
    for name, field in recipe.model_fields.items():
        if not _is_section(field):
            yield Key("", name, field)
    for section, fields in sections(recipe).items():
        for name, field in fields.model_fields.items():
            yield Key(section, name, field)


def sections(recipe: type[BaseModel]) -> dict[str, type[BaseModel]]:
    """Section name → its class."""
    return {name: field.annotation for name, field in recipe.model_fields.items() if _is_section(field)}  # type: ignore[misc]


def _is_section(field: FieldInfo) -> bool:
    return isinstance(field.annotation, type) and issubclass(field.annotation, BaseModel)


def _split(annotation: Any) -> tuple[Any, list[Any]]:
    """The bare type behind Annotated and `| None`, and the limits met on the way."""
    found: list[Any] = []
    while True:
        if get_origin(annotation) is Annotated:
            annotation, *more = get_args(annotation)
            found += [
                limit for entry in more for limit in (entry.metadata if isinstance(entry, FieldInfo) else [entry])
            ]
        elif get_origin(annotation) in (Union, types.UnionType):
            annotation = next(part for part in get_args(annotation) if part is not type(None))
        else:
            return annotation, found


def _expects(annotation: Any, metadata: Iterable[Any]) -> str:
    kind, found = _split(annotation)
    found = [*metadata, *found]
    if get_origin(kind) is Literal:
        return f"one of {', '.join(map(str, get_args(kind)))}"
    if get_origin(kind) is not tuple:
        return ", ".join([UNITS[kind], *_range(found)])
    parts = get_args(kind)
    what, comma, each = _expects(parts[0], ()).removeprefix("a ").partition(", ")
    plural = what.replace("list of", "lists of") if what.startswith("list of") else f"{what}s"
    size = f"{len(parts)} " if parts[-1] is not Ellipsis else ""
    size = "one or more " if any(isinstance(limit, limits.MinLen) for limit in found) else size
    return f"a list of {size}{plural}{comma}{each if each.startswith('each') or not each else f'each {each}'}"


def _range(metadata: Iterable[Any]) -> list[str]:
    words = []
    for limit in dict.fromkeys(entry for entry in metadata if isinstance(entry, limits.BaseMetadata)):
        match limit:
            case limits.MinLen():
                words.append("not empty")
            case limits.Ge(ge=bound):
                words.append(f"at least {bound}")
            case limits.Gt(gt=bound):
                words.append(f"above {bound}")
            case limits.Le(le=bound):
                words.append(f"at most {bound}")
            case limits.Lt(lt=bound):
                words.append(f"below {bound}")
    return words


def _article(words: str) -> str:
    return words if words.startswith("text") else f"a {words}"
