"""What unit tests share: runs of a tiny system of their own, imported only where they are asked for."""

from collections.abc import Callable
from importlib.util import module_from_spec, spec_from_file_location
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest


@pytest.fixture(scope="session")
def tiny_system() -> ModuleType:
    """What ``tiny_system.py`` has. It needs torch, so most tests do without."""
    found = spec_from_file_location("tiny_system", Path(__file__).with_name("tiny_system.py"))
    assert found
    assert found.loader
    module = module_from_spec(found)
    found.loader.exec_module(module)
    return module


@pytest.fixture
def tiny(tiny_system: ModuleType, tmp_path: Path) -> Callable[..., Any]:
    """Makes a run: the first argument names its folder, ``changes`` are of the recipe, the rest of the system."""

    def make(name: str = "run", *, changes: dict[str, Any] | None = None, **system: Any) -> Any:
        return tiny_system.make_run(tmp_path / name, changes, system)

    return make
