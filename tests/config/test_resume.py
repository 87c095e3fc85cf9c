"""Every key has a class of change at resume, and what differs is found."""

from pathlib import Path

import pytest
import yaml

from tests.config.test_rules import recipe as made
from tinyworld.config.dump import to_yaml
from tinyworld.config.keys import keys
from tinyworld.config.resume import MEANING, RULES, changes, kind_of, table
from tinyworld.config.schema import FAMILIES, TaehvRecipe


@pytest.fixture(autouse=True)
def _data(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "clips").mkdir()
    monkeypatch.chdir(tmp_path)


def test_every_key_has_one_class_and_every_class_is_of_a_key() -> None:
    listed = [leaf for leaves in RULES.values() for leaf in leaves.split()]
    known = {key.leaf for family in FAMILIES.values() for key in keys(family)}
    assert sorted(listed) == sorted(known), "give each key a class in config/resume.py"
    assert {kind for kind, _ in RULES} == set(MEANING)


def saved(recipe: TaehvRecipe) -> dict[str, object]:
    """The recipe as the config.yaml of its run, read back."""
    content = yaml.safe_load(to_yaml(recipe.anchored()))
    assert isinstance(content, dict)
    return content


def test_nothing_has_changed_when_nothing_was_changed() -> None:
    assert changes(saved(made()), made()) == []
    stage = {"from_step": 10, "height": 64, "width": 64, "n_frames": 12}
    staged = made(data={"stages": [stage], "frame_steps": [1, 2]})
    assert changes(saved(staged), staged) == []


def test_a_path_is_the_same_from_another_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    before = saved(made())
    (tmp_path / "elsewhere").mkdir()
    monkeypatch.chdir(tmp_path / "elsewhere")
    assert changes(before, made(data={"data_root": "../clips"})) == []
    (tmp_path / "other").mkdir()
    (change,) = changes(before, made(data={"data_root": "../other"}))
    assert (change.key, change.kind, change.after) == ("data.data_root", "forbidden", str(tmp_path / "other"))


def test_changes_are_listed_with_their_class() -> None:
    now = made(
        run={"seed": 3}, optimizer={"learning_rate": 3e-4}, training={"log_steps": 7}, model={"decoder_widths": [8, 8, 8, 8]}
    )  # fmt: skip
    found = {change.key: change for change in changes(saved(made()), now, processes=(8, 4))}
    kinds = {key: change.kind for key, change in found.items()}
    assert kinds == {
        "run.seed": "forbidden", "model.decoder_widths": "forbidden", "optimizer.learning_rate": "warned",
        "training.log_steps": "free", "processes": "warned",
    }  # fmt: skip
    assert str(found["training.log_steps"]) == "training.log_steps: 10 → 7"
    assert str(found["processes"]) == "processes: 8 → 4"


def test_the_length_of_a_run_matters_to_a_falling_rate_only() -> None:
    assert kind_of("training.max_train_steps", made()) == "free"
    assert kind_of("training.max_train_steps", made(optimizer={"lr_scheduler": "cosine"})) == "warned"


def test_a_recipe_of_another_version_is_read() -> None:
    before = saved(made())
    del before["parallel"]
    assert changes(before, made()) == []
    assert [change.key for change in changes(before, made(parallel={"strategy": "zero2"}))] == ["parallel.strategy"]
    before["old"] = {"gone": 3}
    (change,) = changes(before, made())
    assert (change.key, change.kind) == ("old.gone", "warned")


def test_the_table_in_the_documentation_is_up_to_date() -> None:
    page = Path(__file__).parents[2] / "docs" / "resume-rules.md"
    assert page.read_text(encoding="utf-8") == table(), "python -m tinyworld.config.resume > docs/resume-rules.md"
