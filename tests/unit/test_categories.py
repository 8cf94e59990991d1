"""Photo categories: labels become numbers, photos batches, and outputs figures beside constant answers."""

from dataclasses import replace

import numpy as np
import pytest
import torch
from torch.nn import functional
from torchmetrics.functional.classification import (
    multiclass_accuracy,
    multiclass_f1_score,
    multiclass_precision,
    multiclass_recall,
)  # fmt: skip

from models.categories import judging
from models.categories.labels import class_numbers, classes_of, describe_classes
from models.categories.networks import NETWORKS, build_network
from models.categories.system import CategorySystem
from models.errors import ConfigError
from models.loader import PhotoBatch, Split
from models.metrics import PhotoBootstrap
from models.recipes import resolve

RECIPE = resolve("categories_narrow")
CLASSES = ("boat", "cat", "dog", "fish", "horse", "owl", "tree")
SYSTEM = CategorySystem(RECIPE, CLASSES)


def split_of(labels: list[str | None], name: str = "train") -> Split:
    """A split of small frames of noise with those labels."""
    count, px = len(labels), RECIPE.pack.frame_width
    frames = np.random.default_rng(3).integers(0, 256, (count, px, px, 3), np.uint8)
    return Split(name, frames, None, ["here"] * count, [f"{number:03d}" for number in range(count)], labels)


def batch_of(split: Split) -> PhotoBatch:
    """All photos of a split."""
    frame_BCHW = torch.from_numpy(split.frames).permute(0, 3, 1, 2)
    return PhotoBatch(np.arange(len(split)), split.keys, frame_BCHW, None, split.labels)


SOME = split_of([CLASSES[number % 7] for number in range(14)])


def judged(count: int, classes: int, skill: float = 2.0) -> tuple[np.ndarray, np.ndarray]:
    """Logits that lean to the truth, and the truth, unevenly spread."""
    rng = np.random.default_rng(11)
    truth_N = (rng.random(count) ** 2 * classes).astype(np.int64)
    logits_NK = rng.normal(size=(count, classes))
    logits_NK[np.arange(count), truth_N] += skill
    return logits_NK, truth_N


def test_classes_are_the_labels_of_train_in_order():
    """What stands in train.json: the classes, their photos, and those with a single photo, which may be learnt."""
    train = split_of(["dog", "cat", "dog", "owl"])
    assert classes_of(train) == ("cat", "dog", "owl")
    about = describe_classes(train)
    assert about["photos_of_class"] == {"cat": 1, "dog": 2, "owl": 1}
    assert about["classes_with_one_photo"] == ["cat", "owl"]


@pytest.mark.parametrize(
    ("labels", "words"),
    [
        (["cat", None, None], "2 of 3 photos of train have no label"),
        (["cat", "cat"], "no label but 'cat'"),
        ([], "train is empty"),
    ],
)
def test_labels_that_teach_nothing_are_refused(labels, words):
    """Missing ones are counted; a single class is named."""
    with pytest.raises(ConfigError, match=words):
        classes_of(split_of(labels))


def test_a_label_that_train_lacks_is_named():
    """With its photos and its split, before anything is judged."""
    with pytest.raises(ConfigError, match=r"test has labels that train lacks: 'newt' \(2 photos\)"):
        SYSTEM.samples(split_of(["cat", "newt", "newt"], "test"))
    assert class_numbers(["owl", "boat"], CLASSES, "val").tolist() == [5, 0]


def test_a_photo_without_a_label_can_be_predicted_but_not_judged():
    """``as_given`` asks for no label, ``samples`` does."""
    split = split_of([None, "cat"], "test")
    batch = SYSTEM.draw_fixed(batch_of(split), SYSTEM.as_given(split), np.arange(2))
    assert batch.targets == {}
    with pytest.raises(ConfigError, match="1 of 2 photos of test have no label"):
        SYSTEM.samples(split)


def test_a_recipe_without_labels_is_refused():
    """The message says what is missing."""
    with pytest.raises(ConfigError, match="at least two labels"):
        CategorySystem(RECIPE, ())


def test_a_training_sample_hangs_on_seed_epoch_and_photo_alone():
    """The same in another batch; another epoch or seed draws another; the label stays."""
    photos = batch_of(SOME)
    drawn = SYSTEM.draw(photos, 1, 2)
    rows = np.array([9, 3, 4])
    again = SYSTEM.draw(photos.take(rows), 1, 2)
    assert torch.allclose(again.inputs["image"], drawn.inputs["image"][rows], atol=1e-5)
    assert drawn.targets["label"].tolist() == [number % 7 for number in range(14)]
    for seed, epoch in ((1, 3), (2, 2)):
        other = SYSTEM.draw(photos, seed, epoch)
        assert not torch.allclose(other.inputs["image"], drawn.inputs["image"], atol=0.1)
        assert torch.equal(other.targets["label"], drawn.targets["label"])


def test_shuffled_labels_know_nothing_of_the_photo():
    """The control: drawn by chance, the same in each epoch; the fixed samples keep the truth."""
    control = CategorySystem(replace(RECIPE, system=replace(RECIPE.system, shuffled_labels=True)), CLASSES)
    many = split_of(["cat"] * 200)
    first, later = (control.draw(batch_of(many), seed, epoch).targets["label"] for seed, epoch in ((1, 0), (1, 5)))
    assert torch.equal(first, later)
    assert set(first.tolist()) == set(range(7))
    assert set(control.samples(many).targets["label"].tolist()) == {1.0}


def test_a_fixed_sample_is_the_whole_photo_as_the_network_expects_it():
    """A grey frame comes out as that grey, less ImageNet's mean and by its deviation."""
    split = replace(SOME, frames=np.full_like(SOME.frames, 51))
    batch = SYSTEM.draw_fixed(batch_of(split), SYSTEM.samples(split), np.arange(14))
    image = batch.inputs["image"]
    assert image.shape == SYSTEM.example(14)["image"].shape == (14, 3, 64, 64)
    expected = [(0.2 - mean) / std for mean, std in ((0.485, 0.229), (0.456, 0.224), (0.406, 0.225))]
    assert image.mean((0, 2, 3)).tolist() == pytest.approx(expected, abs=1e-4)
    assert image.std((2, 3)).max() < 1e-4


def test_the_loss_is_smoothed_cross_entropy():
    """By hand: the truth counts 1 - s + s / K, every other class s / K."""
    system = CategorySystem(replace(RECIPE, system=replace(RECIPE.system, label_smoothing=0.1)), CLASSES)
    logits, label = torch.randn(5, 7, generator=torch.Generator().manual_seed(0)), torch.tensor([0.0, 3, 6, 1, 1])
    soft = functional.one_hot(label.long(), 7) * 0.9 + 0.1 / 7
    losses = system.losses({"label": logits}, {"label": label})
    assert torch.allclose(losses["total"], -(soft * logits.log_softmax(1)).sum(1))
    assert losses["total"].shape == (5,)


def test_scores_and_macro_figures_are_those_of_torchmetrics():
    """Accuracy, top-5, likelihood, macro precision, recall and F1 on uneven classes; a constant answer beside each."""
    logits_NK, truth_N = judged(400, 9)
    logits, truth = torch.from_numpy(logits_NK), torch.from_numpy(truth_N)
    found = {each.name: each for each in judging.mean_scores(judging.log_probabilities(logits_NK, 1.0), truth_N)}
    top5 = multiclass_accuracy(logits, truth, 9, top_k=5, average="micro")
    assert found["accuracy"].scores_N.mean() == pytest.approx((logits_NK.argmax(1) == truth_N).mean())
    assert found["top5_accuracy"].scores_N.mean() == pytest.approx(float(top5))
    assert found["nll"].scores_N.mean() == pytest.approx(float(functional.cross_entropy(logits, truth)))
    share = np.bincount(truth_N) / 400
    assert found["accuracy"].baseline_N.mean() == pytest.approx(share.max())
    assert found["nll"].baseline_N.mean() == pytest.approx(-(share * np.log(share)).sum())
    bootstrap = PhotoBootstrap(np.arange(400), 400, 200, 7)
    macro = {each["name"]: each for each in judging.macro_figures(truth_N, logits_NK.argmax(1), 9, bootstrap)}
    yardsticks = {
        "macro_precision": multiclass_precision, "macro_recall": multiclass_recall, "macro_f1": multiclass_f1_score,
    }  # fmt: skip
    for name, yardstick in yardsticks.items():
        assert macro[name]["value"] == pytest.approx(float(yardstick(logits.argmax(1), truth, 9, average="macro")))
        constant = yardstick(torch.full_like(truth, int(share.argmax())), truth, 9, average="macro")
        assert macro[name]["baseline"] == pytest.approx(float(constant))
        assert macro[name]["low"] < macro[name]["value"] < macro[name]["high"]
        assert macro[name]["beats_baseline"]


def test_few_classes_have_no_top_five():
    """Among four labels the first five say nothing."""
    logits_NK, truth_N = judged(30, 4)
    names = [each.name for each in judging.mean_scores(judging.log_probabilities(logits_NK, 1.0), truth_N)]
    assert names == ["accuracy", "nll"]


def test_a_judgement_is_whole():
    """One row a photo, the confusion matrix, the pairs confused most, every class; the temperature moves no label."""
    split = split_of([CLASSES[number % 7] for number in range(70)], "test")
    samples = SYSTEM.samples(split)
    logits_NK = np.random.default_rng(2).normal(size=(70, 7))
    logits_NK[:, 1] += 2.0
    warm = SYSTEM.judge({"label": logits_NK}, samples, split, {"temperature_label": 3.0})
    cold = SYSTEM.judge({"label": logits_NK}, samples, split, {})
    assert warm.predictions["pred_label"] == cold.predictions["pred_label"]
    assert max(warm.predictions["pred_probability"].to_pylist()) < max(cold.predictions["pred_probability"].to_pylist())
    confusion = np.array(warm.pictures["confusion"])
    assert confusion.sum(1).tolist() == [10] * 7
    pairs = warm.pictures["confused_pairs"]
    assert {pair["called"] for pair in pairs[:4]} == {"cat"}
    assert [pair["photos"] for pair in pairs] == sorted((pair["photos"] for pair in pairs), reverse=True)
    by_class = {row["class"]: row for row in warm.pictures["by_class"]}
    assert by_class["cat"]["precision"] == confusion[1, 1] / confusion[:, 1].sum()
    assert SYSTEM.figures({"label": logits_NK}, samples)["accuracy"] == np.trace(confusion) / 70


def test_answers_are_the_likeliest_labels():
    """Five labels and probabilities from high to low; the first stands alone too."""
    split = split_of([None, None], "given")
    logits_NK = np.array([[0, 1, 2, 3, 4, 5, 6.0], [9, 0, 0, 0, 0, 0, 0]])
    table = SYSTEM.answers({"label": logits_NK}, SYSTEM.as_given(split), split, {})
    assert table["label"].to_pylist() == ["tree", "boat"]
    assert table["top_labels"][0].as_py() == ["tree", "owl", "horse", "fish", "dog"]
    assert table["top_probabilities"][0].as_py() == sorted(table["top_probabilities"][0].as_py(), reverse=True)
    assert table["probability"][0].as_py() == pytest.approx(np.exp(6) / np.exp(np.arange(7)).sum())


def test_a_perturbation_of_strength_zero_changes_nothing():
    """And the strongest do what they are called."""
    photos = batch_of(SOME)
    for name, strengths in SYSTEM.perturbations().items():
        assert 0 in strengths
        assert torch.equal(SYSTEM.perturb(photos, name, 0.0).frame_BCHW, photos.frame_BCHW)
    grey = SYSTEM.perturb(photos, "greyness", 1.0).frame_BCHW.int()
    assert (grey.amax(1) - grey.amin(1)).max() <= 1
    assert SYSTEM.perturb(photos, "brightness", -0.5).frame_BCHW.float().mean() < 70
    with pytest.raises(ConfigError, match="brightness, greyness"):
        SYSTEM.perturb(photos, "fog", 1.0)


@pytest.mark.parametrize("name", NETWORKS)
def test_every_network_learns_its_first_batch(name):
    """All parameters get a gradient, and a quarter of the width has fewer of them."""
    torch.manual_seed(0)
    network = build_network(name, 7, 0.25)
    outputs = network(torch.randn(4, 3, 32, 32))
    assert outputs["label"].shape == (4, 7)
    torch.autograd.backward(functional.cross_entropy(outputs["label"], torch.tensor([0, 1, 2, 3])))
    assert all(parameter.grad is not None for parameter in network.parameters())
    counts = [sum(p.numel() for p in build_network(name, 7, width).parameters()) for width in (0.25, 1.0)]
    assert counts[0] < counts[1] / 8


def test_an_unknown_network_lists_the_known_ones():
    """The message says what could have been asked for."""
    with pytest.raises(ConfigError, match="resnet18, resnet34, resnet50, mobilenet_v2"):
        build_network("resnet19", 7, 1.0)
