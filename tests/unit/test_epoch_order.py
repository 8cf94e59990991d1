"""The order in which an epoch brings its photos tells nothing of what is drawn for them."""

import numpy as np
import pytest

from models.augment import plan_augmentation
from models.categories.spec import AugmentSpec
from models.crops.samples import plan_samples
from models.loop import epoch_batches
from models.randomness import photo_keys
from models.recipes import crops_joint_narrow

PHOTOS, EPOCHS = 400, 5


def _crops(keys: np.ndarray, epoch: int) -> np.ndarray:
    plan = plan_samples(keys, 0, epoch, crops_joint_narrow().system)
    parts = (plan.is_crop_N, plan.rectangle_N4, plan.width_px_N2[:, :1], plan.is_mirrored_N2)
    return np.column_stack(parts).astype(float)


def _augmented(keys: np.ndarray, epoch: int) -> np.ndarray:
    plan = plan_augmentation(keys, 0, epoch, AugmentSpec(turn_deg=10.0))
    return np.column_stack((plan.rectangle_B4, plan.is_mirrored_B2[:, :1], plan.turn_B)).astype(float)


@pytest.mark.parametrize("drawn", [_crops, _augmented])
def test_the_order_of_an_epoch_tells_nothing_of_its_samples(drawn) -> None:
    """Crops and whole photos, large and small parts, come mixed: every batch is like every other."""
    keys = photo_keys(str(n) for n in range(PHOTOS))
    places, values = [], []
    for epoch in range(EPOCHS):
        order = np.concatenate(epoch_batches(keys, 0, epoch, 8))
        places.append(np.argsort(order))
        values.append(drawn(keys, epoch))
    place_1N, value_XN = np.concatenate(places)[None], np.concatenate(values).T
    assert np.abs(np.corrcoef(np.concatenate([place_1N, value_XN]))[0, 1:]).max() < 4 / np.sqrt(PHOTOS * EPOCHS)
