"""From labels to the numbers of classes and back: the classes are the distinct labels of train, in order."""

from collections import Counter
from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from models.errors import ConfigError
from models.loader import Split

NAMED = 5  # labels that a message names


def classes_of(train: Split) -> tuple[str, ...]:
    """The classes that can be learnt: the distinct labels of train, sorted.

    Raises ``ConfigError`` if photos bear no label, or all the same one.
    """
    labels = _complete(train.labels, train.name)
    classes = tuple(sorted(set(labels)))
    if len(classes) < 2:
        message = (
            f"train has no label but {classes[0]!r}: there is nothing to tell apart" if classes else "train is empty"
        )
        raise ConfigError(f"{message}; label photos of at least two classes", classes=list(classes))
    return classes


def describe_classes(train: Split) -> dict[str, Any]:
    """For ``train.json``: the classes, how many photos of train each has, and those that have a single one."""
    photos = Counter(_complete(train.labels, train.name))
    return {
        "classes": sorted(photos),
        "photos_of_class": {each: photos[each] for each in sorted(photos)},
        "classes_with_one_photo": sorted(each for each, count in photos.items() if count == 1),
    }


def class_numbers(labels: Sequence[str | None], classes: Sequence[str], split: str) -> NDArray[np.int64]:
    """The number of each photo's class [N]; ``ConfigError`` names labels that train lacks, or counts missing ones."""
    complete = _complete(labels, split)
    number = {each: position for position, each in enumerate(classes)}
    if unknown := Counter(each for each in complete if each not in number):
        message = (
            f"{split} has labels that train lacks: {_some(unknown)}:"
            " put photos of them into train, or take them out of the labels"
        )
        raise ConfigError(message, split=split, labels=sorted(unknown))
    return np.array([number[each] for each in complete], np.int64)


def _complete(labels: Sequence[str | None], split: str) -> list[str]:
    """The labels, if there is one for each photo; else ``ConfigError`` says how many are missing."""
    found = [each for each in labels if each is not None]
    if missing := len(labels) - len(found):
        message = (
            f"{missing} of {len(labels)} photos of {split} have no label: label them, or leave them out of the dataset"
        )
        raise ConfigError(message, split=split, photos=missing)
    return found


def _some(labels: Counter[str]) -> str:
    """The first of them with their counts of photos, and how many labels more."""
    named = ", ".join(f"{each!r} ({count} photos)" for each, count in sorted(labels.items())[:NAMED])
    return named + (f" and {len(labels) - NAMED} more" if len(labels) > NAMED else "")
