"""Photos that lie here, or are listed here, on their way through the same stages as those of a site."""

import gzip
import io
import re
import shutil
from collections import Counter
from collections.abc import Callable, Iterator
from datetime import UTC, datetime, timedelta
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from threading import Thread
from typing import Any, ClassVar

import numpy as np
import pytest
from PIL import Image

from flows.refresh import refresh_dataset
from storage import catalog, ledger, manifest
from storage.layout import Layout
from storage.records import Plan, SnapshotRef
from tasks import publish, web
from tasks.download import download
from tasks.errors import ConfigError
from tasks.pictures import imaging
from tasks.search import search
from tasks.sources.base import Query

pytestmark = pytest.mark.usefixtures("prefect_server")  # downloads look there for keys
ALL = {"min_long_px": 1, "min_short_px": 1, "aspect": None}
Photos = dict[str, dict[str, Any]]


def photo(seed: int) -> bytes:
    """A JPEG, 96 x 64, that is like no other."""
    blocks = np.random.default_rng(seed).integers(0, 256, (8, 12, 3), np.uint8)
    stream = io.BytesIO()
    Image.fromarray(blocks).resize((96, 64), Image.Resampling.BICUBIC).save(stream, "JPEG", quality=90)
    return stream.getvalue()


@pytest.fixture
def name(request: pytest.FixtureRequest) -> str:
    """A dataset of the test's own."""
    return re.sub(r"[^a-z0-9]+", "-", request.node.name.lower())[:60].strip("-")


@pytest.fixture
def tree(tmp_path: Path) -> Path:
    """Three classes of twenty photos, and a file that is none."""
    for number in range(60):
        file = tmp_path / "photos" / ("bee", "ant", "animal/cat")[number % 3] / f"{number}.jpg"
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_bytes(photo(number))
    (tmp_path / "photos/bee/broken.jpg").write_bytes(photo(1)[:300])
    return tmp_path / "photos"


def imported(root: Layout, dataset: str, source: str, query: Query) -> Photos:
    """Search and download without a flow; the photos of the ledger with how their download ended."""
    outcome = search.fn(source, query, None)
    for ref in (outcome.listings, outcome.windows):
        ledger.adopt(root, dataset, ref)
    wanted = catalog.wanted(root, dataset, datetime.now(UTC))
    ledger.adopt(root, dataset, download.fn(source, dataset, manifest.write(root, "wanted", wanted)))
    labels = {row["photo_id"]: row["label"] for row in catalog.tagged(root, dataset).to_pylist()}
    facts = catalog.facts(root, dataset).to_pylist()
    return {row["photo_id"]: row | {"label": labels[row["photo_id"]]} for row in facts}


def is_settled(root: Layout, dataset: str, source: str, query: Query) -> bool:
    """Whether another search, a day later, leaves nothing to download."""
    ledger.adopt(root, dataset, search.fn(source, query, None).listings)
    return catalog.wanted(root, dataset, datetime.now(UTC) + timedelta(days=1)).num_rows == 0


def test_a_tree_becomes_a_snapshot(root: Layout, tree: Path, name: str) -> None:
    """Every photo of a tree is published with its class, in all splits; a second refresh finds nothing new to do."""
    config = {"name": name, "source": "folder", "queries": [{"path": str(tree)}], "filter": ALL}
    first = refresh_dataset(dataset=config)
    assert isinstance(first, SnapshotRef)
    rows = {row["photo_id"]: row for row in publish.published(root, name, first.version).to_pylist()}
    kept = [row for row in rows.values() if row["verdict"]]
    assert Counter(row["label"] for row in kept) == {"bee": 20, "ant": 20, "animal/cat": 20}
    assert {row["licence"] for row in kept} == {"unstated"}
    assert Counter(row["split"] for row in kept).keys() == {"train", "val", "test"}
    assert (rows["bee/broken.jpg"]["verdict"], rows["bee/broken.jpg"]["reason_stage"]) == (False, "download")
    attempts = ledger.read(root, name, "attempts").num_rows
    second = refresh_dataset(dataset=config)
    assert isinstance(second, SnapshotRef)
    assert (second.version, second.is_new) == (first.version, False)
    assert ledger.read(root, name, "attempts").num_rows == attempts


def test_a_tree_can_be_planned(tree: Path, name: str) -> None:
    """All of its photos, without a call."""
    plan = refresh_dataset(
        dataset={"name": name, "source": "folder", "queries": [{"path": str(tree)}], "filter": ALL}, plan_only=True
    )
    assert isinstance(plan, Plan)
    assert (plan.photos, plan.calls) == (61, 0)


def test_fashion_mnist(root: Layout, shared: Path, tmp_path: Path, name: str) -> None:
    """Real pictures out of the files that they are published in: each has its own label, split and pixels."""
    folder = shared / "datasets" / "fashion-mnist"
    if not folder.is_dir():
        pytest.skip(f"no Fashion-MNIST at {folder}")
    for file in folder.glob("t10k-*"):
        shutil.copy(file, tmp_path)
    query = Query(path=str(tmp_path), limit=40)
    rows = imported(root, name, "folder", query)
    assert len(rows) == 40
    assert {row["download_reason"] for row in rows.values()} == {None}
    assert {tuple(row["tags"]) for row in rows.values()} == {("split:test",)}
    unpacked = {file.name: gzip.decompress(file.read_bytes()) for file in tmp_path.glob("*.gz")}
    for photo_id, row in rows.items():
        file, _, number = photo_id.partition("#")
        assert row["label"] == str(unpacked[file.replace("images-idx3", "labels-idx1")][8 + int(number)])
        body = root.blob(row["sha256"], "PNG").read_bytes()
        assert imaging.decode_grey(body, 1).tobytes() == unpacked[file][16 + int(number) * 784 :][:784]
    assert is_settled(root, name, "folder", query)


class Site(BaseHTTPRequestHandler):
    """Photos by number; /moved/<host>/... redirects there; /403.jpg wants sig=new."""

    asked: ClassVar[list[str]] = []

    def do_GET(self) -> None:
        self.asked.append(self.path)
        parts = self.path.split("?")[0].split("/")
        if parts[1] == "moved":
            self.send_response(302)
            self.send_header("Location", f"http://{parts[2]}/{parts[3]}")
            self.send_header("Content-Length", "0")
            self.end_headers()
            return
        if parts[1] == "403.jpg" and "sig=new" not in self.path:
            self.send_response(403)
            self.send_header("Content-Length", "0")
            self.end_headers()
            return
        body = photo(int(parts[1].partition(".")[0]))
        self.send_response(200)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, format: str, *arguments: object) -> None:
        """Nothing."""


@pytest.fixture
def site() -> Iterator[str]:
    """``host:port`` of a server."""
    Site.asked.clear()
    with ThreadingHTTPServer(("127.0.0.1", 0), Site) as server:
        thread = Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
        thread.start()
        yield f"127.0.0.1:{server.server_port}"
        server.shutdown()
        thread.join()


@pytest.fixture
def fresh_client(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """A client that tries once, and is closed behind the test."""
    monkeypatch.setattr(web, "LIMITS", web.Limits(retries=0))
    web.client.cache_clear()
    yield
    web.client().close()
    web.client.cache_clear()


def write(folder: Path, text: str) -> Path:
    """A table."""
    (folder / "t.csv").write_text(text)
    return folder / "t.csv"


@pytest.mark.usefixtures("fresh_client")
def test_a_table_of_urls_and_files(
    root: Layout, site: str, tmp_path: Path, name: str, environment: Callable[..., None]
) -> None:
    """URLs and files of one table end in the same rows, and neither is asked for twice."""
    environment(DARKROOM_IMAGE_HOSTS=site)
    (tmp_path / "7.jpg").write_bytes(photo(7))
    first, third = f"http://{site}/1.jpg?size=o", f"http://{site}/moved/{site}/2.jpg"
    table = write(tmp_path, f"url,label\n{first},a\n7.jpg,b\n{third},a\n,c\n")
    query = Query(path=str(table), hosts=("img.example.org",))
    rows = imported(root, name, "table", query)
    assert {key: (row["label"], row["download_reason"]) for key, row in rows.items()} == {
        first: ("a", None), "7.jpg": ("b", None), third: ("a", None),
    }  # fmt: skip
    for photo_id, seed in ((first, 1), ("7.jpg", 7), (third, 2)):
        assert root.blob(rows[photo_id]["sha256"], "JPEG").read_bytes() == photo(seed)
    assert Counter(Site.asked) == Counter(["/1.jpg?size=o", f"/moved/{site}/2.jpg", "/2.jpg"])
    assert is_settled(root, name, "table", query)


@pytest.mark.usefixtures("fresh_client")
def test_a_signature_is_kept_for_fetching_only(
    root: Layout, site: str, tmp_path: Path, name: str, environment: Callable[..., None]
) -> None:
    """A new export is no news: the same ids, nothing is asked for again but what was refused."""
    environment(DARKROOM_IMAGE_HOSTS=site)
    first, second, query = f"http://{site}/1.jpg?id=5", f"http://{site}/403.jpg", Query(path=str(tmp_path / "t.csv"))
    tables = []
    for signature in ("old", "new"):
        write(tmp_path, f"url\n{first}&X-Amz-Signature={signature}\n{second}?sig={signature}\n")
        tables.append(imported(root, name, "table", query))
        assert is_settled(root, name, "table", query)
    assert [(row["image_url"], row["download_reason"]) for row in tables[0].values()] == [
        (first, None), (second, "denied"),
    ]  # fmt: skip
    assert {photo_id: row["download_reason"] for photo_id, row in tables[1].items()} == {first: None, second: None}
    assert tables[0][first] == tables[1][first]
    assert Counter(Site.asked) == Counter(["/1.jpg?id=5&X-Amz-Signature=old", "/403.jpg?sig=old", "/403.jpg?sig=new"])
    attempts = ledger.read(root, name, "attempts").to_pylist()
    assert not any("ig=" in f"{row['photo_id']} {row['fetched_url']}" for row in attempts)


@pytest.mark.usefixtures("fresh_client")
def test_a_table_opens_no_way_into_this_network(root: Layout, site: str, tmp_path: Path, name: str) -> None:
    """A URL of this machine is refused, by number or name, unless the settings name it; so is every local file."""
    port = site.partition(":")[2]
    urls = [f"http://{site}/1.jpg", f"http://localhost:{port}/1.jpg", "http://169.254.169.254/latest/meta-data",
            f"http://[::1]:{port}/1.jpg", "http://127.1/1.jpg", "http://2130706433/1.jpg"]  # fmt: skip
    table = write(tmp_path, "\n".join(["url", *urls, "file:///etc/passwd", "/etc/passwd"]))
    rows = imported(root, name, "table", Query(path=str(table), hosts=("localhost", "127.0.0.1")))
    reasons = {key: row["download_reason"] for key, row in rows.items()}
    assert reasons.pop("file:///etc/passwd") == reasons.pop("/etc/passwd") == "no_image_url"
    assert set(reasons) == set(urls)
    assert set(reasons.values()) <= {"forbidden_host", "unavailable"}, reasons
    assert reasons[urls[0]] == reasons[urls[2]] == "forbidden_host"
    assert Site.asked == []


def test_a_file_that_was_written_over_is_taken_again(root: Layout, tree: Path, name: str) -> None:
    """The next search has the new picture in the place of the old one, under the same id; nothing else is read."""
    before = imported(root, name, "folder", Query(path=str(tree)))
    (tree / "bee/0.jpg").write_bytes(photo(999))
    (tree / "bee/broken.jpg").write_bytes(photo(998))
    attempts = ledger.read(root, name, "attempts").num_rows
    after = imported(root, name, "folder", Query(path=str(tree)))
    assert {key for key in after if after[key]["sha256"] != before[key]["sha256"]} == {"bee/0.jpg", "bee/broken.jpg"}
    assert ledger.read(root, name, "attempts").num_rows == attempts + 2


def test_folders_whose_photos_bear_the_same_names_are_refused(root: Layout, tree: Path, name: str) -> None:
    """One would take the other's place: the sentence names both, and what to do."""
    shutil.copytree(tree / "bee", tree / "ant2")
    queries = [{"path": str(tree / "bee"), "label": "bee"}, {"path": str(tree / "ant2"), "label": "ant"}]
    with pytest.raises(ConfigError, match=r"two queries have a photo '.*\.jpg', file://.*: make one query"):
        refresh_dataset(dataset={"name": name, "source": "folder", "queries": queries, "filter": ALL})
