"""Recipes are complete, frozen, and survive the way through JSON."""

import json
import subprocess
import sys
from dataclasses import FrozenInstanceError, replace

import pytest

from models.crops.spec import CropLaw
from models.errors import ConfigError
from models.recipes import RECIPES, from_dict, resolve


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


def test_an_unknown_name_lists_the_known_ones():
    """The message says what could have been asked for."""
    with pytest.raises(ValueError, match="crops_thumbnail, crops_thumbnail_narrow"):
        resolve("crops_thumbnial")


@pytest.mark.parametrize(
    ("path", "value", "words"),
    [
        (("epochs",), "many", "recipe.epochs"),
        (("optimiser", "name"), "adagrad", "'sgd', 'adam', 'adamw', 'rmsprop'"),
        (("optimiser", "lr"), True, "recipe.optimiser.lr"),
        (("optimiser", "speed"), 1, "no 'speed'"),
        (("optimiser", "rate_factors"), [["head"]], r"rate_factors\[0\] must have 2 items"),
        (("system",), None, "recipe.system.kind cannot be None"),
        (("system", "kind"), "dogs", "recipe.system.kind cannot be 'dogs': choose one of crops, categories"),
        (("system", "thumbnail", "trunk", "widths"), [16], "a depth and a width for each stage"),
        (("system", "flips"), ["diagonal"], "'horizontal', 'vertical'"),
        (("batch_size",), 1, "at least 2"),
        (("accumulate",), 17, "batch_size / accumulate must be at least 2"),
        (("ema_decay",), 1.0, r"ema_decay must lie in \(0, 1\), or be null"),
        (("pack", "pad_beyond"), 0.5, "pack.pad_beyond must be at least 1"),
        (("pack", "picture"), "sketch", "'photo', 'no_background', 'contours'"),
        (("pack", "detail_width"), 640, "must both be set, or both be null"),
        (("system", "thumbnail", "scale", "max_px"), 200, "nothing may be enlarged"),
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
    del values["system"]["loss"]["crop_weight"]
    with pytest.raises(ConfigError, match=r"recipe\.system\.loss lacks 'crop_weight'"):
        from_dict(values)


def test_a_crop_law_must_crop():
    """A law that enlarges is refused."""
    with pytest.raises(ConfigError, match="max_size_factor < 1"):
        recipe = resolve("crops_thumbnail")
        replace(recipe, system=replace(recipe.system, crop_law=CropLaw(0.5, 0.5, 1.2)))


def test_patches_want_large_frames():
    """A recipe with patches and no detail frames is refused."""
    recipe = resolve("crops_joint")
    with pytest.raises(ConfigError, match="patches are cut from the large frames"):
        replace(recipe, pack=resolve("crops_thumbnail").pack)


def test_recipes_and_fit_import_no_torch():
    """A flow may read recipes, and a bad request is refused, without loading torch."""
    code = "import sys, models.recipes, models.fit; sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
