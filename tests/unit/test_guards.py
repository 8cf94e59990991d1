"""What is called a spike, when a run stops early, and what a reading is."""

import pytest
import torch

from models.checkpoint import Progress
from models.errors import ConstantOutputs, TrainingDiverged
from models.guards import LEAST, WINDOW, Reading, admits, reason_to_stop, refuse_constant_outputs
from models.specs import EarlyStopping, GuardSpec

SPIKES = GuardSpec(spike_factor=3.0)


def after(losses: list[float]) -> Progress:
    """A run that has met these losses."""
    progress = Progress()
    for loss in losses:
        admits(loss, 0.1, progress, SPIKES)
        progress.step += 1
    return progress


def test_a_spike_is_a_multiple_of_the_running_median() -> None:
    """Beyond the factor, not at it; a spike does not become usual, and the next good loss ends the row."""
    progress = after([1.0] * LEAST)
    assert admits(3.0, 0.1, progress, SPIKES)
    assert not admits(3.01, 0.1, progress, SPIKES)
    assert (progress.skipped_steps, progress.skipped_in_row) == (1, 1)
    assert 3.01 not in progress.recent_losses
    assert admits(1.0, 0.1, progress, SPIKES)
    assert (progress.skipped_steps, progress.skipped_in_row) == (1, 0)


def test_the_first_losses_are_no_spikes() -> None:
    """A run may leap while it knows nothing of what is usual."""
    progress = after([1.0] * (LEAST - 1))
    assert admits(1000.0, 0.1, progress, SPIKES)


def test_only_the_last_64_losses_count() -> None:
    """The median follows a loss that falls."""
    progress = after([100.0] * 10 + [1.0] * WINDOW)
    assert progress.recent_losses == [1.0] * WINDOW
    assert not admits(50.0, 0.1, progress, SPIKES)


def test_the_fifth_spike_in_a_row_ends_the_run() -> None:
    """Four are passed over; an error that names step, loss, rate and what is usual follows."""
    progress = after([1.0] * LEAST + [9.0] * 4)
    with pytest.raises(TrainingDiverged, match="where 1 is usual") as caught:
        admits(9.0, 0.1, progress, SPIKES)
    assert caught.value.fields == {"step": LEAST + 4, "loss": "9.0", "lr": 0.1, "usual": 1.0}


def test_without_a_factor_nothing_is_skipped_or_remembered() -> None:
    """Only a loss that is no number is refused."""
    progress = Progress()
    assert all(admits(loss, 0.1, progress, GuardSpec()) for loss in [1.0] * 70 + [1e9])
    assert progress.recent_losses == []
    with pytest.raises(TrainingDiverged, match="nan at step 0"):
        admits(float("nan"), 0.1, progress, GuardSpec())


def test_a_loss_around_zero_knows_no_spikes_of_sign() -> None:
    """Losses that may be negative have no multiples to speak of: nothing is skipped."""
    progress = after([-1.0] * LEAST)
    assert admits(-0.5, 0.1, progress, SPIKES)


def test_constant_outputs_are_allowed_for_the_first_epochs() -> None:
    """The limit is 1e-4; no number is no spread either."""
    figures, guards = {"output_std_a": 1.0, "output_std_b": 9e-5, "val_loss": 0.0}, GuardSpec(2)
    refuse_constant_outputs(figures, 2, guards)
    with pytest.raises(ConstantOutputs, match="output 'b'"):
        refuse_constant_outputs(figures, 3, guards)
    with pytest.raises(ConstantOutputs):
        refuse_constant_outputs({"output_std_a": float("nan")}, 3, guards)
    refuse_constant_outputs({"output_std_a": 1e-4}, 3, guards)


def test_patience_counts_epochs_without_progress() -> None:
    """Progress is a fall by more than the least difference from the best so far, not from the epoch before."""
    spec = EarlyStopping(patience_epochs=2, min_delta=0.1)
    assert reason_to_stop([], spec) is None
    assert reason_to_stop([1.0, 0.95], spec) is None
    assert reason_to_stop([1.0, 0.95, 0.85, 0.8], spec) is None, "0.85 was progress"
    reason = reason_to_stop([1.0, 0.95, 0.85, 0.8, 0.76], spec)
    assert reason == "val_loss has not fallen by 0.1 for 2 epochs since epoch 3 (0.85)"
    assert reason_to_stop([1.0, 1.0, 1.0, 1.0], None) is None


def test_a_reading_is_the_number() -> None:
    """On the CPU it is there at once."""
    assert Reading(torch.tensor(0.25)).get() == 0.25
