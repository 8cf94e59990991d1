"""The search for near bit strings is exact, however many there are and however they lie."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tasks.duplicates import candidates
from tasks.duplicates.candidates import near_pairs

Pairs = set[tuple[int, int, int]]


def compared(left: np.ndarray, right: np.ndarray, most: int) -> Pairs:
    """All pairs, each compared."""
    distance = np.bitwise_count(left[:, None] ^ right[None]).sum(axis=2, dtype=int)
    return {(int(i), int(j), int(distance[i, j])) for i, j in np.argwhere(distance <= most)}


def searched(left: np.ndarray, right: np.ndarray, most: int) -> Pairs:
    """What the search finds; no pair comes twice."""
    batches = near_pairs(left, right, most)
    found = [tuple(map(int, pair)) for batch in batches for pair in zip(*batch, strict=True)]
    assert len(found) == len(set(found))
    return {(first, second, bits) for first, second, bits in found}


def changed(rng: np.random.Generator, words: np.ndarray, most: int) -> np.ndarray:
    """``words`` with up to ``most`` bits of each flipped."""
    ranks = rng.random((len(words), 64 * words.shape[1])).argsort(axis=1)
    flips = ranks < rng.integers(0, most + 1, (len(words), 1))
    return words ^ np.packbits(flips, axis=1).view(np.uint64)


@given(
    st.integers(0, 2**32), st.sampled_from([1, 2, 4]), st.sampled_from([None, 1, 4, 9, 16]), st.booleans(),
    st.sampled_from(["random", "clustered", "equal"]), st.integers(0, 31),
)  # fmt: skip
@settings(max_examples=40, deadline=None)
def test_the_search_finds_what_comparing_all_finds(
    seed: int, words: int, bits: int | None, is_listed: bool, kind: str, most: int
) -> None:
    """Whatever the number of bits that are looked at, and whether pairs are listed: so the size of the set enters."""
    rng, most = np.random.default_rng(seed), min(most, 8 * words - 1)
    centres = {"random": 150, "clustered": 5, "equal": 1}[kind]
    middle = rng.integers(0, 2**64, (centres, words), dtype=np.uint64)[rng.integers(0, centres, 150)]
    left = middle if kind == "equal" else changed(rng, middle, most)
    right = changed(rng, middle[rng.permutation(150)], most + 2)
    with pytest.MonkeyPatch.context() as patched:
        if bits is not None:
            patched.setattr(candidates, "key_bits", lambda left, right, reach: (bits, is_listed))
        patched.setattr(candidates, "_CELLS", 1 << 9)  # several blocks
        assert searched(left, right, most) == compared(left, right, most)


def test_more_strings_are_looked_up_by_more_bits() -> None:
    """A small set is compared nearly whole, a larger one pair by pair, a huge one by whole bands."""
    assert candidates.key_bits(10, 10, 1)[0] < 10
    assert candidates.key_bits(100_000, 100_000, 1) == (16, True)
    assert candidates.key_bits(10**7, 10**7, 1) == (16, False)


def test_nothing_is_near_nothing() -> None:
    """An empty side gives no pair."""
    some = np.zeros((3, 1), np.uint64)
    assert not searched(some, some[:0], 7)
    assert not searched(some[:0], some, 7)


def test_a_distance_that_the_bands_do_not_cover_is_refused() -> None:
    """64 bits in four bands are exact up to 7 bits."""
    with pytest.raises(ValueError, match="up to 7 bits, not 8"):
        list(near_pairs(np.zeros((1, 1), np.uint64), np.zeros((1, 1), np.uint64), 8))
