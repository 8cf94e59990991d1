"""Weights from files: torchvision's names become ours, outputs stay what they were, and bad files are named."""

import random
from pathlib import Path

import pytest
import torch
import torchvision
from safetensors.torch import save_file
from torch import nn

from models.backbones import ResidualTrunk
from models.categories.networks import NETWORKS, build_network
from models.crops.networks import CropNet
from models.errors import ConfigError
from models.networks import start_from
from models.pretrained import load_weights, read_weights
from models.recipes import resolve


def theirs(name: str, classes: int = 7) -> nn.Module:
    """torchvision's network with random weights, in evaluation."""
    torch.manual_seed(1)
    network: nn.Module = getattr(torchvision.models, name)(num_classes=classes)
    return network.eval()


@pytest.mark.parametrize("name", NETWORKS)
def test_our_networks_are_those_of_torchvision(name: str, tmp_path: Path):
    """All tensors of torchvision's file find their places, and the outputs are the same."""
    their, ours = theirs(name), build_network(name, 7, 1.0).eval()
    torch.save(their.state_dict(), tmp_path / "given.pth")
    account = load_weights(ours, tmp_path / "given.pth")
    assert account["left_out"] == []
    assert account["tensors"] == account["of"] == len(their.state_dict())
    image = torch.randn(2, 3, 64, 64, generator=torch.Generator().manual_seed(0))
    with torch.no_grad():
        assert torch.allclose(ours(image)["label"], their(image), atol=1e-5)


def test_a_last_layer_of_other_classes_is_left_out_and_said(tmp_path: Path, caplog: pytest.LogCaptureFixture):
    """The trunk comes from the file, the last layer stays fresh; the account and the log name it."""
    path = tmp_path / "given.safetensors"
    save_file(theirs("mobilenet_v2", 1000).state_dict(), path)
    ours = build_network("mobilenet_v2", 7, 1.0)
    fresh = ours.head.weight.clone()
    account = load_weights(ours, path)
    assert account["left_out"] == ["classifier.1.bias", "classifier.1.weight"]
    assert account["file"] == "given.safetensors"
    assert len(account["sha256"]) == 64
    assert torch.equal(ours.head.weight, fresh)
    assert "classifier.1.weight" in caplog.text


def test_several_files_fill_several_parts(tmp_path: Path):
    """Two runs' halves go into the network that has both, and a ResNet's file into every residual trunk."""
    joint = nn.ModuleDict({name: ResidualTrunk(3, (2, 2, 2, 2), (64, 128, 256, 512), "7x7-pool") for name in "ab"})
    for name in "ab":
        state = {f"{name}.{key}": value.clone() for key, value in ResidualTrunk(
            3, (2, 2, 2, 2), (64, 128, 256, 512), "7x7-pool").state_dict().items()}  # fmt: skip
        save_file(state, tmp_path / f"{name}.safetensors")
    accounts = start_from(joint, [tmp_path / "a.safetensors", tmp_path / "b.safetensors"])
    assert [account["tensors"] for account in accounts] == [120, 120]
    torch.save({"state_dict": theirs("resnet18").state_dict()}, tmp_path / "resnet18.pth")
    assert load_weights(joint, tmp_path / "resnet18.pth")["tensors"] == 240
    assert torch.equal(joint["a"].stem[0].weight, joint["b"].stem[0].weight)


def test_the_prefix_of_a_wrapper_is_taken_off(tmp_path: Path):
    """What DistributedDataParallel or torch.compile put before every name."""
    state = {f"module.{name}": value for name, value in theirs("resnet18").state_dict().items()}
    torch.save(state, tmp_path / "given.pth")
    assert load_weights(build_network("resnet18", 7, 1.0), tmp_path / "given.pth")["left_out"] == []


def test_weights_of_another_network_are_refused(tmp_path: Path):
    """Counters of batch normalisation fit everywhere and count for nothing."""
    torch.save(theirs("resnet18").state_dict(), tmp_path / "given.pth")
    with pytest.raises(ConfigError, match=r"given\.pth holds no tensor that fits CategoryNet"):
        load_weights(build_network("resnet18", 9, 0.25), tmp_path / "given.pth")


def test_weights_of_a_run_that_diverged_are_refused(tmp_path: Path):
    """A NaN is found before the first step, and its tensor named; the network stays as it was."""
    state, ours = theirs("resnet18").state_dict(), build_network("resnet18", 7, 1.0)
    state["layer1.0.conv1.weight"][0, 0, 0, 0] = torch.nan
    save_file(state, tmp_path / "given.safetensors")
    with pytest.raises(ConfigError, match=r"no numbers, in trunk\.stages\.0\.0\.conv1\.weight"):
        load_weights(ours, tmp_path / "given.safetensors")
    assert all(torch.isfinite(value).all() for value in ours.state_dict().values())


@pytest.mark.parametrize("is_zip", [True, False])
def test_a_damaged_file_is_one_sentence(tmp_path: Path, is_zip: bool):
    """Cut anywhere, or with a bit flipped anywhere: it is read, or refused, and nothing else."""
    path, rng, messages = tmp_path / "given.pth", random.Random(0), list[str]()
    torch.save({"a.weight": torch.zeros(3, 3)}, path, _use_new_zipfile_serialization=is_zip)
    whole = path.read_bytes()
    flips = [(rng.randrange(len(whole)), 1 << rng.randrange(8)) for _ in range(60)]
    harmed = [whole[:place] + bytes([whole[place] ^ bit]) + whole[place + 1 :] for place, bit in flips]
    for content in [*harmed, *(whole[:end] for end in range(0, len(whole), len(whole) // 30))]:
        path.write_bytes(content)
        try:
            read_weights(path)
        except ConfigError as error:
            messages.append(str(error))
    assert len(messages) >= 30
    assert not any("\n" in message for message in messages)


class _Surprise:
    """What a pickle may hold beside tensors."""


@pytest.mark.parametrize(
    ("name", "content", "words"),
    [
        ("gone.pth", None, "there is no file of weights at .*gone.pth: correct start_from"),
        ("text.pth", b"hello", "text.pth cannot be read as weights"),
        ("short.pth", b"abc", "short.pth cannot be read as weights"),
        ("empty.pth", b"", "empty.pth cannot be read as weights"),
        ("cut.safetensors", b"\x08\x00\x00\x00\x00\x00\x00\x00{", "cut.safetensors cannot be read as weights"),
        ("object.pth", {"state_dict": _Surprise()}, "object.pth cannot be read as weights .*a state_dict and nothing"),
        ("numbers.pth", {"epoch": 3}, "numbers.pth holds no tensors"),
        ("tensor.pth", torch.zeros(3), "tensor.pth holds no tensors"),
    ],
)
def test_a_file_that_is_no_file_of_weights_is_named(tmp_path: Path, name: str, content: object, words: str):
    """One sentence with the file and the remedy; code in a pickle is never run."""
    path = tmp_path / name
    if isinstance(content, bytes):
        path.write_bytes(content)
    elif content is not None:
        torch.save(content, path)
    with pytest.raises(ConfigError, match=words):
        load_weights(build_network("resnet18", 7, 0.25), path)


def test_a_head_is_taken_whole_or_not_at_all(tmp_path: Path) -> None:
    """The joint network takes the halves from their runs, and none of the layers that read something else there."""
    joint, patches = (resolve(f"crops_{half}_narrow").system for half in ("joint", "patches"))
    source, model = CropNet(patches), CropNet(joint)
    save_file(source.state_dict(), tmp_path / "patches.safetensors")
    fresh = {name: value.clone() for name, value in model.state_dict().items() if name.startswith("head.")}
    account = load_weights(model, tmp_path / "patches.safetensors")
    state = model.state_dict()
    assert torch.equal(state["patches.embed.weight"], source.state_dict()["patches.embed.weight"])
    assert all(torch.equal(state[name], value) for name, value in fresh.items())
    assert {name for name in account["left_out"] if name.startswith("head.")} == set(fresh)
