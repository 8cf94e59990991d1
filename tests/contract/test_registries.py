"""Every entry of SOURCES, RECIPES and CODE is what its registry promises."""

import ast
import importlib.util
import inspect
import json
from importlib import metadata
from pathlib import Path
from typing import get_args

import pytest
import torch
from pydantic import ValidationError

from models.networks import build_model, forward, system_of
from models.recipes import RECIPES, from_dict, resolve
from storage.settings import CHECKOUT, Settings
from tasks import caching
from tasks.dataset import Dataset
from tasks.errors import ConfigError, CredentialsRejected
from tasks.sources import SOURCES, SourceName, named
from tasks.sources.base import SEARCH_ARGUMENTS, Query, Source

# What a stage may import without declaring it: it moves data, and decides no byte of them.
PACKAGES = {f"tasks.{path.parent.name}" for path in (CHECKOUT / "tasks").glob("*/__init__.py")}  # docstrings, no code
PLUMBING = {"tasks", "tasks.caching", "tasks.errors", "tasks.sources", "tasks.sources.base", "tasks.web"}
BY_VERSION = {"search", "download", "audit"}  # they ask a site: their version is bumped by hand
# What decides their bytes is models/, which they never import.
IN_ANOTHER_PROCESS = {"train", "evaluate", "export-model"}


# A source may want a key, which its site gives, or somebody's word that it may be asked; others want nothing.
KEYED = {"flickr": "FLICKR_API_KEY"}
SWITCHED = {"500px": "DARKROOM_PX500"}


def whole_query(name: str) -> dict[str, str]:
    """A query that the source takes."""
    return {next(word for word in SEARCH_ARGUMENTS if word in named(name).takes): "a"}


@pytest.mark.parametrize("name", SOURCES)
def test_a_source_is_one(name: str) -> None:
    """Each entry knows its name, has every method of the protocol and takes the same arguments; it heeds what a query
    really has, and at least one thing to search for.
    """
    source = named(name)
    assert source.name == name
    methods = [method for method, _ in inspect.getmembers(Source, inspect.isfunction) if not method.startswith("_")]
    assert {"check", "due", "search", "forecast", "ask", "renew", "inspect"} <= set(methods)
    for method in methods:
        expected = list(inspect.signature(getattr(Source, method)).parameters)[1:]
        assert list(inspect.signature(getattr(source, method)).parameters) == expected
    assert source.takes <= set(Query.model_fields)
    assert source.takes & set(SEARCH_ARGUMENTS)
    assert isinstance(source.stops_at_known, bool)


def test_a_dataset_can_name_every_source_and_no_other() -> None:
    """The form of the UI offers exactly what is registered; another name is refused with the known ones."""
    assert set(get_args(SourceName)) == set(SOURCES)
    for name in SOURCES:
        dataset = {"name": "d", "source": name, "queries": [whole_query(name)]}
        assert Dataset.model_validate(dataset).source == name
    with pytest.raises(ConfigError, match=f"choose one of {', '.join(get_args(SourceName))}"):
        named("flicker")


@pytest.mark.parametrize("name", SOURCES)
def test_a_source_takes_no_field_that_it_would_pass_over(name: str) -> None:
    """A dataset whose query has a field that its source does not heed is refused with the field's name."""
    values = {"text": "a", "tags": ["a"], "path": "a", "category": "a", "columns": {"photo_id": "a"}, "max_pages": 1}
    for strange in set(values) - named(name).takes:
        query = whole_query(name) | {strange: values[strange]}
        with pytest.raises(ValidationError, match=strange):
            Dataset.model_validate({"name": "d", "source": name, "queries": [query]})


@pytest.mark.parametrize("name", KEYED)
@pytest.mark.parametrize("key", [None, "", "  "])
def test_a_source_without_its_key_says_how_to_get_one(name: str, key: str | None) -> None:
    """One sentence, with the variable and an address, before anything is asked."""
    with pytest.raises(CredentialsRejected) as refusal:
        named(name).check(Settings.model_validate({KEYED[name]: key}))
    says_what_to_do(str(refusal.value), KEYED[name])


@pytest.mark.parametrize("name", SWITCHED)
def test_a_source_that_is_off_says_why_and_how_to_turn_it_on(name: str) -> None:
    """One sentence, with the variable and the address of the terms, before anything is asked."""
    with pytest.raises(ConfigError) as refusal:
        named(name).check(Settings(px500=False))
    says_what_to_do(str(refusal.value), SWITCHED[name])


@pytest.mark.parametrize("name", sorted(set(SOURCES) - set(KEYED) - set(SWITCHED)))
def test_other_sources_need_nothing(name: str) -> None:
    """A folder or a table is read without a word from anybody."""
    named(name).check(Settings())


def says_what_to_do(message: str, variable: str) -> None:
    assert variable in message
    assert "https://" in message
    assert "\n" not in message


@pytest.mark.parametrize("name", RECIPES)
def test_a_recipe_builds_a_network_that_answers_every_photo(name: str) -> None:
    """Inputs of the recipe's own sizes come out as what its system promises, finite, and another for each photo."""
    recipe = resolve(name)
    system = system_of(recipe, ("bee", "bird", "cat") if recipe.system.needs_labels else ())
    model = build_model(system, seed=0, device=torch.device("cpu")).eval()
    generator = torch.Generator().manual_seed(0)
    inputs = {name: torch.rand(value.shape, generator=generator) for name, value in system.example(2).items()}
    with torch.no_grad():
        outputs = forward(model, inputs, recipe)
    shapes = {"label": (2, 3), "rectangle": (2, 4), "crop": (2,), "location": (2, 16, 16)}
    for name, value in outputs.items():
        assert value.shape == shapes[name]
        assert value.dtype == torch.float32
        assert bool(torch.isfinite(value).all())
        assert not torch.equal(value[0], value[1]), "two pictures, two answers"


@pytest.mark.parametrize("name", RECIPES)
def test_a_recipe_survives_the_way_to_the_training_process(name: str) -> None:
    """What the flow sends as plain data is, read back, the very same recipe, under its own name."""
    recipe = resolve(name)
    assert recipe.name == name
    assert from_dict(json.loads(json.dumps(recipe.as_dict()))) == recipe


@pytest.mark.parametrize("stage", caching.CODE)
def test_the_code_of_a_stage_is_there(stage: str) -> None:
    """Every declared module can be found, every library is installed, every folder has files; the digest is stable."""
    code = caching.CODE[stage]
    assert all(list(caching.module_trees(module)) for module in code.modules)
    assert all(metadata.version(library) for library in code.libraries)
    assert all(any((CHECKOUT / folder).iterdir()) for folder in code.files)
    assert caching.code_digest(code) == caching.code_digest(code)


@pytest.mark.parametrize("stage", sorted(set(caching.CODE) - BY_VERSION - IN_ANOTHER_PROCESS))
def test_a_stage_declares_all_of_its_code(stage: str) -> None:
    """An edit of any module of ours that a stage imports, at whatever remove, runs the stage again."""
    declared = set(caching.CODE[stage].modules)
    missing = closure(f"tasks.{stage}") - PLUMBING - declared - PACKAGES
    assert {name for name in missing if name.rpartition(".")[0] not in declared} == set()


def closure(module: str) -> set[str]:
    """``module`` and every module of tasks/ that it imports, directly or not."""
    found, waiting = set(), [module]
    while waiting:
        name = waiting.pop()
        if name not in found and name not in PLUMBING:
            found.add(name)
            waiting += imported_tasks(name)
    return found


def imported_tasks(module: str) -> list[str]:
    """The modules of tasks/ that ``module`` imports itself."""
    spec = importlib.util.find_spec(module)
    assert spec is not None
    assert spec.origin is not None
    found = []
    for node in ast.walk(ast.parse(Path(spec.origin).read_bytes())):
        if isinstance(node, ast.ImportFrom) and (node.module or "").split(".")[0] == "tasks":
            assert node.module is not None
            names = [node.module, *(f"{node.module}.{alias.name}" for alias in node.names)]
            found += [name for name in names if is_module(name)]
    return found


def is_module(name: str) -> bool:
    """Whether ``name`` is a module, and not something that one defines."""
    try:
        return importlib.util.find_spec(name) is not None
    except ModuleNotFoundError:
        return False
