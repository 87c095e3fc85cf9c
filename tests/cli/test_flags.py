"""Flags over a recipe: how they are cut into keys and values."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tinyworld.cli.flags import parse_overrides
from tinyworld.config.guide import ELSEWHERE, NAMES
from tinyworld.config.keys import keys
from tinyworld.config.load import load_recipe
from tinyworld.config.schema import FAMILIES
from tinyworld.core.errors import ConfigError


def test_every_form_of_a_flag() -> None:
    given_flags = ["--n_frames", "16", "--data.height=64", "--flip", "--learning_rate", "-1e-4", "--run_name=--odd=x"]
    assert parse_overrides(given_flags) == {
        "n_frames": "16",
        "data.height": "64",
        "flip": True,
        "learning_rate": "-1e-4",
        "run_name": "--odd=x",
    }
    assert parse_overrides([]) == {}
    assert parse_overrides(["--run_name", "", "--x="]) == {"run_name": "", "x": ""}


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["16"], "16 stands alone"),
        (["--n_frames", "16", "20"], "20 stands alone"),
        (["--frame_steps", "1,", "2"], "2 stands alone: values follow their flag, as in --key 2, lists without spaces"),
        (["-n", "16"], "-n is not a flag: flags are written with two dashes, as in --n."),
        (["--"], "-- stands alone"),
        (["--=3"], "stands alone"),
        (["--flip", "--flip", "false"], "--flip is given twice, as a flag alone and as false. Give it once."),
        (["--seed", "1", "--seed=2"], "--seed is given twice, as 1 and as 2. Give it once."),
    ],
)
def test_malformed_arguments_are_named(arguments: list[str], message: str) -> None:
    with pytest.raises(ConfigError) as error:
        parse_overrides(arguments)
    assert message in error.value.problems[0]


def test_all_malformed_arguments_come_at_once() -> None:
    with pytest.raises(ConfigError) as error:
        parse_overrides(["x", "--seed", "1", "y", "--seed", "2"])
    assert len(error.value.problems) == 3


def test_the_same_value_twice_is_no_contradiction() -> None:
    assert parse_overrides(["--seed", "1", "--seed=1"]) == {"seed": "1"}


@given(st.dictionaries(st.from_regex(r"[a-z]+(\.[a-z_]+)?", fullmatch=True), st.text()))
def test_what_is_given_with_an_equals_sign_comes_back(flags: dict[str, str]) -> None:
    assert parse_overrides([f"--{name}={value}" for name, value in flags.items()]) == flags


def test_flags_reach_the_recipe() -> None:
    arguments = [
        "--data_root",
        "clips",
        "--frame_steps",
        "1,2",
        "--n_frames",
        "16",
        "--flip",
        "false",
        "--pad_frames",
        "--weight_decay",
        "1e-2",
    ]
    data = (recipe := load_recipe("taehv_small", parse_overrides(arguments))).data
    assert (data.frame_steps, data.n_frames, data.flip, data.pad_frames) == ((1, 2), 16, False, True)
    assert recipe.optimizer.weight_decay == 0.01
    with pytest.raises(ConfigError, match=r"--n_frame: unknown\. Did you mean --n_frames\?"):
        load_recipe("taehv_small", parse_overrides(["--data_root", "clips", "--n_frame", "16"]))
    with pytest.raises(ConfigError, match="--n_frames needs a value: a whole number, at most 100000, at least 1"):
        load_recipe("taehv_small", parse_overrides(["--data_root", "clips", "--n_frames", "--flip"]))


def refusal(recipe: str, name: str) -> str:
    with pytest.raises(ConfigError) as error:
        load_recipe(recipe, {name: "3"})
    return " ".join(error.value.problems)


@pytest.mark.parametrize(
    ("name", "meant"),
    [
        ("batch_size", "--train_batch_size?"),
        ("batch-size", "--train_batch_size?"),
        ("lr", "--learning_rate?"),
        ("steps", "--max_train_steps?"),
        ("epochs", "--max_train_steps?"),
        ("resume", "--resume_from_checkpoint?"),
        ("resolution", "--height and --width?"),
        ("num_frames", "--n_frames?"),
        ("data_dir", "--data_root?"),
        ("output", "--output_dir?"),
    ],
)
def test_a_name_of_another_trainer_leads_to_the_key(name: str, meant: str) -> None:
    assert f"--{name}: unknown. Did you mean {meant}" in refusal("taehv_demo", name)


def test_the_key_that_is_meant_is_one_of_the_family() -> None:
    assert "Did you mean --dataset_base_path?" in refusal("fantasy_demo_base", "data")
    assert "Did you mean --num_frames?" in refusal("fantasy_demo_base", "n_frames")
    for family in FAMILIES.values():
        assert not {key.dotted for key in keys(family)} & set(ELSEWHERE)
    known = {key.leaf for family in FAMILIES.values() for key in keys(family)}
    assert {leaf for leaves in ELSEWHERE.values() for leaf in leaves} <= known and not set(ELSEWHERE) & set(NAMES)
