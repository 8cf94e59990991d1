"""A client that others wrote lists and downloads a search of the stand-in site.

So the site and our own client cannot share one misreading of the wire format. gallery-dl is installed from the package
index into an environment of its own and runs there as a foreign program.
"""

import hashlib
import json
import subprocess
import sys
import venv
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from tasks.sources.standin import Catalogue, StandIn

REQUIREMENT = "gallery-dl==1.32.9"
KEY = "0123456789abcdef0123456789abcdef"
URL_MESSAGE = 3  # in --dump-json: [3, url, facts]

# Only where it looks for the API; how it asks, reads, pages and downloads stays its own.
RUNNER = """
import sys
from gallery_dl.extractor import flickr
import gallery_dl
flickr.FlickrAPI.API_URL = sys.argv.pop(1)
flickr.FlickrAPI.API_KEY = None
sys.exit(gallery_dl.main())
"""


@dataclass(frozen=True)
class ForeignClient:
    """gallery-dl in its own environment."""

    python: Path
    runner: Path
    config: Path

    def run(self, site: StandIn, *arguments: str, folder: Path) -> str:
        """Its standard output; fails the test with its log if it reports an error."""
        command = [self.python, self.runner, site.api_url, "--config-ignore", "--config", self.config, *arguments]
        done = subprocess.run(command, capture_output=True, text=True, timeout=120, cwd=folder)
        assert done.returncode == 0, done.stderr
        return done.stdout


@pytest.fixture(scope="module")
def client(tmp_path_factory: pytest.TempPathFactory) -> ForeignClient:
    """A fresh environment with gallery-dl; skips where the package index cannot be reached."""
    folder = tmp_path_factory.mktemp("gallery-dl")
    venv.create(folder / "venv", with_pip=False)
    python = folder / "venv" / ("Scripts" if sys.platform == "win32" else "bin") / "python"
    command = [sys.executable, "-m", "pip", "--python", python, "install", "--quiet", "--retries", "1", REQUIREMENT]
    installed = subprocess.run(command, capture_output=True, text=True, timeout=300)
    if installed.returncode:
        pytest.skip(f"pip could not install {REQUIREMENT}: {installed.stderr.strip().splitlines()[-1:]}")
    runner, config = folder / "runner.py", folder / "config.json"
    runner.write_text(RUNNER)
    settings = {"api-key": KEY, "sleep-request": 0, "metadata": True, "filename": "{id}.{extension}", "directory": []}
    config.write_text(json.dumps({"extractor": {"flickr": settings}, "cache": {"file": None}}))
    return ForeignClient(python, runner, config)


@pytest.fixture(scope="module")
def site() -> Iterator[StandIn]:
    """300 small photos, none of them broken, so that a search for a common word fills several pages."""
    catalogue = Catalogue.synthetic(300, seed=9, min_long_px=240, max_long_px=240)
    for photo in catalogue.photos():
        if photo.defect or not photo.is_original_public:
            catalogue.delete(photo.id)
        else:
            catalogue.change(photo.id, tags=(*photo.tags, "everything"))
    with StandIn(catalogue) as running:
        yield running


@pytest.mark.network
def test_it_lists_what_there_is(client: ForeignClient, site: StandIn, tmp_path: Path) -> None:
    """Ids, titles, owners, tags, dates, sizes and addresses of a search of three pages are the catalogue's."""
    output = client.run(site, "--dump-json", "https://www.flickr.com/search/?text=everything", folder=tmp_path)
    rows: dict[str, Any] = {str(m[2]["id"]): m for m in json.loads(output) if m[0] == URL_MESSAGE}
    truth = {photo.id: photo for photo in site.catalogue.listed()}
    assert len(truth) > 200
    assert set(rows) == set(truth)
    for photo_id, photo in truth.items():
        _, url, facts = rows[photo_id]
        assert (facts["title"], facts["tags"]) == (photo.title, list(photo.tags))
        assert (facts["owner"]["nsid"], facts["owner"]["username"]) == (photo.owner.nsid, photo.owner.username)
        assert facts["date"] == f"{photo.uploaded_at:%Y-%m-%d %H:%M:%S}"
        assert (facts["width"], facts["height"]) == (photo.width, photo.height)
        assert url.endswith(f"/{photo.id}_{photo.original_secret}_o.{photo.original_format}")
    assert site.stats()["calls"] == {"flickr.photos.search": 3}


@pytest.mark.network
def test_it_downloads_the_very_bytes(client: ForeignClient, site: StandIn, tmp_path: Path) -> None:
    """Every original of a search arrives byte for byte, and nothing else does."""
    client.run(site, "--dest", str(tmp_path / "got"), "https://www.flickr.com/search/?text=travel", folder=tmp_path)
    truth = {photo.id: photo for photo in site.catalogue.listed() if "travel" in photo.tags}
    files = {path.stem: path for path in (tmp_path / "got").rglob("*") if path.is_file()}
    assert len(truth) > 5
    assert set(files) == set(truth)
    for photo_id, path in files.items():
        assert hashlib.sha256(path.read_bytes()).digest() == hashlib.sha256(site.catalogue.original(photo_id)).digest()
        assert path.suffix == f".{truth[photo_id].original_format}"
