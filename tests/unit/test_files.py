"""What the file server shows, and what it keeps to itself."""

import threading
from collections.abc import Iterator
from functools import partial
from http.server import ThreadingHTTPServer
from pathlib import Path

import pytest
import requests

from flows.files import Files, is_served

SERVED = (
    "/datasets/crops/snapshots/00001/report.html",
    "/datasets/crops/snapshots/00001/train.parquet",
    "/datasets/crops/snapshots/00001/ATTRIBUTION.csv",
    "/runs/0123456789abcdef/report.html",
    "/runs/0123456789abcdef/report.html?again=1#loss",
    "/runs/a%20b/evaluation.json",
)
KEPT = (
    "/",
    "",
    "/datasets",
    "/datasets/",
    "/datasets/crops/snapshots/00001/",
    "/datasets/crops/ledger/listings/0.parquet",
    "/datasets/crops/led%67er/listings/0.parquet",
    "/datasets/crops/LEDGER/listings/0.parquet",
    "/datasets/crops/snapshots/.00002.part/train.parquet",
    "/runs/r/.predictions.parquet",
    "/runs/r/train.log",
    "/runs/r/checkpoint/step-1/weights.safetensors",
    "/blobs/ab/cd/abcd.jpg",
    "/blobs/report.html",
    "/cache/report.json",
    "/prefect/prefect.db",
    "/prefect/running.json",
    "/stages/report/0.html",
    "/packs/0/pack.json",
    "/runs/../prefect/running.json",
    "/runs/%2e%2e/prefect/running.json",
    "/runs/%2E%2E/%2e%2e/etc/hosts.json",
    "/runs%2f..%2fprefect%2frunning.json",
    "/../runs/report.html",
    "runs/../../x.json",
)


@pytest.mark.parametrize("path", SERVED)
def test_snapshots_and_runs_are_shown(path: str) -> None:
    """Reports, tables and pictures of snapshots and runs."""
    assert is_served(path)


@pytest.mark.parametrize("path", KEPT)
def test_everything_else_is_not(path: str) -> None:
    """No ledger, blob, database, cache, hidden file or folder, and no way up, however it is spelt."""
    assert not is_served(path)


@pytest.fixture
def site(tmp_path: Path) -> Iterator[tuple[str, Path]]:
    """The server over a data root with one report and one secret."""
    for name in ("runs/r/report.html", "prefect/running.json", "datasets/d/ledger/listings/0.parquet"):
        (tmp_path / name).parent.mkdir(parents=True)
        (tmp_path / name).write_text(name)
    server = ThreadingHTTPServer(("127.0.0.1", 0), partial(Files, directory=str(tmp_path)))
    thread = threading.Thread(target=server.serve_forever, args=(0.01,))
    thread.start()
    yield f"http://127.0.0.1:{server.server_address[1]}", tmp_path
    server.shutdown()
    server.server_close()
    thread.join()


def test_over_real_http(site: tuple[str, Path]) -> None:
    """The report comes, the rest is 404 whatever it is called on the wire; the root says that somebody is there."""
    url, _ = site
    report = requests.get(f"{url}/runs/r/report.html", timeout=10)
    assert (report.status_code, report.text) == (200, "runs/r/report.html")
    assert report.headers["Content-Type"] == "text/html"
    assert requests.get(f"{url}/", timeout=10).ok
    for path in (*KEPT[2:], "/runs/r/missing.html", "//prefect/running.json"):
        request = requests.Request("GET", url).prepare()
        request.url = f"{url}/{path.removeprefix('/')}"  # as it is: requests would tidy the dots away
        with requests.Session() as session:
            assert session.send(request, timeout=10).status_code == 404, path


def test_head_has_no_body(site: tuple[str, Path]) -> None:
    """HEAD asks whether it is there, not for it."""
    answer = requests.head(f"{site[0]}/runs/r/report.html", timeout=10)
    assert (answer.status_code, answer.headers["Content-Length"]) == (200, "18")
    assert requests.head(f"{site[0]}/prefect/running.json", timeout=10).status_code == 404
