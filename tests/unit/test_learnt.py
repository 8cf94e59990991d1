"""What weights have learnt stays with them, and no run is judged by it."""

from pathlib import Path

import numpy as np
import pytest

from models.errors import ConfigError
from models.learnt import LEARNT, Learnt, file_beside, learnt_by, learnt_together, refuse_learnt
from models.loader import Split
from models.randomness import photo_keys


def keys_of(*photos: str) -> "np.ndarray[tuple[int], np.dtype[np.uint64]]":
    return photo_keys(f"flickr/{photo}" for photo in photos)


def split_of(name: str, *photos: str) -> Split:
    frames = np.zeros((len(photos), 0, 0, 3), np.uint8)
    return Split(name, frames, None, ["flickr"] * len(photos), list(photos), [None] * len(photos))


@pytest.fixture
def weights(tmp_path: Path) -> Path:
    """Where the weights of a run would lie."""
    folder = tmp_path / "run" / "checkpoint" / "epoch-0001-step-0000003"
    folder.mkdir(parents=True)
    return folder / "weights.safetensors"


def test_what_was_learnt_is_read_as_it_was_written(weights: Path) -> None:
    """Keys and whether they are all, found from the file of weights; nothing written is nothing known."""
    assert learnt_by(weights) is None
    for are_all in (True, False):
        learnt = learnt_together(keys_of("b", "a", "a"), [] if are_all else [None])
        file_beside(weights).write_bytes(learnt.as_bytes())
        found = learnt_by(weights)
        assert found is not None
        assert found.are_all == are_all
        assert found.keys_N.tolist() == sorted(keys_of("a", "b").tolist())


def test_a_start_hands_on_what_it_learnt() -> None:
    """Also what its own starts had learnt; one that says nothing of itself makes the account incomplete for good."""
    first = learnt_together(keys_of("a"), [])
    second = learnt_together(keys_of("b"), [first])
    assert second.keys_N.tolist() == sorted(keys_of("a", "b").tolist())
    assert second.are_all
    third = learnt_together(keys_of("c"), [second, None])
    assert len(third.keys_N) == 3
    assert not third.are_all
    assert not learnt_together(keys_of("d"), [third]).are_all


def test_what_was_learnt_names_no_photo(weights: Path) -> None:
    """The file holds hashes alone, so a removed photo need not be removed from it."""
    assert b"12345678901" not in learnt_together(photo_keys(["flickr/12345678901"]), []).as_bytes()


def test_a_photo_keeps_its_key() -> None:
    """With other keys nobody would find again what runs have learnt before."""
    assert photo_keys(["flickr/12345678901"]).tolist() == [5075690598416043024]


@pytest.mark.parametrize("split", ["val", "test"])
def test_photos_that_a_start_learnt_judge_no_run(split: str) -> None:
    """They are counted, one of them is named, and so is the start; those of train may be learnt again."""
    starts = {Path("runs/x"): learnt_together(keys_of("a", "b"), []), Path("given.pth"): None}
    refuse_learnt(starts, [split_of("val", "c"), split_of("test", "d")])
    with pytest.raises(ConfigError, match=rf"^1 of 3 photos of {split}, such as flickr/b, were learnt by runs/x"):
        refuse_learnt(starts, [split_of(split, "e", "b", "f")])


@pytest.mark.parametrize("content", [b"", b"abc", Learnt(keys_of("a"), True).as_bytes()[:-9]])
def test_a_damaged_account_is_refused(weights: Path, content: bytes) -> None:
    """It is not taken for nothing known."""
    file_beside(weights).write_bytes(content)
    with pytest.raises(ConfigError, match=rf"{LEARNT} cannot be read .*train that run again"):
        learnt_by(weights)
