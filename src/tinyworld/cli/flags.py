"""Flags over a recipe, without knowing its keys: `config.load` gives them their meaning."""

from collections.abc import Sequence

from tinyworld.core.errors import ConfigError


def parse_overrides(arguments: Sequence[str]) -> dict[str, str | bool]:
    """`--key value`, `--key=value`, `--section.key value` and `--key` alone, as key → text, or True for a flag alone.

    What follows a flag is its value unless it starts with two dashes, so -1 and 1e-4 need no care; a value that starts
    with two dashes is written --key=--value. A switch is turned off by `--key false`. A flag may come twice only with
    the same value: a launch script and a person who disagree are told, and none of them wins in silence.

    Raises ConfigError with every malformed argument.
    """
    found: dict[str, str | bool] = {}
    problems: list[str] = []
    rest = list(arguments)
    while rest:
        argument = rest.pop(0)
        name, equals, text = argument.removeprefix("--").partition("=")
        if not argument.startswith("--") or not name:
            problems.append(_stray(argument))
            continue
        value: str | bool = True
        if equals:
            value = text
        elif rest and not rest[0].startswith("--"):
            value = rest.pop(0)
        if found.get(name, value) != value:
            problems.append(f"--{name} is given twice, as {_shown(found[name])} and as {_shown(value)}. Give it once.")
        found[name] = value
    if problems:
        raise ConfigError(problems)
    return found


def _stray(argument: str) -> str:
    if argument.startswith("-") and not argument.startswith("--") and argument != "-":
        return f"{argument} is not a flag: flags are written with two dashes, as in --{argument.lstrip('-')}."
    return (
        f"{argument} stands alone: values follow their flag, as in --key {argument}, lists without spaces, as in 1,2."
    )


def _shown(value: str | bool) -> str:
    return "a flag alone" if value is True else str(value)
