"""Recipes as YAML, as scalars and as help text."""

from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from tinyworld.config.dump import WIDTH, describe_flags, flatten, to_yaml
from tinyworld.config.keys import keys
from tinyworld.config.load import bundled_recipes, load_recipe
from tinyworld.config.schema import TaehvRecipe
from tinyworld.config.yaml_text import dump_yaml, parse_value, read_yaml
from tinyworld.core.errors import ConfigError

TAEHV: dict[str, object] = {"data_root": "clips", "frame_steps": "1,2", "buckets": "[[64,64,12],[128,64,20]]"}
WORLD: dict[str, object] = {
    "dataset_base_path": "worlds",
    "condition_cache": "cache",
    "camera_intrinsics": "10,10,4.5,4.5",
}
FANTASY = {
    "fantasy_demo_base": WORLD,
    "fantasy_demo_stage1": {**WORLD, "backbone_path": "base"},
    "fantasy_demo_stage2": {**WORLD, "backbone_path": "base", "stage1_checkpoint": "a.safetensors"},
    "fantasy_stage1": {**WORLD, "backbone_path": "wan", "pretrained_model_path": "b.safetensors"},
    "fantasy_stage2": {**WORLD, "backbone_path": "wan", "stage1_checkpoint": "a.safetensors"},
}
"""What each recipe leaves to the user."""


@pytest.mark.parametrize("name", bundled_recipes())
def test_a_dump_reads_back_equal(name: str, tmp_path: Path) -> None:
    recipe = load_recipe(name, FANTASY.get(name) or TAEHV)
    (tmp_path / "config.yaml").write_text(to_yaml(recipe), encoding="utf-8")
    again = load_recipe(tmp_path / "config.yaml")
    assert again == recipe
    assert to_yaml(again) == to_yaml(recipe)


TRICKY = st.sampled_from(
    ["no", "1e-4", "None", "~", "null", "010", "1:30", "a: b", "# x", "- x", "<<", "é", " pad ", "'", '"']
)
VALUES = st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | TRICKY
VALUES |= st.text(st.characters(codec="utf-8"))


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.dictionaries(TRICKY | st.text(st.characters(codec="utf-8")), VALUES | st.lists(VALUES), min_size=1))
def test_any_value_reads_back_as_itself(tmp_path: Path, values: dict[str, object]) -> None:
    path = tmp_path / "values.yaml"
    path.write_text(dump_yaml(values), encoding="utf-8")
    assert read_yaml(path) == values


@given(st.floats(allow_nan=False, allow_infinity=False))
def test_numbers_as_python_prints_them(value: float) -> None:
    assert parse_value(repr(value)) == value
    assert parse_value(f"{value:e}") == pytest.approx(value, rel=1e-5)


def test_scalars_of_yaml_1_2() -> None:
    read = {text: parse_value(text) for text in ("1e-4", "1E5", "1_000", "-3", ".5", "2.", "true", "~", "None", "")}
    assert list(read.values()) == [1e-4, 1e5, 1000, -3, 0.5, 2.0, True, None, None, None]
    for text in ("no", "off", "yes", "010", "1:30", "2024-01-01", "0x10", "1e", "e5", ".", "nan"):
        assert parse_value(text) == text


def test_flatten_gives_scalars_and_strings_only() -> None:
    flat = flatten(load_recipe("taehv_demo"))
    assert set(flat) == {key.dotted for key in keys(TaehvRecipe)}
    assert {type(value) for value in flat.values()} <= {int, float, str, bool}
    assert flat["data.frame_steps"] == "[1]" and flat["run.run_name"] == "null" and flat["data.flip"] is True


def test_help_shows_every_flag_with_its_default_in_100_columns() -> None:
    text = describe_flags(TaehvRecipe)
    assert max(map(len, text.splitlines())) <= WIDTH
    for key in keys(TaehvRecipe):
        assert f"--{key.leaf} " in text
    assert "[at least 1; required]" in text and "default 0.0001" in text and "default tensorboard" in text
    assert "%" not in text  # argparse would take it for a placeholder


def test_a_recipe_printed_with_a_problem_in_it_is_still_refused(tmp_path: Path) -> None:
    text = to_yaml(load_recipe("taehv_demo")).replace("n_frames: 12", "n_frames: 13")
    (tmp_path / "config.yaml").write_text(text, encoding="utf-8")
    with pytest.raises(ConfigError, match="12 or 16"):
        load_recipe(tmp_path / "config.yaml")


def test_help_of_a_recipe_shows_what_it_sets() -> None:
    recipe = load_recipe("taehv_small", {"height": 96, "learning_rate": 3.25e-4}, complete=False)
    lines = describe_flags(TaehvRecipe, recipe)
    assert max(map(len, lines.splitlines())) <= WIDTH
    text = " ".join(lines.split())
    shown = {part.split()[0]: part for part in text.split(" --")}
    assert "taehv_small: 96]" in shown["height"] and "taehv_small: 0.000325]" in shown["learning_rate"]
    assert "[required]" in shown["data_root"] and "(not given)" not in text  # it is left to the user
    assert "[default tensorboard]" in shown["tracker_name"]
