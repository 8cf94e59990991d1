"""The house's directions and measures, read from the syntax trees of flows, tasks, models and storage."""

import ast
import subprocess
import sys
from collections.abc import Iterator
from importlib import metadata
from pathlib import Path

import pytest

CHECKOUT = Path(__file__).resolve().parents[2]
PACKAGES = ("flows", "tasks", "models", "storage")
FILES = [file for package in PACKAGES for file in sorted((CHECKOUT / package).rglob("*.py"))]
TREES = {str(file.relative_to(CHECKOUT)): ast.parse(file.read_bytes()) for file in FILES}
FORBIDDEN = {
    "flows": (), "tasks": ("flows",), "models": ("flows", "tasks", "storage"), "storage": ("flows", "tasks", "models"),
}  # fmt: skip
READS_ENVIRONMENT = {"storage/settings.py", "models/fit.py"}
MAX_FILE_LINES, MAX_FUNCTION_LINES = 400, 60
LONGER_FUNCTIONS = {"models/loop.py": 80}  # the training loop, whole on one screen
NAMED_BY_A_FRAMEWORK = {"forward", "do_GET", "do_POST", "do_HEAD"}  # torch and http.server say what they do
TAKEN = sys.stdlib_module_names | set(metadata.packages_distributions())
Function = ast.FunctionDef | ast.AsyncFunctionDef

each_file = pytest.mark.parametrize("name", TREES)


def imported(tree: ast.AST) -> Iterator[str]:
    """Every module that is imported anywhere in ``tree``."""
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            assert not node.level, "imports are absolute, so that they can be read"
            yield node.module or ""


def reads_environment(tree: ast.AST) -> bool:
    """Whether ``tree`` touches os.environ or os.getenv, by whatever way of import."""
    names = {"environ", "environb", "getenv", "getenvb", "putenv"}
    attributes = {node.attr for node in ast.walk(tree) if isinstance(node, ast.Attribute)}
    from_os = {
        alias.name
        for node in ast.walk(tree)
        if isinstance(node, ast.ImportFrom) and node.module == "os"
        for alias in node.names
    }
    return bool(names & (attributes | from_os))


def functions(tree: ast.AST) -> list[Function]:
    """Every function, however deep."""
    return [node for node in ast.walk(tree) if isinstance(node, Function)]


def is_command_line(name: str, tree: ast.Module) -> bool:
    """Whether a module is run by ``python -m``."""
    guards = [node.test for node in tree.body if isinstance(node, ast.If)]
    return name.endswith("__main__.py") or any("__main__" in ast.unparse(guard) for guard in guards)


def public(body: list[ast.stmt], owner: str = "") -> Iterator[tuple[str, ast.ClassDef | Function]]:
    """(name, node) of every public class and function in ``body``, and in its public classes."""
    for node in body:
        if isinstance(node, ast.ClassDef | Function) and not node.name.startswith("_"):
            yield f"{owner}{node.name}", node
            if isinstance(node, ast.ClassDef):
                yield from public(node.body, f"{node.name}.")


@each_file
def test_imports_point_one_way(name: str) -> None:
    """Nothing imports flows; models and storage know neither tasks nor each other."""
    package = name.split("/")[0]
    assert not [module for module in imported(TREES[name]) if module.split(".")[0] in FORBIDDEN[package]]


@each_file
def test_only_settings_read_the_environment(name: str) -> None:
    """A variable of the environment is read in storage/settings.py, and torchrun's in models/fit.py; nowhere else."""
    assert name in READS_ENVIRONMENT or not reads_environment(TREES[name])


@each_file
def test_only_command_lines_print(name: str) -> None:
    """Library code speaks through ``logging``."""
    calls = [node for node in ast.walk(TREES[name]) if isinstance(node, ast.Call) and ast.unparse(node.func) == "print"]
    assert not calls or is_command_line(name, TREES[name]), f"line {calls[0].lineno}"


@each_file
def test_no_file_hides_another_module(name: str) -> None:
    """A script that is run from flows/ or tasks/ finds Prefect and the standard library, not our files."""
    stem = Path(name).stem
    if name.startswith(("flows/", "tasks/")) and not stem.startswith("__"):
        assert stem not in TAKEN


@each_file
def test_files_and_functions_fit_in_a_head(name: str) -> None:
    """No file above 400 lines, no function above 60 (the training loop: 80)."""
    lines = (CHECKOUT / name).read_text(encoding="utf-8").count("\n")
    assert lines <= MAX_FILE_LINES
    most = LONGER_FUNCTIONS.get(name, MAX_FUNCTION_LINES)
    long = {node.name: (node.end_lineno or 0) - node.lineno + 1 for node in functions(TREES[name])}
    assert {function: length for function, length in long.items() if length > most} == {}


@each_file
def test_everything_public_says_what_it_is(name: str) -> None:
    """Every module, public class and public function has a docstring."""
    assert ast.get_docstring(TREES[name]), "the module"
    silent = [
        place
        for place, node in public(TREES[name].body)
        if not ast.get_docstring(node) and node.name not in NAMED_BY_A_FRAMEWORK
    ]
    assert silent == []


def test_importing_the_flows_imports_no_torch() -> None:
    """A worker and the command line start without it: whatever needs a device runs in a process of its own."""
    modules = [Path(name).with_suffix("").as_posix().replace("/", ".") for name in TREES if name.startswith("flows/")]
    names = [module.removesuffix(".__init__") for module in modules]
    program = f"import importlib, sys; [importlib.import_module(name) for name in {names!r}]; print(*sys.modules)"
    command = [sys.executable, "-c", program]
    loaded = subprocess.run(command, cwd=CHECKOUT, capture_output=True, text=True, check=True).stdout.split()
    assert {"flows.pipeline", "models.recipes"} <= set(loaded), "or nothing was imported at all"
    assert {"torch", "torchvision", "torchmetrics"}.isdisjoint(loaded)


def test_a_process_that_ran_a_flow_ends_in_silence() -> None:
    """Modules that are alive when Python ends keep no type of DuckDB alive, or DuckDB prints sixty lines on leaks.

    Prefect's threads hold the context of the first flow until then, so whatever its functions refer to; annotations
    are strings (``from __future__``) wherever they name DuckDB's types.
    """
    modules = [name for name in TREES if not name.startswith("models/") and "__" not in name]
    names = [Path(name).with_suffix("").as_posix().replace("/", ".") for name in modules]
    program = f"""
import ctypes, importlib, types
for name in {names!r}:
    for function in vars(importlib.import_module(name)).values():
        if isinstance(function, types.FunctionType):
            ctypes.pythonapi.Py_IncRef(ctypes.py_object(function))
"""
    command = [sys.executable, "-c", program]
    ended = subprocess.run(command, cwd=CHECKOUT, capture_output=True, text=True, check=True)
    assert ended.stderr == ""
