"""`tinyworld completion SHELL`: what a shell needs to complete commands, recipes, keys and files."""

import argparse
import re
from collections.abc import Iterator

from tinyworld.cli.paths import given_path
from tinyworld.cli.recipe_arguments import NO_PREFIX
from tinyworld.config.keys import keys
from tinyworld.config.load import bundled_recipes
from tinyworld.config.schema import FantasyRecipe, TaehvRecipe

SHELLS = {
    "bash": "tinyworld completion bash > ~/.local/share/bash-completion/completions/tinyworld",
    "zsh": "tinyworld completion zsh > ~/.zsh/_tinyworld     (a folder of $fpath, before compinit)",
    "fish": "tinyworld completion fish > ~/.config/fish/completions/tinyworld.fish",
}
OWN_FLAG = re.compile(r"\[(--[a-z_]+)( [A-Z]+)?\]")
"""A flag of the command itself, as its usage states it beside the keys of a recipe."""
RECIPES = "_tinyworld_recipes"
"""The shell function that completes RECIPE: a bundled name or a file."""


def add_parser(commands: "argparse._SubParsersAction[argparse.ArgumentParser]") -> None:
    parser = commands.add_parser(
        "completion",
        help="print a script that makes a shell complete commands, recipes, keys and files",
        description="Once per shell:\n" + "\n".join(f"  {line}" for line in SHELLS.values()),
        formatter_class=argparse.RawDescriptionHelpFormatter,
        allow_abbrev=False,
    )
    parser.add_argument("shell", choices=tuple(SHELLS))
    parser.set_defaults(run=run)


def run(options: argparse.Namespace) -> int:
    import shtab

    from tinyworld.cli.dispatch import build_parser

    parser = build_parser()
    _open_up(parser)
    print(shtab.complete(parser, options.shell, preamble=_preamble()[options.shell]))
    return 0


def _open_up(parser: argparse.ArgumentParser) -> None:
    """Turn a parser that leaves its arguments to the recipe into one with an option for each key; files where paths are asked."""
    import shtab

    for action in parser._actions:
        if action.type is given_path:
            action.complete = shtab.FILE  # type: ignore[attr-defined]
        if isinstance(action, argparse._SubParsersAction):
            for name, command in list(action.choices.items()):
                if command.prefix_chars == NO_PREFIX:
                    action.choices[name] = _with_keys(command)
                else:
                    _open_up(command)


def _with_keys(command: argparse.ArgumentParser) -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog=command.prog, description=command.description)
    if command.get_default("recipe") is None:
        parser.add_argument("recipe").complete = {"bash": RECIPES, "zsh": RECIPES, "fish": f"({RECIPES})"}  # type: ignore[attr-defined]
    known = list(_flags())
    for flag, value in OWN_FLAG.findall(command.usage or ""):
        if flag not in {"--help", *(leaf for leaf, _, _ in known)}:
            parser.add_argument(flag, action="store" if value else "store_true")
    for flag, meaning, values in known:
        parser.add_argument(flag, help=meaning, choices=values)
    return parser


def _flags() -> Iterator[tuple[str, str, tuple[str, ...] | None]]:
    """Each key of both families once: the flag, the first clause of its meaning, its values where they are few."""
    found: dict[str, tuple[str, tuple[str, ...]]] = {}
    for recipe in (TaehvRecipe, FantasyRecipe):
        for key in keys(recipe):
            few = tuple(map(str, key.choices))
            meaning = (key.field.description or "").partition(";")[0].partition(". ")[0]
            earlier = found.get(key.leaf, (meaning, ()))
            found[key.leaf] = (earlier[0], (*earlier[1], *(("true", "false") if key.kind is bool else few)))
    for leaf, (meaning, values) in found.items():
        yield f"--{leaf}", meaning, tuple(dict.fromkeys(values)) or None


def _preamble() -> dict[str, str]:
    names = " ".join(bundled_recipes())
    return {
        "bash": f'{RECIPES}() {{ compgen -W "{names}" -- "$1"; compgen -f -- "$1"; }}',
        "zsh": f"{RECIPES}() {{ compadd -- {names}; _files -g '*.y*ml(-.)'; }}",
        "fish": f"function {RECIPES}; set -l files *.yaml; printf '%s\\n' {names} $files; end",
    }
