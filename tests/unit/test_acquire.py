"""What a refresh asks for, cut into task runs."""

import pytest

from flows.acquire import batch_photos


@pytest.mark.parametrize(
    ("photos", "batch"), [(1, 128), (128, 128), (700, 175), (2000, 500), (5000, 512), (100_000, 512), (700_000, 3500)]
)
def test_batches_keep_every_worker_busy_and_are_few(photos: int, batch: int) -> None:
    """As few task runs as give each worker one; no tiny ones, none so large that progress is not seen, 200 at most."""
    assert batch_photos(photos) == batch
