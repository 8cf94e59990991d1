"""Recipes are complete, frozen, and survive the way through JSON."""

import json
import subprocess
import sys
from dataclasses import FrozenInstanceError, replace

import pytest

from models.errors import ConfigError
from models.recipes import LATER, RECIPES, CropLaw, from_dict, resolve


@pytest.mark.parametrize("name", RECIPES)
def test_a_recipe_is_what_its_json_says(name):
    """Name and entry agree; a recipe read back from JSON is equal, and so is its digest."""
    recipe = resolve(name)
    assert recipe.name == name
    again = from_dict(json.loads(json.dumps(recipe.as_dict())))
    assert again == recipe
    assert again.digest == recipe.digest


def test_a_recipe_is_frozen_and_variants_have_another_digest():
    """A recipe cannot be changed, only replaced."""
    recipe = resolve("crops_thumbnail")
    with pytest.raises(FrozenInstanceError):
        recipe.epochs = 3
    assert replace(recipe, epochs=3).digest != recipe.digest


DIGESTS = {
    "crops_thumbnail": "665fce8b91343c4c9f4feded3542d984f55e92cbebd9fd89457b9673c967932a",
    "crops_thumbnail_narrow": "a768c82f2316ad843575aba39e44f6182db8d61dbe8d3e56efefa6e533ec7d36",
}


@pytest.mark.parametrize("name", DIGESTS)
def test_later_fields_left_the_recipes_what_they_were(name):
    """A run from before an option counts as one of the same recipe; a recipe that uses the option is another one."""
    recipe = resolve(name)
    assert recipe.digest == DIGESTS[name]
    assert LATER.keys().isdisjoint(recipe.as_dict()["pack"])
    padded = replace(recipe, pack=replace(recipe.pack, pad_beyond=2.0, picture="contours"))
    assert padded.digest != recipe.digest
    assert from_dict(json.loads(json.dumps(padded.as_dict()))) == padded


def test_an_unknown_name_lists_the_known_ones():
    """The message says what could have been asked for."""
    with pytest.raises(ValueError, match="crops_thumbnail, crops_thumbnail_narrow"):
        resolve("crops_thumbnial")


@pytest.mark.parametrize(
    ("path", "value", "words"),
    [
        (("epochs",), "many", "recipe.epochs"),
        (("optimiser", "name"), "adagrad", "'adam', 'adamw', 'sgd'"),
        (("optimiser", "lr"), True, "recipe.optimiser.lr"),
        (("optimiser", "speed"), 1, "no 'speed'"),
        (("model",), None, "recipe.model must be a mapping"),
        (("model", "widths"), [16], "one value per stage"),
        (("batch_size",), 1, "at least 2"),
        (("pack", "pad_beyond"), 0.5, "pack.pad_beyond must be at least 1"),
        (("pack", "picture"), "sketch", "'photo', 'no_background', 'contours'"),
        (("scale_matching", "max_intermediate_px"), 200, "nothing may be enlarged"),
    ],
)
def test_an_impossible_value_is_named(path, value, words):
    """The message names the key that is wrong."""
    values = resolve("crops_thumbnail_narrow").as_dict()
    place = values
    for key in path[:-1]:
        place = place[key]
    place[path[-1]] = value
    with pytest.raises(ConfigError, match=words):
        from_dict(values)


def test_a_missing_value_is_named():
    """A recipe is complete: nothing is filled in silently."""
    values = resolve("crops_thumbnail").as_dict()
    del values["loss"]["crop_weight"]
    with pytest.raises(ConfigError, match=r"recipe\.loss lacks 'crop_weight'"):
        from_dict(values)


def test_a_crop_law_must_crop():
    """A law that enlarges is refused."""
    with pytest.raises(ConfigError, match="max_size_factor < 1"):
        replace(resolve("crops_thumbnail"), crop_law=CropLaw(0.5, 0.5, 1.2))


def test_recipes_and_fit_import_no_torch():
    """A flow may read recipes, and a bad request is refused, without loading torch."""
    code = "import sys, models.recipes, models.fit; sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
