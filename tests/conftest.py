"""What all tests share: a data root of their own, the real photographs if they are there, one Prefect server a run."""

import os
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

# Before the first import of Darkroom: tasks learn at import where their cached results lie.
ROOT = Path(tempfile.mkdtemp(prefix="darkroom-tests-"))
os.environ |= {
    "DARKROOM_ROOT": str(ROOT / "root"),
    "DO_NOT_TRACK": "1",
    "PREFECT_HOME": str(ROOT / "prefect"),
    "PREFECT_SERVER_ANALYTICS_ENABLED": "false",
    "PREFECT_LOGGING_TO_API_WHEN_MISSING_FLOW": "ignore",
}
for _name in ("FLICKR_API_KEY", "DARKROOM_FLICKR_URL", "DARKROOM_IMAGE_HOSTS", "PREFECT_API_URL"):
    os.environ.pop(_name, None)

from storage.layout import Layout, layout
from storage.settings import apply_environment, settings

FOREIGN = Path(os.environ.get("DARKROOM_SHARED", Path(__file__).resolve().parents[2] / "shared"))


def pytest_addoption(parser: pytest.Parser) -> None:
    """By hand: ``pytest tests/integration/test_outages.py -k minute --outage-s 60 --log-cli-level=INFO``."""
    parser.addoption(
        "--outage-s", type=float, default=2.0,
        help="how long a site is gone in the tests of outages, whose waits are scaled to it; 60: nothing is scaled",
    )  # fmt: skip


@pytest.fixture
def where(tmp_path: Path) -> Layout:
    """An empty data root of the test's own, for whatever takes a Layout."""
    return Layout(tmp_path)


@pytest.fixture
def root() -> Layout:
    """The data root of this test run, which tasks write to."""
    return layout()


@pytest.fixture(scope="session")
def shared() -> Path:
    """The folder of real photographs; skips where there is none."""
    if not (FOREIGN / "photos" / "photos.csv").is_file():
        pytest.skip(f"no real photographs at {FOREIGN}: set DARKROOM_SHARED")
    return FOREIGN


@pytest.fixture
def environment() -> Iterator[Callable[..., None]]:
    """``apply_environment`` for one test: what it changes is taken back."""
    before = dict(os.environ)
    yield apply_environment
    os.environ.clear()
    os.environ.update(before)
    settings.cache_clear()


@pytest.fixture(scope="session")
def prefect_server() -> Iterator[None]:
    """A Prefect server for all flows of this test run, without the second that each flow waits for its heartbeat."""
    from prefect.settings import PREFECT_FLOWS_HEARTBEAT_FREQUENCY, temporary_settings
    from prefect.testing.utilities import prefect_test_harness

    with (
        prefect_test_harness(server_startup_timeout=120),
        temporary_settings({PREFECT_FLOWS_HEARTBEAT_FREQUENCY: None}),
    ):
        yield
