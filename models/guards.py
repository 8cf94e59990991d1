"""What ends a run that no longer learns, or passes over a batch that would ruin it. All decide by values, not by time.

A decision needs the loss on the host. So that a GPU never waits for it, a loss is sent off as soon as its forward pass
is queued (``Reading``) and read when the backward pass is queued behind it: the host waits while the device is busy
with gradients, and still decides before the weights change. Nothing is a step late, so a resumed run decides alike.
What a skipped batch does leave behind are its statistics in batch normalisation, a tenth of them, as every batch does.
"""

import math
from collections.abc import Mapping, Sequence
from statistics import median

import torch
from torch import Tensor

from models.checkpoint import Progress
from models.errors import ConstantOutputs, TrainingDiverged
from models.specs import EarlyStopping, GuardSpec

WINDOW = 64  # losses that the running median is of
LEAST = 16  # losses before which nothing is called a spike: a run's first steps may leap
MAX_SKIPPED = 5  # in a row
CONSTANT_STD = 1e-4  # of fractions and logits alike; seed 000's network had about 1e-6
SPREAD = "output_std_"  # prefix of the figures that ``refuse_constant_outputs`` looks at


class Reading:
    """A number on its way from the device; ``get`` waits for it alone, not for what was queued after it."""

    def __init__(self, value: Tensor) -> None:
        self.host, self.arrived = value, None
        if value.is_cuda:
            self.host = torch.empty_like(value, device="cpu", pin_memory=True)
            self.host.copy_(value, non_blocking=True)
            self.arrived = torch.cuda.Event()
            self.arrived.record(torch.cuda.current_stream(value.device))

    def get(self) -> float:
        """The number."""
        if self.arrived is not None:
            self.arrived.synchronize()
        return float(self.host)


def refuse_divergence(loss: float, step: int, lr: float) -> None:
    """Raise ``TrainingDiverged`` if the loss is no number any more."""
    if not math.isfinite(loss):
        message = f"the loss became {loss} at step {step} (learning rate {lr:.2g}): lower the learning rate"
        raise TrainingDiverged(message, step=step, loss=str(loss), lr=lr)


def admits(loss: float, lr: float, progress: Progress, spec: GuardSpec) -> bool:
    """Whether the step of a batch with that loss may be taken; ``progress`` notes the loss, or the spike.

    Raises ``TrainingDiverged`` for a loss that is no number, and at the fifth spike in a row.
    """
    refuse_divergence(loss, progress.step, lr)
    if spec.spike_factor is None:
        return True
    recent = progress.recent_losses
    usual = median(recent) if len(recent) >= LEAST else 0.0  # a loss that may be negative has no multiples
    if usual <= 0 or loss <= spec.spike_factor * usual:
        recent.append(loss)
        del recent[:-WINDOW]
        progress.skipped_in_row = 0
        return True
    progress.skipped_steps += 1
    progress.skipped_in_row += 1
    if progress.skipped_in_row == MAX_SKIPPED:
        message = (
            f"the loss leapt {MAX_SKIPPED} times in a row, to {loss:.3g} where {usual:.3g} is usual, at step"
            f" {progress.step} (learning rate {lr:.2g}): lower it, or set optimiser.max_gradient_norm"
        )
        raise TrainingDiverged(message, step=progress.step, loss=str(loss), lr=lr, usual=usual)
    return False


def refuse_constant_outputs(figures: Mapping[str, float], epoch: int, spec: GuardSpec) -> None:
    """Raise ``ConstantOutputs`` if an output no longer tells the val photos apart (``epoch``: the first is 1)."""
    if epoch <= spec.constant_outputs_after_epoch:
        return
    for name, std in figures.items():
        if name.startswith(SPREAD) and not std >= CONSTANT_STD:
            output = name.removeprefix(SPREAD)
            message = (
                f"after epoch {epoch} the network's output {output!r} is the same for every photo (standard deviation"
                f" {std:.1e}): lower the learning rate, or look at the packed frames"
            )
            raise ConstantOutputs(message, epoch=epoch, output=output, output_std=std)


def reason_to_stop(val_losses: Sequence[float], spec: EarlyStopping | None) -> str | None:
    """Why there is no point in another epoch, or None: a function of the losses of the epochs so far.

    Source: Prechelt, "Early Stopping - But When?" (1998), criterion UP, with a least difference.
    """
    if spec is None or not val_losses:
        return None
    best, best_epoch = val_losses[0], 1
    for epoch, loss in enumerate(val_losses, 1):
        if loss < best - spec.min_delta:
            best, best_epoch = loss, epoch
    if (waited := len(val_losses) - best_epoch) < spec.patience_epochs:
        return None
    by = f" by {spec.min_delta:g}" if spec.min_delta else ""
    return f"val_loss has not fallen{by} for {waited} epochs since epoch {best_epoch} ({best:.4g})"
