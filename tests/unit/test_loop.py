"""The training loop, on a system of its own: order, exact resume, accumulation, freezing, guards, early stopping."""

from collections.abc import Callable
from functools import partial
from typing import Any

import numpy as np
import pytest
import torch
from torch import nn

from models.averaging import Averaged
from models.checkpoint import TrainingState, read_index
from models.errors import ConfigError, ConstantOutputs, Stopped, TrainingDiverged
from models.loop import epoch_batches, split_batch, step_seed, validate
from models.optimisers import make_optimiser
from models.predictions import predict
from models.specs import EarlyStopping, Freeze, GuardSpec, OptimiserSpec, ScheduleSpec

Tiny = Callable[..., Any]
EVERYTHING = {
    "optimiser": OptimiserSpec("adamw", 3e-3, weight_decay=0.05, max_gradient_norm=1.0, rate_factors=(("trunk", 0.3),)),
    "schedule": ScheduleSpec("one_cycle", warmup_fraction=0.3),
    "batch_size": 4,
    "accumulate": 2,
    "ema_decay": 0.9,
    "frozen": (Freeze("trunk", until_epoch=2), Freeze("head.bias")),
    "guards": GuardSpec(spike_factor=20.0),
}


SIZES = {(20, 8): [7, 7, 6], (9, 8): [5, 4], (8, 8): [8], (3, 2): [3], (1, 8): [1]}  # by photos and batch_size


def spoilt_from(epoch: int, photos: int, factor: float) -> Callable[[int, np.ndarray], np.ndarray]:
    """From that epoch on (the first is 0), the losses of the first ``photos`` keys that come along are multiplied."""

    def loss_factor(now: int, keys: np.ndarray) -> np.ndarray:
        return np.where((now >= epoch) & (keys % 22 < photos), factor, 1.0)

    return loss_factor


def everything_in(run: Any) -> dict[str, torch.Tensor]:
    """Weights, averages and the optimiser's state, as the run's last checkpoint has them."""
    recipe, model = run.system.recipe, run.system.build()
    average = Averaged(model, recipe.ema_decay) if recipe.ema_decay else None
    return run.tensors(TrainingState(model, make_optimiser(model, recipe.optimiser), average))


def assert_same(one: Any, other: Any) -> None:
    """Both runs ended with the very same bits."""
    tensors, others = everything_in(one), everything_in(other)
    assert tensors.keys() == others.keys()
    assert [name for name in tensors if not torch.equal(tensors[name], others[name])] == []


def test_a_run_that_is_stopped_after_every_step_ends_bit_identical(tiny: Tiny) -> None:
    """Batch norm, dropout, averages, one-cycle, accumulation, thawing, clipping, the spike guard: all go on exactly."""
    system = {"changes": EVERYTHING, "dropout": 0.3, "loss_factor": spoilt_from(3, 3, 200.0)}
    whole, halting = tiny("whole", **system), tiny("halting", **system)
    progress, again = whole.train(), halting.train_step_by_step()
    assert_same(whole, halting)
    assert len(halting.events("start")) >= 24, "it was begun once a step"
    assert progress.skipped_steps > 0, "or the guard had nothing to remember"
    assert {**vars(progress), "seconds": 0} == {**vars(again), "seconds": 0}


@pytest.mark.parametrize("asked", [3, 4])
def test_a_stop_amid_a_validation_loses_no_step(tiny: Tiny, asked: int) -> None:
    """The epoch's steps are saved before it is validated; the run goes on with the validation and ends alike."""
    drawn: list[int] = []

    def note(epoch: int, keys: np.ndarray) -> np.ndarray:
        drawn.append(epoch)
        return np.ones(len(keys))

    whole, halted = (tiny(name, changes={"ema_decay": 0.9}, loss_factor=note) for name in ("whole", "halted"))
    expected = whole.train().history
    drawn.clear()
    with pytest.raises(Stopped, match="validated"):
        halted.train(partial(next, iter([False] * asked + [True])))
    assert [entry.val_loss for entry in read_index(halted.folder / "checkpoint")] == [None]
    halted.__post_init__()
    assert halted.train().history == expected
    assert drawn == [0] * 3 + [1] * 3 + [2] * 3 + [3] * 3, "no batch was drawn twice"
    assert_same(whole, halted)


def test_predictions_go_through_the_network_in_the_parts_of_a_batch(tiny: Tiny) -> None:
    """No more samples at a time than training takes, each photo's together, answers in the order of the samples."""
    whole, parts = tiny("whole"), tiny("parts", changes={"accumulate": 3})
    sizes, photos = [], []
    parts.model.register_forward_pre_hook(lambda _, __, given: sizes.append(len(given["image"])), with_kwargs=True)
    stream = parts.stores["val"].stream
    parts.stores["val"].stream = lambda rows: photos.extend(rows) or stream(rows)
    found = []
    for run in (whole, parts):
        samples = run.system.samples(run.stores["val"].split)
        found.append(predict(run.model, run.system, run.stores["val"], samples, run.system.recipe))
    assert sizes == [3, 3, 3, 3]
    assert [rows_B.tolist() for rows_B in photos] == [[0, 1], [1, 2], [3, 4], [4, 5]]
    for name, value in found[0].items():
        np.testing.assert_allclose(found[1][name], value, atol=1e-6)


def test_predictions_stop_when_they_are_told_to(tiny: Tiny) -> None:
    """Before the next part of the samples."""
    run, answers = tiny(), iter([False, True])
    samples = run.system.samples(run.stores["val"].split)
    with pytest.raises(Stopped):
        predict(run.model, run.system, run.stores["val"], samples, run.system.recipe, partial(next, answers))
    assert list(answers) == []


def test_dropout_is_drawn_anew_for_every_step_and_process() -> None:
    """torch is seeded by (seed, step, rank): a network's own draws differ wherever one of them does."""
    seeds = {step_seed(seed, step, rank) for seed in range(3) for step in range(50) for rank in range(2)}
    assert len(seeds) == 300


def test_a_run_of_another_seed_ends_elsewhere(tiny: Tiny) -> None:
    """The comparison above would notice a difference."""
    one, other = tiny("one"), tiny("other", dropout=0.3)
    one.train(), other.train()
    assert not torch.equal(one.model.head.weight, other.model.head.weight)


@pytest.mark.parametrize("accumulate", [2, 3, 4])
def test_accumulation_does_not_change_what_is_learnt(tiny: Tiny, accumulate: int) -> None:
    """A batch in parts, also unequal ones, gives the weights of the whole batch within 1e-6 (without batch norm)."""
    whole = tiny("whole", batch_norm=False)
    parts = tiny("parts", batch_norm=False, changes={"accumulate": accumulate})
    losses = [[entry["loss"] for entry in run.train().history] for run in (whole, parts)]
    for one, other in zip(whole.model.parameters(), parts.model.parameters(), strict=True):
        torch.testing.assert_close(one, other, rtol=0, atol=1e-6)
    assert losses[0] == pytest.approx(losses[1], abs=1e-6)


def test_an_epoch_shows_every_photo_once() -> None:
    """In batches of nearly equal size, in an order that is a function of (seed, epoch)."""
    keys = np.arange(100, 122, dtype=np.uint64)
    batches = epoch_batches(keys, seed=1, epoch=0, batch_size=8)
    assert [len(rows_B) for rows_B in batches] == [8, 7, 7]
    assert sorted(np.concatenate(batches)) == list(range(22))
    sizes = {(photos, size): [len(b) for b in epoch_batches(keys[:photos], 1, 0, size)] for photos, size in SIZES}
    assert sizes == SIZES, "never more than asked for, never a single photo"
    orders = {tuple(np.concatenate(epoch_batches(keys, seed, epoch, 8))) for seed in (1, 2) for epoch in (0, 1)}
    assert len(orders) == 4
    assert tuple(np.concatenate(batches)) in orders


def test_a_batch_is_never_split_into_single_photos() -> None:
    """Batch normalisation needs two: a small batch comes in fewer parts."""
    assert [len(part_B) for part_B in split_batch(np.arange(7), 3)] == [3, 2, 2]
    assert [len(part_B) for part_B in split_batch(np.arange(5), 4)] == [3, 2]
    assert [len(part_B) for part_B in split_batch(np.arange(1), 4)] == [1]


def test_what_is_frozen_does_not_move_until_its_epoch(tiny: Tiny) -> None:
    """Neither weights nor running statistics nor weight decay, across a resume; the rest learns, and then all of it."""
    decayed = OptimiserSpec("sgd", lr=0.05, weight_decay=0.1)
    run = tiny(changes={"frozen": (Freeze("trunk", until_epoch=2),), "optimiser": decayed})
    first = {name: value.clone() for name, value in run.model.state_dict().items()}
    moved_at = {}
    for steps in range(1, 12):
        asked = 3 if steps in (4, 7, 10) else 1  # an epoch is validated in two passes first
        with pytest.raises(Stopped):
            run.train(partial(next, iter([False] * asked + [True])))
        moved_at |= {
            name: steps
            for name, value in run.model.state_dict().items()
            if name not in moved_at and not torch.equal(value, first[name])
        }
        run.__post_init__()
    assert {name for name, step in moved_at.items() if step == 1} == {
        name for name in first if not name.startswith("trunk")
    }
    assert {step for name, step in moved_at.items() if name.startswith("trunk")} == {7}, "three steps an epoch"
    assert moved_at.keys() == first.keys()


def test_a_part_that_thaws_has_an_optimiser_state_of_its_own_age(tiny: Tiny) -> None:
    """Adam counts its steps from the thaw, and what never learnt has no state at all."""
    run = tiny(changes={**EVERYTHING, "guards": GuardSpec()})
    run.train()
    model = run.system.build()
    optimiser = make_optimiser(model, run.system.recipe.optimiser)
    run.tensors(TrainingState(model, optimiser, Averaged(model, 0.9)))
    steps = {name: optimiser.state[p]["step"].item() for name, p in model.named_parameters() if p in optimiser.state}
    assert steps["head.weight"] == 24
    assert steps["trunk.0.weight"] == 12
    assert "head.bias" not in steps


@pytest.mark.parametrize(
    ("changes", "says"),
    [
        ({"frozen": (Freeze("trnk"),)}, "no parameter begins so"),
        ({"optimiser": OptimiserSpec("sgd", 0.1, rate_factors=(("trnk", 0.1),))}, "no parameter begins so"),
        ({"frozen": (Freeze("trunk"), Freeze("neck"), Freeze("head"))}, "nothing learns in epoch 1"),
    ],
)
def test_prefixes_must_make_sense(tiny: Tiny, changes: dict[str, Any], says: str) -> None:
    """A misspelt prefix, or a network that is frozen whole, is an impossible request."""
    with pytest.raises(ConfigError, match=says):
        tiny(changes=changes).train()


def test_the_averaged_weights_are_what_is_validated_and_kept_as_best(tiny: Tiny) -> None:
    """The figures are those of the average, which the best checkpoint holds; training goes on with its own weights."""
    run = tiny(changes={"ema_decay": 0.9, "epochs": 1})
    progress = run.train()
    tensors, best = everything_in(run), run.system.build()
    run.checkpoints().load_best(best)
    for name, value in best.state_dict().items():
        assert torch.equal(value, tensors[f"average.{name}"])
        assert torch.equal(run.model.state_dict()[name], tensors[name])
    assert not torch.equal(best.head.weight, run.model.head.weight)
    figures = validate(run.system.recipe, run.system, best, run.stores["val"])
    assert figures == {name: progress.history[0][name] for name in figures}


def test_every_step_enters_the_average(tiny: Tiny) -> None:
    """With (1 + n) / (10 + n) of what was before, as long as that is less than the decay."""
    run, seen = tiny(changes={"ema_decay": 0.9, "epochs": 1}), []
    run.train(lambda: bool(seen.append(run.model.head.weight.detach().clone())))
    average, *later = *seen[:3], run.model.head.weight.detach()
    for step, weight in enumerate(later):
        kept = (1 + step) / (10 + step)
        average = kept * average + (1 - kept) * weight
    torch.testing.assert_close(everything_in(run)["average.head.weight"], average)


def test_a_long_gradient_is_clipped(tiny: Tiny) -> None:
    """The first step of plain SGD is then as long as rate times limit, over all parameters together."""
    run, seen = tiny(changes={"optimiser": OptimiserSpec("sgd", lr=0.5, max_gradient_norm=0.01), "epochs": 1}), []
    run.train(lambda: bool(seen.append(nn.utils.parameters_to_vector(run.model.parameters()).detach())))
    assert torch.linalg.vector_norm(seen[1] - seen[0]).item() == pytest.approx(0.005, rel=1e-3)


def test_steps_are_taken_at_the_rate_of_the_schedule_and_the_part(tiny: Tiny) -> None:
    """At a rate of almost 0 from the third epoch on nothing moves any more, and a part of factor 0 has never moved."""
    optimiser = OptimiserSpec("sgd", lr=0.05, rate_factors=(("trunk", 0.0),))
    falling = {"schedule": ScheduleSpec("step", decay=1e-30, step_epochs=2), "optimiser": optimiser}
    short, long = tiny("short", changes={**falling, "epochs": 2}), tiny("long", changes={**falling, "epochs": 4})
    first = {name: parameter.detach().clone() for name, parameter in long.model.named_parameters()}
    rates = [entry["lr"] for entry in (short.train(), long.train())[1].history]
    assert rates == pytest.approx([0.05, 0.05, 5e-32, 5e-32])
    for (name, one), other in zip(short.model.named_parameters(), long.model.parameters(), strict=True):
        assert torch.equal(one, other)
        assert torch.equal(other, first[name]) == name.startswith("trunk")


def test_a_run_stops_early_with_its_reason(tiny: Tiny) -> None:
    """The reason stands in Progress and in the log; a run that stopped early does not go on when it is begun again."""
    spec = EarlyStopping(patience_epochs=2, min_delta=100.0)
    run = tiny(changes={"early_stopping": spec, "epochs": 9})
    progress = run.train()
    assert progress.stopped_early is not None
    assert "has not fallen by 100 for 2 epochs since epoch 1" in progress.stopped_early
    assert run.events("end")[0]["stopped_early"] == progress.stopped_early
    assert [event["epoch"] for event in run.events("epoch")] == [1, 2, 3]
    assert run.train().step == progress.step == 9


@pytest.mark.parametrize("value", [float("nan"), float("inf")])
def test_a_loss_that_is_no_number_ends_the_run_before_it_reaches_the_weights(tiny: Tiny, value: float) -> None:
    """The error names step and rate; weights and the last checkpoint are those of before."""
    run = tiny(loss_factor=spoilt_from(1, 22, value))
    with pytest.raises(TrainingDiverged, match="at step 3") as caught:
        run.train()
    assert (caught.value.fields["step"], caught.value.fields["lr"]) == (3, 0.05)
    tensors = everything_in(run)
    for name, parameter in run.model.named_parameters():
        assert torch.equal(parameter, tensors[name]), "the weights after the first epoch"


def test_a_spike_takes_no_step(tiny: Tiny) -> None:
    """The weights stay as they were, the log says so, and training goes on."""
    usual = {"epochs": 7, "guards": GuardSpec(spike_factor=50.0)}
    run = tiny(changes=usual, loss_factor=lambda epoch, keys: np.where(epoch == 6, 1e4, 1.0) * np.ones(len(keys)))
    before = tiny("before", changes={**usual, "epochs": 6})
    progress = run.train()
    before.train()
    assert [event["step"] for event in run.events("skipped")] == [18, 19, 20]
    assert (progress.skipped_steps, progress.step, len(progress.recent_losses)) == (3, 21, 18)
    for one, other in zip(run.model.parameters(), before.model.parameters(), strict=True):
        assert torch.equal(one, other)


def test_five_spikes_in_a_row_end_the_run(tiny: Tiny) -> None:
    """TrainingDiverged says what is usual."""
    guards = GuardSpec(spike_factor=50.0)
    run = tiny(changes={"epochs": 8, "guards": guards}, loss_factor=spoilt_from(6, 22, 1e4))
    with pytest.raises(TrainingDiverged, match=r"5 times in a row, .* at step 22"):
        run.train()


@pytest.mark.parametrize("output", ["brightness", "channel"])
def test_every_output_is_watched(tiny: Tiny, output: str) -> None:
    """An output that is the same for every photo ends the run after the epochs that the recipe grants, by its name."""
    run = tiny(changes={"guards": GuardSpec(constant_outputs_after_epoch=2)})
    rows = slice(0, 1) if output == "brightness" else slice(1, 4)
    run.model.head.weight.register_hook(lambda gradient: gradient.index_fill(0, torch.arange(4)[rows], 0.0))
    with torch.no_grad():
        run.model.head.weight[rows] = 0
    with pytest.raises(ConstantOutputs, match=f"after epoch 3 the network's output '{output}'") as caught:
        run.train()
    assert caught.value.fields["output_std"] < 1e-4
    assert [event["epoch"] for event in run.events("epoch")] == [1, 2]


def test_an_epoch_says_what_its_figures_are(tiny: Tiny) -> None:
    """The loss and its terms on val, the system's own figures, each output's spread, the rate, the speed."""
    run = tiny(changes={"epochs": 1})
    progress, event = run.train(), run.events("epoch")[0]
    expected = {"loss", "lr", "val_loss", "val_loss_brightness", "val_loss_channel", "val_accuracy"}
    expected |= {"output_std_brightness", "output_std_channel"}
    assert expected | {"epoch"} == progress.history[0].keys()
    assert expected | {"photos_per_s", "seconds", "is_best"} < event.keys()
    total = progress.history[0]["val_loss_brightness"] + progress.history[0]["val_loss_channel"]
    assert progress.history[0]["val_loss"] == pytest.approx(total)


def test_the_loss_on_val_goes_by_the_weights_of_its_samples(tiny: Tiny) -> None:
    """A photo's samples count as the system says, not alike."""
    run = tiny()
    with torch.no_grad():
        run.model.head.weight[0] = torch.linspace(-1, 1, 6)
    recipe, system, val = run.system.recipe, run.system, run.stores["val"]
    samples = system.samples(val.split)
    outputs = predict(run.model, system, val, samples, recipe)
    error_N = (outputs["brightness"] - samples.targets["brightness"]) ** 2
    found = validate(recipe, system, run.model, val)["val_loss_brightness"]
    assert found == pytest.approx(np.average(error_N, weights=samples.weight_N), rel=1e-5)
    assert found != pytest.approx(error_N.mean(), rel=1e-4)


def test_the_system_is_learnt(tiny: Tiny) -> None:
    """The loss of the training photos falls well below where it began."""
    progress = tiny(changes={"epochs": 12, "optimiser": OptimiserSpec("adam", 0.05)}).train()
    assert progress.history[-1]["loss"] < 0.5 * progress.history[0]["loss"]
