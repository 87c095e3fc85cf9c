"""Recipes by name and file, extends, flags over them, and what is said when something is wrong."""

import subprocess
import sys
from pathlib import Path

import pytest

from tinyworld.config.draft import _from_text
from tinyworld.config.keys import keys
from tinyworld.config.load import BUNDLED, bundled_recipes, load_recipe
from tinyworld.config.schema import FAMILIES, Recipe, TaehvRecipe
from tinyworld.core.errors import ConfigError, MissingFileError

MINIMAL = """
task: taehv
data: {data_root: clips, height: 64, width: 96, n_frames: 12}
model: {variant: taew2_1}
training: {max_train_steps: 100}
"""


def write(folder: Path, text: str = "", name: str = "mine.yaml", base: str = MINIMAL) -> Path:
    path = folder / name
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(base + text, encoding="utf-8")
    return path


def problems(path: str | Path, **overrides: object) -> list[str]:
    with pytest.raises(ConfigError) as error:
        load_recipe(path, overrides)
    return error.value.problems


def test_a_minimal_file_takes_its_name_from_the_file(tmp_path: Path) -> None:
    recipe = load_recipe(write(tmp_path))
    assert (recipe.name, recipe.task, recipe.data.width, recipe.training.train_batch_size) == ("mine", "taehv", 96, 2)
    assert recipe.source_folder == tmp_path


def test_bundled_recipes_load_by_name() -> None:
    assert bundled_recipes() == [
        "fantasy_demo_base",
        "fantasy_demo_stage1",
        "fantasy_demo_stage2",
        "fantasy_stage1",
        "fantasy_stage2",
        "taehv_a800",
        "taehv_demo",
        "taehv_h100",
        "taehv_h100_1gpu",
        "taehv_small",
        "taehv_stages",
    ]
    demo = load_recipe("taehv_demo")
    assert demo.data.data_root == "rooms"
    assert demo.source_folder is None


def test_a_missing_recipe_lists_the_bundled_ones_and_the_nearest() -> None:
    with pytest.raises(MissingFileError) as error:
        load_recipe("taehv_smal")
    assert 'Did you mean "taehv_small"?' in str(error.value)
    assert all(name in str(error.value) for name in bundled_recipes())


def test_a_missing_file_says_where_it_was_looked_for(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    with pytest.raises(MissingFileError, match=r"No recipe 'conf/a\.yaml'.*Looked for .*conf/a\.yaml"):
        load_recipe("conf/a.yaml")


def test_extends_merges_sections_key_by_key_and_replaces_lists(tmp_path: Path) -> None:
    write(
        tmp_path, "optimizer: {lr_warmup_steps: 7}\n", "base.yaml", MINIMAL.replace("96,", "96, frame_steps: [1, 2],")
    )
    middle = "extends: base.yaml\ndata: {n_frames: 16, frame_steps: [3]}\ntraining:\n"
    write(tmp_path, name="sub/middle.yaml", base=middle.replace("base.yaml", "../base.yaml"))
    leaf = write(tmp_path, name="leaf.yaml", base="extends: sub/middle.yaml\ndata:\n  height: 32\n")
    recipe = load_recipe(leaf)
    assert (recipe.data.height, recipe.data.n_frames, recipe.data.frame_steps) == (32, 16, (3,))
    assert (recipe.optimizer.lr_warmup_steps, recipe.training.max_train_steps, recipe.name) == (7, 100, "leaf")


def test_extends_a_bundled_recipe_by_name(tmp_path: Path) -> None:
    recipe = load_recipe(write(tmp_path, base="extends: taehv_small\ndata:\n  data_root: clips\n  height: 256\n"))
    assert (recipe.data.height, recipe.data.width, recipe.optimizer.learning_rate) == (256, 128, 3e-4)


def test_a_circle_of_extends_is_shown(tmp_path: Path) -> None:
    a = write(tmp_path, name="a.yaml", base="extends: b.yaml\n")
    write(tmp_path, name="b.yaml", base="extends: a.yaml\n")
    assert "a.yaml → b.yaml → a.yaml" in problems(a)[0]


def test_a_missing_parent_names_the_child(tmp_path: Path) -> None:
    with pytest.raises(MissingFileError, match=r"No recipe 'taehv_smll' \(extends in .*mine\.yaml\)"):
        load_recipe(write(tmp_path, base="extends: taehv_smll\n"))
    assert "must be the name or the path of one recipe" in problems(write(tmp_path, base="extends: [a, b]\n"))[0]


def test_flags_win_plain_and_with_section(tmp_path: Path) -> None:
    flags = {"n_frames": "16", "data.height": 128, "frame_steps": "1,2", "flip": "false", "learning_rate": "2e-4"}
    recipe = load_recipe(write(tmp_path), flags)
    assert (recipe.data.n_frames, recipe.data.height, recipe.data.frame_steps, recipe.data.flip) == (
        16,
        128,
        (1, 2),
        False,
    )
    assert recipe.optimizer.learning_rate == 2e-4


def test_flag_text_is_kept_where_a_key_holds_text(tmp_path: Path) -> None:
    recipe = load_recipe(write(tmp_path), {"run_name": "007", "mixed_precision": "no", "annotation_file": "null"})
    assert (recipe.run.run_name, recipe.training.mixed_precision, recipe.data.annotation_file) == ("007", "no", None)
    assert load_recipe(write(tmp_path), {"pad_frames": True, "n_frames": "19"}).data.pad_frames is True
    buckets = load_recipe(write(tmp_path), {"buckets": "[[64,64,12],[96,64,16]]"}).data.buckets
    assert buckets == ((64, 64, 12), (96, 64, 16))


@pytest.mark.parametrize("family", FAMILIES.values(), ids=FAMILIES)
def test_every_value_that_can_be_listed_is_taken_as_flag_text(family: type[Recipe]) -> None:
    listed = [key for key in keys(family) if key.choices]
    assert any(not key.is_text for key in listed) or family is not TaehvRecipe
    for key in listed:
        for choice in key.choices:
            parsed = _from_text(key, str(choice))
            assert parsed == choice and type(parsed) is type(choice)


def test_yaml_numbers_of_every_spelling(tmp_path: Path) -> None:
    text = (
        "optimizer: {learning_rate: 1e-4, adam_epsilon: 1.e-9, weight_decay: 0}\nvalidation: {validation_steps: 1e3}\n"
    )
    recipe = load_recipe(write(tmp_path, text))
    assert (recipe.optimizer.learning_rate, recipe.optimizer.adam_epsilon) == (1e-4, 1e-9)
    assert recipe.optimizer.weight_decay == 0 and recipe.validation.validation_steps == 1000


def test_no_is_a_precision_and_also_false(tmp_path: Path) -> None:
    text = MINIMAL.replace(
        "max_train_steps: 100", "max_train_steps: 100, mixed_precision: no, gradient_checkpointing: no"
    )
    training = load_recipe(write(tmp_path, base=text)).training
    assert (training.mixed_precision, training.gradient_checkpointing) == ("no", False)


@pytest.mark.parametrize(
    ("flag", "message"),
    [
        ({"n_frame": "16"}, "--n_frame: unknown. Did you mean --n_frames?"),
        ({"data.n_frame": "16"}, "--data.n_frame: unknown. Did you mean --n_frames?"),
        ({"model.n_frames": "16"}, "--model.n_frames: n_frames belongs to section data: write --data.n_frames."),
        ({"no-flip": True}, "--no-flip: unknown. To switch a key off write --flip false."),
        ({"n_frames": True}, "--n_frames needs a value: a whole number, at most 100000, at least 1."),
        ({"n_frames": "many"}, "--n_frames many is not valid: it must be a whole number, at most 100000, at least 1."),
        ({"n_frames": "12.5"}, "--n_frames 12.5 is not valid: it must be a whole number, at most 100000, at least 1."),
        ({"n_frames": "0"}, "--n_frames 0 is not valid: it must be a whole number, at most 100000, at least 1."),
        ({"learning_rate": "-1"}, "--learning_rate -1 is not valid: it must be a number, above 0, at most 1."),
        ({"learning_rate": float("nan")}, "--learning_rate NaN is not valid: it must be a number, above 0, at most 1."),
        ({"data_root": ""}, '--data_root "" is not valid: it must be text, not empty.'),
        ({"run_name": "a b"}, "--run_name a b is not valid: it must be a folder name without slashes and spaces, not beginning with a dot."),  # noqa: E501
        ({"tracker_name": "x"}, "--tracker_name x is not valid: it must be one of tensorboard, wandb, none."),
        ({"frame_steps": "1,x"}, "it must be a list of one or more whole numbers, each at least 1."),
        ({"frame_steps": "[1"}, '--frame_steps [1 is not valid'),
        ({"buckets": "[[64,64]]"}, "it must be a list of lists of 3 whole numbers, each at least 1."),
        ({"flip": "maybe"}, "--flip maybe is not valid: it must be true or false."),
        ({"n_frames": "12", "data.n_frames": "16"}, "--n_frames and --data.n_frames are the same key."),
        ({"qqq": "1"}, "--qqq: unknown. Sections: run, parallel, data, model, loss, optimizer"),
    ],
)  # fmt: skip
def test_each_wrong_flag_is_told_in_its_own_words(tmp_path: Path, flag: dict[str, object], message: str) -> None:
    (problem,) = problems(write(tmp_path), **flag)
    assert message in problem


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("n_frames: 16\n", "n_frames (in mine.yaml): n_frames belongs to section data: write data.n_frames (in YAML:"),
        ("data.n_frames: 16\n", "data.n_frames (in mine.yaml): n_frames belongs to section data"),
        ("loss: {n_frames: 16}\n", "loss.n_frames (in mine.yaml): n_frames belongs to section data"),
        ("loss: {flicker_weight: 1}\n", "loss.flicker_weight (in mine.yaml): unknown. Did you mean loss.flicker_loss"),
        ("loss: {zzz: 1}\n", "Keys of loss: reconstruction_loss_weight, encoder_loss_weight, decoder_loss_weight"),
        ("validation: {task: taehv}\n", "task belongs to the top level: write task."),
        ("loss: 5\n", "loss: 5 (in mine.yaml) must hold keys of its own, below it."),
        ("run: {seed: '64'}\n", 'run.seed: "64" (in mine.yaml) is not valid: it must be a whole number'),
        ("run: {seed: true}\n", "run.seed: true (in mine.yaml) is not valid: it must be a whole number"),
        ("run: {seed: null}\n", "run.seed: null (in mine.yaml) is not valid"),
        ("run: {run_name: 5}\n", "run.run_name: 5 (in mine.yaml) is not valid"),
        ("optimizer: {learning_rate: .inf}\n", "optimizer.learning_rate: .inf (in mine.yaml) is not valid"),
        ("run: {seed: 010}\n", "run.seed: 010 (in mine.yaml) is not valid"),
    ],
)  # fmt: skip
def test_each_wrong_key_in_a_file_is_told_in_its_own_words(tmp_path: Path, text: str, message: str) -> None:
    (problem,) = problems(write(tmp_path, text))
    assert message in problem


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("task: taehv\ndata: {height: 64\n", "mine.yaml, line 3, column 1: expected ',' or '}'"),
        ("data:\n\theight: 64\n", "mine.yaml, line 2, column 1: found character '\\t'"),
        ("run:\n  seed: 64\n  seed: 32\n", "mine.yaml, line 3, column 3: seed is written twice (first in line 2)"),
        ("- 1\n- 2\n", "is not a recipe: it must hold keys such as task"),
        ("", "is not a recipe"),
        ("a: !!python/object/apply:os.system ['true']\n", "could not determine a constructor"),
        ("a: \x07\n", "is not YAML"),
    ],
)  # fmt: skip
def test_a_file_that_is_no_recipe_is_refused_in_one_line(tmp_path: Path, text: str, message: str) -> None:
    (problem,) = problems(write(tmp_path, base=text))
    assert message in problem and "\n" not in problem


def test_a_binary_file_is_refused(tmp_path: Path) -> None:
    (tmp_path / "video.yaml").write_bytes(b"\xff\xfe\x00\x80")
    assert "cannot be read as a text file" in problems(tmp_path / "video.yaml")[0]


def test_task_is_needed_and_known(tmp_path: Path) -> None:
    assert "task is not set" in problems(write(tmp_path, base=MINIMAL.replace("task: taehv", "")))[0]
    assert "task: teahv is unknown. Known tasks: taehv" in problems(write(tmp_path), task="teahv")[0]


def test_all_problems_come_at_once(tmp_path: Path) -> None:
    found = problems(write(tmp_path, "loss: {flicker: 1}\nwidth: 3\n"), height="tall", sed="1", max_train_steps="0")
    assert len(found) == 5
    assert str(ConfigError(found)) == "\n".join(found)


def test_rules_speak_even_while_data_root_is_missing() -> None:
    found = problems("taehv_h100", n_frames="19")
    assert len(found) == 2
    assert "data.data_root is not set" in found[0] and "Give --data_root DIR" in found[0]
    assert "Use 16 or 20" in found[1]


def test_a_misspelt_required_key_is_not_reported_as_missing_too(tmp_path: Path) -> None:
    (problem,) = problems(write(tmp_path, base=MINIMAL.replace("n_frames", "n_frame")))
    assert "Did you mean data.n_frames?" in problem


def test_paths_beside_the_file_become_absolute_and_others_stay(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    work = tmp_path / "work"
    work.mkdir()
    monkeypatch.chdir(work)
    (tmp_path / "recipes" / "clips").mkdir(parents=True)
    (tmp_path / "recipes" / "rooms").mkdir()
    path = write(tmp_path, "validation: {lpips_backbone: vgg.pth}\n", "recipes/mine.yaml")
    recipe = load_recipe(path)
    assert recipe.data.data_root == str(tmp_path / "recipes" / "clips")
    assert recipe.find("data.data_root") == tmp_path / "recipes" / "clips"
    assert recipe.find("model.pretrained_model_path") is None
    with pytest.raises(
        MissingFileError, match=r"work/vgg\.pth and .*recipes/vgg\.pth\. Change validation\.lpips_backbone"
    ):
        recipe.find("validation.lpips_backbone")
    (work / "clips").mkdir()
    assert load_recipe(path).data.data_root == "clips"  # the working directory comes first
    rooms = load_recipe(path, {"data_root": "rooms"})
    assert rooms.data.data_root == "rooms" and rooms.find("data.data_root") is None


def test_a_bundled_path_is_looked_for_from_the_working_directory_only(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    recipe = load_recipe("taehv_small", {"data_root": "clips"})
    with pytest.raises(MissingFileError) as error:
        recipe.find("model.pretrained_model_path")
    assert str(BUNDLED) not in str(error.value)


def test_checking_a_recipe_needs_no_torch() -> None:
    code = """
import sys
class Block:
    def find_spec(self, name, path=None, target=None):
        if name.split(".")[0] == "torch":
            raise ImportError("torch is blocked")
sys.meta_path.insert(0, Block())
from tinyworld.cli.flags import parse_overrides
from tinyworld.config import dump, load, schema, warnings
recipe = load.load_recipe("taehv_demo", parse_overrides(["--n_frames", "16"]))
assert warnings.warnings(recipe) == [] and dump.to_yaml(recipe) and dump.describe_flags(type(recipe))
assert "torch" not in sys.modules
"""
    result = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert result.returncode == 0, result.stderr


@pytest.mark.parametrize(
    "text",
    [
        "? [a, b]\n: c\n",
        "? {a: b}\n: c\n",
        "extra: {[1, 2]: 3}\n",
        "extra: !!int x\n",
        "extra: !!bool x\n",
        "extra: !!timestamp x\n",
        "extra: " + "[" * 5000,
        "extra: " + "1" * 5000 + "\n",
    ],
)
def test_yaml_that_no_recipe_may_hold_is_one_line(tmp_path: Path, text: str) -> None:
    [problem] = problems(write(tmp_path, text))
    assert "mine.yaml" in problem and "\n" not in problem
