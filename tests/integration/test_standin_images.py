"""The stand-in site over real HTTP: its image host, scripted faults, back door and command line."""

import io
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from typing import Any

import pytest
import requests
from PIL import Image

from tasks.sources.standin import Catalogue, Fault, HostHabits, Photo, StandIn
from tasks.sources.standin.server import scripted

KEY = "0123456789abcdef0123456789abcdef"
EXTRAS = "url_o,url_sq"


@pytest.fixture(scope="module")
def site() -> Iterator[StandIn]:
    """A site of 120 small photos that no test changes."""
    catalogue = Catalogue.synthetic(120, seed=4, min_long_px=360, max_long_px=360)
    with StandIn(catalogue) as running:
        yield running


@pytest.fixture
def own_site() -> Iterator[StandIn]:
    """A site for one test: 8 photos, 5 calls an hour."""
    with StandIn(Catalogue.synthetic(8, min_long_px=360, max_long_px=360), quota_per_hour=5) as running:
        yield running


@pytest.fixture(scope="module")
def http() -> Iterator[requests.Session]:
    """One client that keeps its connections open."""
    with requests.Session() as session:
        yield session


def _ask(http: requests.Session, site: StandIn, method: str = "flickr.photos.search", **args: Any) -> Any:
    """The JSON answer to one call."""
    fixed = {"method": method, "api_key": KEY, "format": "json", "nojsoncallback": "1"}
    return http.get(site.api_url, params=fixed | args, timeout=10).json()


def _ids(reply: Any) -> list[str]:
    return [row["id"] for row in reply["photos"]["photo"]]


def _one(site: StandIn, **facts: object) -> Photo:
    """The first photo with these facts."""
    return next(p for p in site.catalogue.photos() if all(getattr(p, name) == value for name, value in facts.items()))


def _row(http: requests.Session, site: StandIn, photo: Photo) -> dict[str, Any]:
    """The listing row of one photo, with its addresses."""
    stamp = str(int(photo.uploaded_at.timestamp()))
    reply = _ask(http, site, min_upload_date=stamp, max_upload_date=stamp, extras=EXTRAS)
    return next(row for row in reply["photos"]["photo"] if row["id"] == photo.id)


def test_files_are_the_truth_in_every_size(site: StandIn, http: requests.Session) -> None:
    """The original is byte for byte the catalogue's; each smaller size has the size that was listed, upright."""
    photo = _one(site, orientation=6)
    sizes = _ask(http, site, "flickr.photos.getSizes", photo_id=photo.id)["sizes"]["size"]
    for size in sizes[:-1]:
        image = Image.open(io.BytesIO(http.get(size["source"], timeout=10).content))
        assert image.size == (int(size["width"]), int(size["height"]))
    assert http.get(sizes[-1]["source"], timeout=10).content == site.catalogue.original(photo.id)


def test_file_headers(site: StandIn, http: requests.Session) -> None:
    """Chunked without a length, a strong ETag that answers 304, the byte count aside, ranges, and a name with _d."""
    photo = _one(site, defect=None, original_format="jpg")
    url, truth = _row(http, site, photo).get("url_o", ""), site.catalogue.original(photo.id)
    reply = http.get(url, timeout=10)
    assert "Content-Length" not in reply.headers
    assert reply.headers["Content-Type"] == "image/jpeg"
    assert int(reply.headers["x-ttdb-l"]) == len(truth)
    etag = reply.headers["ETag"]
    assert http.get(url, headers={"If-None-Match": etag}, timeout=10).status_code == 304
    part = http.get(url, headers={"Range": "bytes=100-199", "If-Range": etag}, timeout=10)
    assert (part.status_code, part.content) == (206, truth[100:200])
    assert http.get(url, headers={"Range": f"bytes={len(truth)}-"}, timeout=10).status_code == 416
    named = http.get(url.replace("_o.jpg", "_o_d.jpg"), timeout=10)
    assert named.headers["Content-Disposition"].endswith(f"filename={url.rpartition('/')[2]}")
    assert named.content == truth
    site.images.habits = HostHabits(sends_length=True)
    assert int(http.head(url, timeout=10).headers["Content-Length"]) == len(truth)
    site.images.habits = HostHabits()


def test_wrong_addresses_are_404(site: StandIn, http: requests.Session) -> None:
    """A wrong secret, size, extension or server is not found: an empty page of HTML."""
    photo = _one(site, defect=None, original_format="jpg", orientation=1)
    base = f"{site.image_host}/{photo.server}/{photo.id}"
    good = f"{base}_{photo.secret}_m.jpg"
    assert http.get(good, timeout=10).status_code == 200
    for bad in (
        f"{base}_{'0' * 10}_m.jpg",
        f"{base}_{photo.secret}_o.jpg",
        f"{base}_{photo.secret}_k.jpg",
        good.replace(".jpg", ".png"),
        good.replace("/65535/", "/65534/"),
        f"{site.url}/../../etc/passwd",
    ):
        reply = http.get(bad, timeout=10)
        assert (reply.status_code, reply.content) == (404, b"")


def test_defects_on_the_wire(site: StandIn, http: requests.Session) -> None:
    """A missing file is 404, HTML comes with status 200, an opt-out stands in a header."""
    by_defect = {p.defect: _row(http, site, p)["url_o"] for p in site.catalogue.listed() if p.defect}
    assert http.get(by_defect["missing"], timeout=10).status_code == 404
    page = http.get(by_defect["html"], timeout=10)
    assert (page.status_code, page.headers["Content-Type"]) == (200, "text/html; charset=utf-8")
    assert http.get(by_defect["noimageai"], timeout=10).headers["X-Robots-Tag"] == "noimageai"
    assert http.get(by_defect["zero_bytes"], timeout=10).content == b""
    assert http.get(by_defect["png_named_jpg"], timeout=10).content.startswith(b"\x89PNG")


def test_deleted_replaced_and_private_files(own_site: StandIn, http: requests.Session) -> None:
    """A deleted photo's file may still answer; a replaced one's old address ends; a private one's goes on."""
    kept, gone, replaced, private, *_ = own_site.catalogue.photos()
    urls = [f"{own_site.url}/{p.server}/{p.id}_{p.original_secret}_o.jpg" for p in (kept, gone, replaced, private)]
    own_site.catalogue.delete(kept.id, keep_file=True)
    own_site.catalogue.delete(gone.id)
    own_site.catalogue.replace_file(replaced.id)
    own_site.catalogue.make_private(private.id)
    assert [http.get(url, timeout=10).status_code for url in urls] == [200, 404, 404, 200]


def test_the_image_host_limits_by_address_and_agent(own_site: StandIn) -> None:
    """The third file of two is 429 with Retry-After; another User-Agent has a count of its own."""
    own_site.images.habits = HostHabits(limit=(2, 60), retry_after_s=7)
    photo = own_site.catalogue.photos()[0]
    url = f"{own_site.url}/{photo.server}/{photo.id}_{photo.secret}_m.jpg"
    replies = [requests.get(url, headers={"User-Agent": agent}, timeout=10) for agent in ("a", "a", "a", "b")]
    assert [reply.status_code for reply in replies] == [200, 200, 429, 200]
    assert replies[2].headers["Retry-After"] == "7"


@pytest.mark.parametrize(
    ("kind", "expected"),
    [
        ("code_105", '"code": 105'),
        ("code_201", "not currently available"),
        ("code_10", '"code": 10'),
        ("half_body", '{"'),
        ("html", "<html>"),
        ("trailing_comma", ",}"),
        ("http_502", "<h1>502</h1>"),
    ],
)
def test_api_faults_by_script(own_site: StandIn, http: requests.Session, kind: str, expected: str) -> None:
    """A scripted fault strikes as often as it says and then everything is right again."""
    rules = scripted([Fault("api", kind, times=1, match="echo")])
    assert http.post(f"{own_site.url}/_standin/faults", json=rules, timeout=10).status_code == 200
    params = {"method": "flickr.test.echo", "api_key": KEY, "format": "json", "nojsoncallback": "1"}
    first, second = (http.get(own_site.api_url, params=params, timeout=10) for _ in range(2))
    assert expected in first.text
    assert second.json()["stat"] == "ok"
    assert own_site.stats()["faults"] == {f"api.{kind}": 1}


@pytest.mark.parametrize("where", ["api", "image"])
def test_resets_and_stalls_break_the_connection(own_site: StandIn, where: str) -> None:
    """A reset ends in a connection error at once, a stall in the client's time-out."""
    photo = own_site.catalogue.photos()[0]
    url = own_site.api_url if where == "api" else f"{own_site.url}/{photo.server}/{photo.id}_{photo.secret}_m.jpg"
    own_site.faults.add(scripted([Fault(where, "reset", times=1)]))
    with pytest.raises(requests.ConnectionError):
        requests.get(url, timeout=10)
    own_site.faults.add(scripted([Fault(where, "stall", times=1)]))
    with pytest.raises(requests.ReadTimeout):
        requests.get(url, timeout=0.2)
    assert requests.get(url, timeout=10).status_code == 200


def test_image_faults_by_script(own_site: StandIn, http: requests.Session) -> None:
    """Cut streams, redirects, spoilt bytes, opt-outs and slow drips, each until the script is taken back."""
    photo = own_site.catalogue.photos()[0]
    url = f"{own_site.url}/{photo.server}/{photo.id}_{photo.original_secret}_o.jpg"
    truth = own_site.catalogue.original(photo.id)

    def under(kind: str, **settings: Any) -> requests.Response:
        requests.delete(f"{own_site.url}/_standin/faults", timeout=10)
        own_site.faults.add(scripted([Fault("image", kind, match=photo.id, **settings)]))
        return http.get(url, timeout=10, allow_redirects=kind != "http_429")

    with pytest.raises(requests.exceptions.ChunkedEncodingError):
        under("truncated_stream")
    assert under("zero_bytes").content == b""
    assert Image.open(io.BytesIO(under("png_named_jpg").content)).format == "PNG"
    assert under("noimageai").headers["X-Robots-Tag"] == "noimageai"
    assert under("slow_drip", seconds=0.2).content == truth
    redirected = under("redirect_unavailable")
    assert redirected.url.endswith("photo_unavailable.jpg")
    limited = under("http_429", retry_after_s=3)
    assert (limited.status_code, limited.headers["Retry-After"]) == (429, "3")
    requests.delete(f"{own_site.url}/_standin/faults", timeout=10)
    assert http.get(url, timeout=10).content == truth


def test_fault_rates_are_shares_and_repeat(own_site: StandIn) -> None:
    """A rate of 0.3 strikes about three requests in ten, the same ones in every run; unknown kinds are refused."""

    def struck() -> list[bool]:
        own_site.faults.clear()
        own_site.faults.add([{"where": "image", "kind": "http_500", "rate": 0.3, "seed": 1}])
        return [own_site.faults.draw("image", "/1/2", f"/1/{k}") is not None for k in range(300)]

    first = struck()
    assert 60 <= sum(first) <= 120
    assert struck() == first
    bad = requests.post(f"{own_site.url}/_standin/faults", json=[{"where": "api", "kind": "rain"}], timeout=10)
    assert (bad.status_code, "rain" in bad.json()["error"]) == (400, True)


def test_another_process_may_change_the_world(own_site: StandIn, http: requests.Session) -> None:
    """The back door retitles, adds and deletes, shows the truth, and refuses what it does not know."""
    photo = own_site.catalogue.photos()[0]
    door = f"{own_site.url}/_standin/change"
    http.post(door, json={"action": "retitle", "arguments": [photo.id, "New"]}, timeout=10)
    added = http.post(door, json={"action": "add", "arguments": [2]}, timeout=10).json()
    truth = http.get(f"{own_site.url}/_standin/photos", timeout=10).json()
    assert truth[0]["title"] == "New"
    assert [row["id"] for row in truth[-2:]] == [row["id"] for row in added]
    assert http.post(door, json={"action": "__init__"}, timeout=10).status_code == 400


def _start(*arguments: str) -> subprocess.Popen[str]:
    command = [sys.executable, "-m", "tasks.sources.standin", *arguments]
    return subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)


def test_the_command_line_serves_until_it_is_told(http: requests.Session) -> None:
    """One READY line, its quota and its key as asked, exit 0 on SIGTERM."""
    with _start("--synthetic", "6", "--quota", "2", "--key", "a" * 32) as process:
        assert process.stdout is not None
        ready, url = process.stdout.readline().split()
        assert ready == "READY"
        params = {"method": "flickr.test.echo", "api_key": KEY, "format": "json", "nojsoncallback": "1"}
        replies = [http.get(f"{url}/services/rest/", params=params, timeout=10) for _ in range(3)]
        process.send_signal(signal.SIGTERM)
        assert process.wait(10) == 0
        assert process.stdout.read() == ""
    assert [reply.status_code for reply in replies] == [200, 200, 429]
    assert replies[0].json()["code"] == 100


def test_it_ends_with_its_parent() -> None:
    """A site whose parent was killed is gone within seconds."""
    parent = (
        "import subprocess, sys; "
        "command = [sys.executable, '-m', 'tasks.sources.standin', '--synthetic', '2']; "
        "p = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True); "
        "print(p.pid, p.stdout.readline(), flush=True)"
    )
    output = subprocess.run([sys.executable, "-c", parent], capture_output=True, text=True, timeout=30).stdout
    pid, url = int(output.split()[0]), output.split()[2]
    deadline = time.monotonic() + 10
    while time.monotonic() < deadline:
        try:
            requests.get(f"{url}/_standin/stats", timeout=1)
        except requests.ConnectionError:
            return
        time.sleep(0.1)
    os.kill(pid, signal.SIGKILL)
    pytest.fail("the site outlived its parent")


def test_a_missing_folder_is_one_sentence() -> None:
    """The command line names the folder and fails; no traceback."""
    with _start("--photos", "no/such/folder") as process:
        _, errors = process.communicate(timeout=30)
    assert process.returncode == 2
    assert "no/such/folder" in errors
    assert "Traceback" not in errors


def test_it_needs_neither_prefect_nor_torch() -> None:
    """Importing the site loads none of the two."""
    code = "import sys, tasks.sources.standin; print(sorted({'prefect', 'torch'} & set(sys.modules)))"
    assert subprocess.run([sys.executable, "-c", code], capture_output=True, text=True).stdout.strip() == "[]"
