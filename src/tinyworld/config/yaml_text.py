"""YAML for recipes: the scalars of YAML 1.2, no key twice, errors in one line, a dump that reads back the same.

PyYAML follows YAML 1.1, where 1e-4 is text, `no` is false, 010 is eight and 1:30 is ninety. Here 1e-4 is a number, only
true and false are booleans, and the rest is text, which the schema then refuses where a number is asked for.
"""

import re
from pathlib import Path
from typing import Any

import yaml

from tinyworld.core.errors import ConfigError

_SCALARS = [
    ("bool", r"true|True|TRUE|false|False|FALSE", "tTfF"),
    ("int", r"[-+]?(?:0|[1-9][0-9_]*)", "-+0123456789"),
    ("float", r"[-+]?(?:[0-9][0-9_]*\.[0-9_]*|\.[0-9][0-9_]*)(?:[eE][-+]?[0-9]+)?", "-+0123456789."),
    ("float", r"[-+]?[0-9][0-9_]*[eE][-+]?[0-9]+", "-+0123456789"),
    ("null", r"~|null|Null|NULL|None|", ["~", "n", "N", ""]),
    ("merge", r"<<", "<"),
]
"""Tag, form and first characters of the scalars that are not text; `None` is what people who know Python write."""


class _Loader(yaml.SafeLoader):
    yaml_implicit_resolvers: dict[str, list[tuple[str, re.Pattern[str]]]] = {}  # noqa: RUF012 - PyYAML's own name

    def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict[Any, Any]:
        first: dict[str, int] = {}
        for key, _ in node.value if isinstance(node, yaml.MappingNode) else ():
            if not isinstance(key, yaml.ScalarNode):
                continue  # PyYAML refuses a list or a mapping as a key
            if key.value in first:
                problem = f"{key.value} is written twice (first in line {first[key.value]})"
                raise yaml.constructor.ConstructorError(None, None, problem, key.start_mark)
            first[key.value] = key.start_mark.line + 1
        return super().construct_mapping(node, deep)


class _Dumper(yaml.SafeDumper):
    """Quotes whatever YAML 1.1 or the scalars above would take for something else than text."""


for _tag, _form, _first in _SCALARS:
    for _class in (_Loader, _Dumper):
        _class.add_implicit_resolver(f"tag:yaml.org,2002:{_tag}", re.compile(rf"^(?:{_form})$"), list(_first))
_Dumper.add_representer(  # line breaks and the like are written as escapes
    str,
    lambda dumper, value: dumper.represent_scalar(
        "tag:yaml.org,2002:str", value, style=None if value.isprintable() else '"'
    ),
)
_Dumper.add_representer(
    list, lambda dumper, value: dumper.represent_sequence("tag:yaml.org,2002:seq", value, flow_style=True)
)


def read_yaml(path: Path) -> dict[str, Any]:
    """The mapping in a YAML file. Raises ConfigError in one line with file, line and column."""
    try:
        content = _load(path.read_text(encoding="utf-8"))
    except (OSError, UnicodeDecodeError) as error:
        raise ConfigError(f"{path} cannot be read as a text file: {error}") from error
    except yaml.MarkedYAMLError as error:
        mark = error.problem_mark or error.context_mark
        where = f", line {mark.line + 1}, column {mark.column + 1}" if mark else ""
        raise ConfigError(f"{path}{where}: {error.problem or error.context}.") from error
    except yaml.YAMLError as error:
        raise ConfigError(f"{path} is not YAML: {' '.join(str(error).split())}") from error
    if not isinstance(content, dict):
        raise ConfigError(
            f"{path} is not a recipe: it must hold keys such as task, data and training at its top level."
        )
    return {str(key): value for key, value in content.items()}


def parse_value(text: str) -> Any:
    """One value as a recipe file would read it; text that is no YAML stays text."""
    try:
        return _load(text)
    except yaml.YAMLError:
        return text


def _load(text: str) -> Any:
    try:
        return yaml.load(text, _Loader)
    except (ValueError, KeyError, AttributeError) as error:  # how PyYAML fails on !!int x, !!bool x, !!timestamp x
        raise yaml.YAMLError(f"a value does not fit its type ({error})") from error
    except RecursionError as error:
        raise yaml.YAMLError("it is nested too deeply") from error


def dump_yaml(value: dict[str, Any]) -> str:
    """YAML with keys in the given order, lists in one line."""
    return yaml.dump(value, Dumper=_Dumper, sort_keys=False, default_flow_style=False, allow_unicode=True, width=10_000)
