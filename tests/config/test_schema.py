"""The schema itself: unique names, descriptions, strictness, and how a second family joins."""

from pathlib import Path
from typing import Literal

import pytest
from pydantic import Field, ValidationError

from tinyworld.config.keys import keys, sections
from tinyworld.config.schema import FAMILIES, Recipe, TaehvDataConfig, TaehvModelConfig, TaehvRecipe
from tinyworld.config.sections import OptimizerConfig, RunConfig, Section, TrainingConfig, ValidationConfig
from tinyworld.core.errors import ConfigError
from tinyworld.core.variants import VARIANTS


def minimal(**data: object) -> TaehvRecipe:
    values = {"data_root": "rooms", "height": 64, "width": 64, "n_frames": 12, **data}
    return TaehvRecipe(
        name="test", data=TaehvDataConfig.model_validate(values), training=TrainingConfig(max_train_steps=10)
    )


@pytest.mark.parametrize("family", FAMILIES.values())
def test_leaf_names_are_unique_over_all_sections(family: type[Recipe]) -> None:
    leaves = [key.leaf for key in keys(family)]
    assert len(leaves) == len(set(leaves))
    assert not set(leaves) & set(sections(family))


@pytest.mark.parametrize("family", FAMILIES.values())
def test_every_key_says_what_it_means_and_expects(family: type[Recipe]) -> None:
    for key in keys(family):
        assert key.field.description and key.field.description.endswith("."), key.dotted
        assert key.expects and key.metavar, key.dotted
    assert all(section.__doc__ for section in sections(family).values())


def test_paths_are_marked_so_that_they_can_be_found() -> None:
    marked = {key.dotted for key in keys(TaehvRecipe) if "path" in key.extra}
    assert marked == {
        "data.data_root",
        "data.annotation_file",
        "data.held_out_root",
        "model.pretrained_model_path",
        "teacher.ref_vae_path",
        "validation.lpips_backbone",
    }


def test_values_are_strict_and_frozen() -> None:
    for section, values in (
        (RunConfig, {"seed": True}),
        (RunConfig, {"seed": "3"}),
        (RunConfig, {"unknown": 1}),
        (OptimizerConfig, {"learning_rate": float("inf")}),
        (OptimizerConfig, {"learning_rate": "1e-4"}),
        (TaehvModelConfig, {"decoder_widths": [64, 64, 64]}),
        (TaehvModelConfig, {"encoder_width": 100_000}),
    ):
        with pytest.raises(ValidationError):
            section.model_validate(values)
    with pytest.raises(ValidationError):
        minimal().run.seed = 3  # type: ignore[misc]


def test_equality_is_about_values_only(tmp_path: Path) -> None:
    one, two = minimal(), minimal()
    two._source_folder = tmp_path
    assert one == two and hash(one) == hash(two)
    assert one != minimal(height=128)


def test_the_spec_is_the_variant_with_the_widths_given() -> None:
    assert TaehvModelConfig(variant="taeltx_2").spec(distils=False) == VARIANTS["taeltx_2"]
    narrow = TaehvModelConfig(variant="taecvx", encoder_width=32, decoder_widths=(64, 32, 16, 16))
    spec = narrow.spec(distils=False)
    assert (spec.encoder_width, spec.decoder_widths, spec.flavour) == (32, (64, 32, 16, 16), "plain")
    assert narrow.spec(distils=True).flavour == "cogvideox"  # the law of the latents that it learns
    with pytest.raises(ConfigError, match="taecvx"):
        TaehvModelConfig(variant="taecvv").spec(distils=True)


def test_another_family_shares_the_sections() -> None:
    class Depth(Section):
        """made up"""

        depth: int = Field(default=3, description="Blocks.")

    class OtherRecipe(Recipe):
        task: Literal["other"] = Field(default="other", description="Family.")
        data: Depth = Depth()
        model: Depth = Depth()
        loss: Depth = Depth()
        validation: ValidationConfig = ValidationConfig(metric_for_best_model="error")

    recipe = OtherRecipe.model_validate({"name": "x", "training": {"max_train_steps": 5}, "model": {"depth": 7}})
    own = {"teacher", "seraena"}
    assert list(sections(OtherRecipe)) == [name for name in sections(TaehvRecipe) if name not in own]
    assert recipe.model.depth == 7 and recipe.optimizer == OptimizerConfig()
