"""Keys of the cache, without Prefect."""

import ast
import importlib.util
import shutil
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta, timezone
from pathlib import Path

import pytest

from storage.records import ManifestRef, PackRef
from tasks import caching

REF = ManifestRef(stage="measure", sha256="a" * 64, size_bytes=1, rows=1)


def test_a_reference_counts_by_what_it_names() -> None:
    """Two references to the same bytes are the same input."""
    other = REF.model_copy(update={"size_bytes": 2, "rows": 9})
    assert caching.digest("filter", {"measured": [REF]}) == caching.digest("filter", {"measured": [other]})
    assert caching.token(PackRef(digest="d", sha256="b" * 64, size_bytes=1, photos={})) == "b" * 64


def test_equal_moments_in_two_zones_are_one_input() -> None:
    """A moment is a moment, however it is written."""
    moment = datetime(2026, 1, 1, tzinfo=UTC)
    assert caching.token(moment) == caching.token(moment.astimezone(timezone(timedelta(hours=2))))


@pytest.mark.parametrize("value", [{1, 2}, object(), b"bytes", Path("here")])
def test_what_differs_between_processes_is_refused(value: object) -> None:
    """Sets, objects and paths would give a key that never, or wrongly, comes again."""
    with pytest.raises(TypeError, match="cached task cannot take"):
        caching.token(value)


@pytest.mark.parametrize("edited", ["loop.py", "crops/networks.py", "categories/networks.py", "crops/system.py"])
def test_every_module_of_models_is_part_of_what_identifies_a_training(
    edited: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """``tasks/train.py`` imports none of them; editing one, though another bears its name, must train again."""
    shutil.copytree(origin("models").parent, tmp_path / "models_copy")
    monkeypatch.syspath_prepend(str(tmp_path))
    code = caching.Code(("models_copy",), caching.CODE["train"].libraries)
    before = caching.code_digest(code)
    module = tmp_path / "models_copy" / edited
    module.write_text(module.read_text() + "\nEDITED = True\n")
    assert caching.code_digest(code) != before
    assert caching.CODE["train"].modules == ("models",)


def origin(module: str) -> Path:
    """The file of ``module``."""
    spec = importlib.util.find_spec(module)
    assert spec is not None
    assert spec.origin is not None
    return Path(spec.origin)


def imports(module: str) -> Iterator[str]:
    """Names that ``module`` imports, or any module of a package."""
    file = origin(module)
    files = sorted(file.parent.glob("*.py")) if file.name == "__init__.py" else [file]
    for node in (node for each in files for node in ast.walk(ast.parse(each.read_text()))):
        if isinstance(node, ast.ImportFrom) and node.module:
            yield from (f"{node.module}.{alias.name}" for alias in node.names)
            yield node.module
        elif isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)


# What moves rows and bytes about, but decides none: these never change an output.
PLUMBING = {
    "tasks.caching",
    "tasks.errors",
    "tasks.web",
    "tasks.sources",
    "tasks.fitting",
    "tasks.train",
    "tasks.evaluate",
}


@pytest.mark.parametrize("stage", sorted(set(caching.CODE) - {"search", "download"}))
def test_every_module_that_makes_an_output_is_declared(stage: str) -> None:
    """Following the imports of a stage's declared modules leads to no undeclared module of tasks or models."""
    declared = set(caching.CODE[stage].modules)
    if "models" in declared:
        return
    reached = {name for module in declared for name in imports(module)}
    ours = {name for name in reached if name.startswith(("tasks.", "models.")) and _is_module(name)}
    missing = {name for name in ours - declared - PLUMBING if name.rpartition(".")[0] not in declared}
    assert {name for name in missing if origin(name).name != "__init__.py"} == set()


def _is_module(name: str) -> bool:
    try:
        return importlib.util.find_spec(name) is not None
    except ModuleNotFoundError:
        return False
