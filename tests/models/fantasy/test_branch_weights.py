"""Weight files of the geometry branch: round trips, refusals, and the table of what came from where."""

import dataclasses
import json
from pathlib import Path

import pytest
import torch
from safetensors import safe_open
from safetensors.torch import load_file, save_file

from tests.models.fantasy import branches
from tests.models.fantasy.worlds import small_backbone
from tinyworld.core.errors import MissingFileError, WeightsError
from tinyworld.core.world_sizes import WorldSpec
from tinyworld.models.fantasy.branch import GeometryBranch, Stage
from tinyworld.models.fantasy.model import FantasyWorldTransformer
from tinyworld.models.fantasy.weights import LineageRow, lineage, load_into, read_branch, save_branch

BASE = "ab" * 32


@pytest.fixture(scope="module")
def first() -> GeometryBranch:
    return stirred("stage1", 5)


@pytest.fixture
def file(first: GeometryBranch, tmp_path: Path) -> Path:
    save_branch(first, tmp_path / "step-20.safetensors", branches.SPEC, "stage1", BASE, {"step": 20})
    return tmp_path / "step-20.safetensors"


def test_round_trip(first: GeometryBranch, file: Path) -> None:
    state, info = read_branch(file)
    assert (info.stage, info.spec, info.base_digest, info.meta) == ("stage1", branches.SPEC, BASE, {"step": 20})
    assert state.keys() == first.state_dict().keys() == load_file(file).keys()
    other = stirred("stage1", 6)
    rows = load_into(other, state, info, BASE)
    assert {row.fate for row in rows} == {"loaded"}
    assert sum(row.parameters for row in rows) == sum(p.numel() for p in first.parameters())
    assert all(torch.equal(a, b) for a, b in zip(first.parameters(), other.parameters(), strict=True))
    with safe_open(str(file), framework="pt") as content:
        assert content.metadata()["architecture"] == "fantasyworld"


def test_a_folder_stands_for_its_weights(file: Path) -> None:
    file.rename(file.with_name("model.safetensors"))
    assert read_branch(file.parent)[1].meta == {"step": 20}


def test_prefixes_of_other_tools_are_taken_off(first: GeometryBranch, tmp_path: Path) -> None:
    foreign = tmp_path / "foreign.safetensors"
    save_file({f"module.pipe.dit.{key}": value for key, value in first.state_dict().items()}, foreign)
    state, info = read_branch(foreign)
    assert (info.stage, info.spec, info.base_digest) == ("stage1", None, None)
    other = stirred("stage1", 6)
    load_into(other, state, info, BASE)
    assert all(torch.equal(a, b) for a, b in zip(first.parameters(), other.parameters(), strict=True))


def test_stage_two_takes_stage_ones_file_and_says_what_is_new(first: GeometryBranch, file: Path) -> None:
    second = stirred("stage2", 7)
    adapters = [p.clone() for p in second.camera_adapters.parameters()]
    second.head_depth.requires_grad_(False)
    rows = {row.group: row for row in load_into(second, *read_branch(file))}
    assert {group: row.fate for group, row in rows.items()} == {
        **dict.fromkeys(first_groups(first), "loaded"),
        "head_depth": "frozen",
        "camera_adapters": "new",
        "irg_cross_attns": "new",
    }
    assert rows["camera_adapters"] == LineageRow("camera_adapters", 4, 2 * (48 * 48 + 48), "new")
    own = second.state_dict()
    assert all(torch.equal(own[key], value) for key, value in first.state_dict().items())
    assert all(torch.equal(a, b) for a, b in zip(adapters, second.camera_adapters.parameters(), strict=True))


def test_stage_twos_file_fits_either_stage(first: GeometryBranch, tmp_path: Path) -> None:
    second, file = stirred("stage2", 7), tmp_path / "latest.safetensors"
    save_branch(second.state_dict(), file, branches.SPEC, "stage2", BASE, {})
    state, info = read_branch(file)
    assert info.stage == "stage2"
    assert {row.fate for row in load_into(stirred("stage2", 8), state, info)} == {"loaded"}
    back = stirred("stage1", 8)
    unused = {row.group for row in load_into(back, state, info) if row.fate == "unused"}
    assert unused == {"camera_adapters", "irg_cross_attns"}
    assert torch.equal(back.token_camera, second.token_camera)


def test_the_backbone_is_a_row_of_the_table(first: GeometryBranch) -> None:
    base = small_backbone(branches.SPEC.backbone)
    row = lineage({}, first, base)[-1]
    assert row == LineageRow(
        "backbone", len(list(base.parameters())), sum(p.numel() for p in base.parameters()), "frozen"
    )
    assert {row.fate for row in lineage({}, first)} == {"new"}


def test_another_backbone_is_refused(file: Path) -> None:
    branch = stirred("stage2", 7)
    before = branch.token_camera.clone()
    with pytest.raises(WeightsError, match=r"abababababab, and the one given is cdcdcdcdcdcd"):
        load_into(branch, *read_branch(file), base_digest="cd" * 32)
    assert torch.equal(branch.token_camera, before)


def test_what_is_no_branch_is_refused(file: Path, tmp_path: Path) -> None:
    with pytest.raises(MissingFileError, match=r"absent\.safetensors"):
        read_branch(tmp_path / "absent.safetensors")
    with pytest.raises(WeightsError, match=r"is a folder without model\.safetensors.*latest\.safetensors"):
        read_branch(tmp_path)
    pickled = tmp_path / "step.pth"
    torch.save({}, pickled)
    with pytest.raises(WeightsError, match=r"read from \.safetensors alone"):
        read_branch(pickled)
    cut = tmp_path / "cut.safetensors"
    cut.write_bytes(file.read_bytes()[:-100])
    with pytest.raises(WeightsError, match="not a complete safetensors file"):
        read_branch(cut)
    save_file({"a": torch.zeros(1)}, cut, metadata={"architecture": "taehv"})
    with pytest.raises(WeightsError, match="'taehv', not 'fantasyworld'"):
        read_branch(cut)


@pytest.mark.parametrize("change", [{"spec": "{}"}, {"spec": "["}, {"stage": "stage3"}, {"meta": "1"}])
def test_a_broken_description_is_refused(file: Path, change: dict[str, str]) -> None:
    with safe_open(str(file), framework="pt") as content:
        metadata = content.metadata()
    save_file(load_file(file), file, metadata=metadata | change)
    with pytest.raises(WeightsError, match="description inside"):
        read_branch(file)


def test_incomplete_and_misshapen_files_are_refused(file: Path, tmp_path: Path) -> None:
    tensors, other = load_file(file), tmp_path / "other.safetensors"
    with safe_open(str(file), framework="pt") as content:
        metadata = content.metadata()
    less = {key: value for key, value in tensors.items() if not key.startswith("latent_bridge.up")}
    wrong = tensors | {"token_camera": torch.zeros(1, 1, 1, 48)}
    whole = tensors | {"token_camera": torch.zeros(1, 2, 1, 48, dtype=torch.int8)}
    for changed, message in (
        (less, r"2 tensors are missing \(latent_bridge\.up\.weight, latent_bridge\.up\.bias\)"),
        (wrong, "token_camera is 1×1×1×48 instead of 1×2×1×48"),
        (whole, r"not floating point \(token_camera \(torch.int8\)\)"),
    ):
        save_file(changed, other, metadata=metadata)
        with pytest.raises(WeightsError, match=message):
            read_branch(other)
        save_file(changed, other)  # without metadata the branch at hand is what it is compared with
        with pytest.raises(WeightsError, match=message):
            load_into(stirred("stage2", 7), *read_branch(other))


def test_numbers_that_are_not_finite_are_refused(file: Path) -> None:
    state, info = read_branch(file)
    state["token_camera"][0, 0, 0, 3] = torch.nan
    with pytest.raises(WeightsError, match=r"not finite \(token_camera\)"):
        load_into(stirred("stage1", 6), state, info)


def test_another_size_is_refused(file: Path) -> None:
    smaller = dataclasses.replace(branches.SPEC.branch, ffn=72)
    branch = GeometryBranch(WorldSpec(branches.SPEC.backbone, smaller), "stage1")
    with pytest.raises(WeightsError, match=r"branch\.ffn is 80, not 72"):
        load_into(branch, *read_branch(file))


def test_only_a_whole_branch_is_written(first: GeometryBranch, tmp_path: Path) -> None:
    state = first.state_dict()
    with pytest.raises(WeightsError, match="missing"):
        save_branch(state, tmp_path / "a.safetensors", branches.SPEC, "stage2", BASE, {})
    with pytest.raises(WeightsError, match=r"1 tensor is unexpected \(extra\)"):
        save_branch(state | {"extra": torch.zeros(1)}, tmp_path / "a.safetensors", branches.SPEC, "stage1", BASE, {})
    assert list(tmp_path.iterdir()) == []


def test_meta_may_hold_any_plain_value(first: GeometryBranch, tmp_path: Path) -> None:
    file = tmp_path / "a.safetensors"
    save_branch(first, file, branches.SPEC, "stage1", BASE, {"step": 3, "loss": float("nan"), "task": "fantasy_world"})
    meta = read_branch(file)[1].meta
    assert meta == {"step": 3, "loss": None, "task": "fantasy_world"}
    assert json.dumps(meta)


def test_the_guides_transformer_loads_a_file(first: GeometryBranch, file: Path) -> None:
    transformer = FantasyWorldTransformer(
        small_backbone(branches.SPEC.backbone), branches.SPEC.branch, base_digest=BASE
    )
    transformer.enable_fantasy_world_mode(split_layer=2, training_stage="stage2")
    fates = {row.fate for row in transformer.load_trained(file)}
    assert fates == {"loaded", "new"}
    assert torch.equal(transformer.token_camera, first.token_camera)


def stirred(stage: Stage, seed: int) -> GeometryBranch:
    branch = GeometryBranch(branches.SPEC, stage)
    branches.stir(branch, seed)
    return branch


def first_groups(branch: GeometryBranch) -> list[str]:
    return list(dict.fromkeys(name.split(".")[0] for name, _ in branch.named_parameters()))
