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


def changed(name, path, value):
    """The recipe of that name with another value at ``path``."""
    values = resolve(name).as_dict()
    place = values
    for key in path[:-1]:
        place = place[key]
    place[path[-1]] = value
    return from_dict(values)


@pytest.mark.parametrize(
    ("path", "value", "words"),
    [
        (("epochs",), "many", r"recipe\.epochs cannot be 'many': expected a whole number$"),
        (("optimiser", "lr"), "fast", r"recipe\.optimiser\.lr cannot be 'fast': expected a number$"),
        (("optimiser", "max_gradient_norm"), "5", "expected a number, or null$"),
        (("compile",), 1, "expected true or false$"),
        (("name",), 3, "expected text$"),
        (("system", "flips"), "both", r"system\.flips cannot be 'both': expected a list$"),
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
        (("pack", "pad_beyond"), 2.0, "pack.pad_beyond must be null: a margin that is white all round tells"),
        (("pack", "picture"), "sketch", "'photo', 'no_background', 'contours'"),
        (("pack", "detail_width"), 640, "must both be set, or both be null"),
        (("system", "thumbnail", "scale", "max_px"), 200, "nothing may be enlarged"),
    ],
)
def test_an_impossible_value_is_named(path, value, words):
    """The message names the key that is wrong."""
    with pytest.raises(ConfigError, match=words):
        changed("crops_thumbnail_narrow", path, value)


@pytest.mark.parametrize(
    ("key", "values", "words"),
    [
        ("optimiser.weight_decay", [-1e-9], "optimiser.weight_decay must be at least 0"),
        ("optimiser.momentum", [-0.1, 1.0], r"optimiser.momentum must lie in \[0, 1\)"),
        ("optimiser.max_gradient_norm", [0.0, -5.0], "optimiser.max_gradient_norm must be positive, or null"),
        ("optimiser.lr", [0.0, -1.0], "optimiser.lr must be positive"),
        ("optimiser.lr", [float("inf"), float("nan")], "optimiser.lr must be a finite number"),
        ("optimiser.lr", [10**400, -(10**400)], "optimiser.lr must be a finite number"),
        ("epochs", [2**63], "epochs must be a finite number"),
        ("seeds", [[0, 2**64]], "seeds.1 must be a finite number"),
        ("optimiser.rate_factors", [[["patches", float("-inf")]]], "optimiser.rate_factors.0.1 must be a finite"),
        ("optimiser.rate_factors", [[["patches", -1.0]]], "optimiser.rate_factors must be at least 0"),
        ("schedule.decay", [0.0, -1.0, 1.01], r"schedule.decay must lie in \(0, 1\]"),
        ("early_stopping", [{"patience_epochs": 0, "min_delta": 0.0}], "early_stopping.patience_epochs must be"),
        ("early_stopping", [{"patience_epochs": 1, "min_delta": -0.1}], "early_stopping.min_delta must be"),
        ("guards.spike_factor", [0.0, 1.0], "guards.spike_factor must be above 1, or null"),
        ("guards.constant_outputs_after_epoch", [-1], "guards.constant_outputs_after_epoch must be"),
        ("frozen", [[{"prefix": "head", "until_epoch": 0}]], "frozen.until_epoch must be at least 1, or null"),
        ("seeds", [[], [0, -1]], "seeds must name at least one"),
        ("pack.frame_height", [0, -3], "pack.frame_height and pack.frame_width must be at least 8 px"),
        ("pack.detail_height", [0], "pack.detail_height and pack.detail_width must be at least 8 px, or null"),
        ("pack.pad_beyond", [0.0], "pack.pad_beyond must be at least 1"),
        ("system.evaluation.bootstrap_replicates", [0, 1], "system.evaluation.bootstrap_replicates must be"),
        ("system.evaluation.response_photos", [0, -1], "system.evaluation.response_photos must be"),
        ("system.patches.scale.max_noise_std", [-1.0, 1.5], "system.patches.scale.max_noise_std must lie"),
        ("system.patches.jitter_px", [-1], "system.patches.jitter_px must be at least 0"),
        ("system.patches.patch_px", [0, 7], "system.patches.patch_px must be at least 8"),
        ("system.thumbnail.height", [0, 7], "system.thumbnail.height and width must be at least 8 px"),
        ("system.thumbnail.width", [0, 7], "system.thumbnail.height and width must be at least 8 px"),
        ("system.thumbnail.trunk.widths", [[0, 32, 64, 128]], "depths, widths and an embedding of at least 1"),
        ("system.patches.trunk.depths", [[1, 1, 0, 1]], "depths, widths and an embedding of at least 1"),
        ("system.patches.trunk.embedding", [0], "depths, widths and an embedding of at least 1"),
        ("system.brightness", [-0.1, 1.1], r"system.brightness must lie in \[0, 1\]"),
        ("system.kernels", [["triangle", "area"]], "system.kernels must be of triangle, gaussian under 'matched'"),
        ("system.hidden", [[256, 0]], "system.hidden must be widths of at least 1"),
        ("system.loss.rectangle_weight", [-3.0], "system.loss must have weights of at least 0"),
        ("system.loss.location_weight", [-0.1], "system.loss must have weights of at least 0"),
    ],
)
def test_a_number_that_no_run_could_use_is_named(key, values, words):
    """Out of range, infinite or no number: each is refused by its own sentence."""
    for value in values:
        with pytest.raises(ConfigError, match=words):
            changed("crops_joint_narrow", key.split("."), value)


@pytest.mark.parametrize("key", ["brightness", "contrast", "saturation", "hue", "turn_deg", "kernels", "width"])
def test_an_impossible_augmentation_is_named(key):
    """Neither do factors below 0, no kernel at all or a network without width get through."""
    path = ("system", "width") if key == "width" else ("system", "augment", key)
    with pytest.raises(ConfigError, match=f"{'.'.join(path)} must"):
        changed("categories_narrow", path, [] if key == "kernels" else -0.1)


def test_a_loss_weighs_something_that_its_network_tells():
    """Weights of nothing but places of patches are none where there are no patches."""
    nothing = {"rectangle_weight": 0.0, "crop_weight": 0.0, "location_weight": 1.0}
    assert changed("crops_patches_narrow", ("system", "loss"), nothing)
    with pytest.raises(ConfigError, match="must have a weight above 0"):
        changed("crops_thumbnail_narrow", ("system", "loss"), nothing)


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
