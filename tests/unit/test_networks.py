"""From a recipe to a network that is ready to train."""

from dataclasses import replace
from typing import Any

import pytest
import torch

from models.categories.spec import CategorySpec
from models.errors import ConfigError
from models.frames import PackSpec
from models.networks import build_model, forward, system_of
from models.recipes import RECIPES, resolve
from models.specs import Recipe

CPU = torch.device("cpu")


def small(**changes: Any) -> Recipe:
    """Labels from 16 x 16 pixels."""
    spec = CategorySpec("resnet18", input_px=16, width=0.125)
    return replace(resolve("categories_narrow"), system=spec, pack=PackSpec(16, 16), **changes)


@pytest.mark.parametrize("name", [name for name in RECIPES if name.endswith("_narrow")])
def test_every_narrow_recipe_builds_and_answers(name: str) -> None:
    """The network of a recipe takes the system's example and answers in float32, whatever is asked of a GPU."""
    recipe = replace(resolve(name), precision="bfloat16", channels_last=True)
    system = system_of(recipe, ("cat", "dog"))
    outputs = forward(build_model(system, 0, CPU).eval(), system.example(2), recipe)
    assert outputs
    assert all(value.dtype == torch.float32 and len(value) == 2 for value in outputs.values())


@pytest.mark.parametrize("name", [name for name in RECIPES if name.endswith("_narrow")])
def test_last_layers_answer_in_float32(name: str) -> None:
    """Under autocast the inner layers compute in bfloat16, and no answer is rounded to it."""
    system = system_of(resolve(name), ("cat", "dog"))
    model = build_model(system, 0, CPU).eval()
    with torch.no_grad(), torch.autocast("cpu", dtype=torch.bfloat16):
        outputs = model(**{key: value + 0.3 for key, value in system.example(2).items()})
    for value in outputs.values():
        assert value.dtype == torch.float32
        assert not torch.equal(value, value.bfloat16().float())


def test_weights_are_a_function_of_the_seed() -> None:
    """The same seed gives the same weights, another gives others, and torch's own generator is left alone."""
    system = system_of(small(), ("cat", "dog"))
    before = torch.get_rng_state()
    first, again, other = (build_model(system, seed, CPU).state_dict() for seed in (0, 0, 1))
    assert torch.equal(torch.get_rng_state(), before)
    assert all(torch.equal(first[name], again[name]) for name in first)
    assert not torch.equal(first["head.weight"], other["head.weight"])


def test_a_compiled_network_keeps_its_names() -> None:
    """A checkpoint of a compiled run is one of any run."""
    plain, compiled = (
        build_model(system_of(small(compile=choice), ("cat", "dog")), 0, CPU) for choice in (False, True)
    )
    assert list(plain.state_dict()) == list(compiled.state_dict())
    assert compiled._compiled_call_impl is not None


def test_a_squashed_network_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    """A recipe whose network ends in a softmax under a cross-entropy is not trained."""
    system = system_of(small(), ("cat", "dog"))
    build = system.build

    def squashed() -> Any:
        model = build()
        model.head = torch.nn.Sequential(model.head, torch.nn.Softmax(1))
        return model

    monkeypatch.setattr(system, "build", squashed)
    with pytest.raises(ConfigError, match="ends in softmax"):
        build_model(system, 0, CPU)
