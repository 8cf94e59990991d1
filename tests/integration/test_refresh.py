"""The refresh flow against the stand-in site, under a real Prefect server: what runs again, and what is refused."""

import json
import re
from collections import Counter
from collections.abc import Callable, Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import pytest

import flows.acquire
import flows.curate
import flows.refresh
from flows.refresh import refresh_dataset
from storage import catalog, ledger, manifest
from storage.layout import Layout
from storage.records import SPLITS, SnapshotRef
from tasks import publish, web
from tasks.dataset import Dataset
from tasks.errors import CredentialsRejected, EmptyResult, RootNotWritable, SourceUnavailable, TooFewPhotos
from tasks.sources import windows
from tasks.sources.standin import Catalogue, Keys, StandIn

pytestmark = pytest.mark.usefixtures("prefect_server")
KEY = "0123456789abcdef0123456789abcdef"
TASKS = (
    "search",
    "download",
    "measure",
    "filter_photos",
    "rotate",
    "dedup",
    "label_photos",
    "account_labels",
    "split",
    "audit_splits",
    "join_photos",
    "report_dataset",
)
FAST = web.Limits(retries=1, backoff_s=0.001, pauses=1, pause_s=0.01, api_per_s=1e4, api_burst=1000, images_per_s=1e4)
Ran = Counter[tuple[str, str]]
Point = Callable[..., None]


@pytest.fixture
def site(point: Point) -> Iterator[StandIn]:
    """A site with 60 small photos, and every kind of trouble among them."""
    with StandIn(Catalogue.synthetic(60, seed=3, min_long_px=144, max_long_px=162)) as running:
        point(running.url)
        yield running


@pytest.fixture
def point(monkeypatch: pytest.MonkeyPatch, environment: Callable[..., None]) -> Iterator[Point]:
    """Points the environment at a site; the client waits for next to nothing."""
    monkeypatch.setattr(web, "LIMITS", FAST)
    web.client.cache_clear()

    def at(url: str, key: str = KEY) -> None:
        environment(
            FLICKR_API_KEY=key, DARKROOM_FLICKR_URL=f"{url}/services/rest/", DARKROOM_IMAGE_HOSTS=urlsplit(url).netloc
        )

    yield at
    web.client().close()
    web.client.cache_clear()


@pytest.fixture
def ran(monkeypatch: pytest.MonkeyPatch) -> Ran:
    """How often each task of the refresh ended in which state; clear it between runs."""
    counted: Ran = Counter()
    for name in TASKS:
        room = next(room for room in (flows.acquire, flows.curate, flows.refresh) if hasattr(room, name))
        task = getattr(room, name)
        monkeypatch.setattr(
            room, name,
            task.with_options(on_completion=[lambda task, run, state, name=name: counted.update([(name, state.name)])]),
        )  # fmt: skip
    return counted


@pytest.fixture
def dataset(request: pytest.FixtureRequest) -> Dataset:
    """A dataset of the test's own over all photos of the site, in a window that is closed."""
    name = re.sub(r"[^a-z0-9]+", "-", request.node.name.lower())[:60].strip("-")
    return Dataset.model_validate(
        {
            "name": name,
            "queries": [
                {"uploaded_after": "2004-01-01T00:00:00Z", "uploaded_before": "2026-01-01T00:00:00Z", "label": name}
            ],
            "filter": {"min_long_px": 144, "min_short_px": 72},
        }
    )


def reopened(dataset: Dataset) -> Dataset:
    """The same dataset with a window that is still open, so that its last fortnight is asked each time."""
    query = dataset.queries[0].model_copy(update={"uploaded_before": None})
    return dataset.model_copy(update={"queries": (query,)})


def photos(root: Layout, snapshot: SnapshotRef) -> dict[str, dict[str, Any]]:
    return {row["photo_id"]: row for row in publish.published(root, snapshot.dataset, snapshot.version).to_pylist()}


def bodies(ran: Ran) -> dict[str, int]:
    """Tasks whose body ran, with how often."""
    return {name: count for (name, state), count in ran.items() if state != "Cached"}


def test_every_photo_of_the_site_is_published_or_rejected_with_its_reason(
    root: Layout, site: StandIn, dataset: Dataset
) -> None:
    """No photo is lost: each is in one split or has a reason, and each planted defect has its own."""
    found = photos(root, refresh_dataset(dataset))
    truth = {photo.id: photo for photo in site.catalogue.listed()}
    assert set(found) == set(truth)
    for photo_id, row in found.items():
        assert row["verdict"] == (row["reason"] is None) == (row["split"] in SPLITS), row
        if truth[photo_id].defect not in (None, "png_named_jpg"):  # what the bytes are counts, not what they are called
            assert row["reason_stage"] == "download", (truth[photo_id].defect, row["reason"])
    expected = {"truncated", "empty", "html", "too_many_pixels", "corrupt", "gone", "opted_out"}
    assert expected <= {row["reason"] for row in found.values()}


def test_a_split_divides_no_owner_and_no_duplicates(root: Layout, site: StandIn, dataset: Dataset) -> None:
    """What belongs together lies in one split."""
    kept = [row for row in photos(root, refresh_dataset(dataset)).values() if row["verdict"]]
    for column in ("owner_id", "duplicate_group", "group_id"):
        splits: dict[str, set[str]] = {}
        for row in kept:
            if row[column] is not None:
                splits.setdefault(row[column], set()).add(row["split"])
        assert all(len(names) == 1 for names in splits.values())


def test_a_rerun_runs_no_task(root: Layout, site: StandIn, dataset: Dataset, ran: Ran) -> None:
    """The second refresh of a closed window runs no body, asks the site nothing and publishes nothing."""
    first = refresh_dataset(dataset)
    asked = site.stats()["calls_total"], site.stats()["images_total"]
    ran.clear()
    second = refresh_dataset(dataset)
    assert bodies(ran) == {}
    assert set(ran.values()) == {1}
    assert (site.stats()["calls_total"], site.stats()["images_total"]) == asked
    assert (second.version, second.is_new) == (first.version, False)


def test_a_new_photo_touches_one_shard_of_each_stage(
    root: Layout, site: StandIn, dataset: Dataset, ran: Ran, monkeypatch: pytest.MonkeyPatch
) -> None:
    """One shard is measured and rotated again, all others are cached."""
    monkeypatch.setattr(flows.curate, "SHARD_PHOTOS", 12)
    dataset = reopened(dataset)
    refresh_dataset(dataset)
    before = Counter(name for name, _ in ran.elements())
    assert before["measure"] > 3
    ran.clear()
    site.catalogue.add(1, uploaded_at=datetime.now(UTC).replace(microsecond=0) - timedelta(days=1))
    snapshot = refresh_dataset(dataset)
    assert snapshot.version == 2
    for name in ("measure", "rotate"):
        assert 1 <= bodies(ran)[name] <= 2, "one shard, or the two that a full one was divided into"
        assert ran[name, "Cached"] >= before[name] - 1
    assert bodies(ran)["download"] == 1


def test_a_changed_title_runs_nothing_behind_it(
    root: Layout, site: StandIn, dataset: Dataset, ran: Ran, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Only the join that carries titles, and the report, run again; the snapshot has the new title."""
    monkeypatch.setattr(windows, "revisit_after", lambda age: timedelta(0))
    found = photos(root, refresh_dataset(dataset))
    photo_id = next(key for key, row in found.items() if row["verdict"])
    ran.clear()
    site.catalogue.retitle(photo_id, "Another title")
    snapshot = refresh_dataset(dataset)
    assert set(bodies(ran)) == {"search", "join_photos", "report_dataset"}
    assert photos(root, snapshot)[photo_id]["title"] == "Another title"


def test_a_failed_photo_is_tried_again(root: Layout, site: StandIn, dataset: Dataset, ran: Ran) -> None:
    """A photo that its host did not give today is a row with a reason, and is asked for by the next run, alone."""
    good = next(photo for photo in site.catalogue.listed() if photo.defect is None and photo.original_format == "jpg")
    site.faults.add([{"where": "image", "kind": "http_503", "match": f"/{good.id}_"}])
    first = photos(root, refresh_dataset(dataset))
    assert first[good.id]["reason"] == "unavailable"
    site.faults.clear()
    asked = site.stats()["images_total"]
    ran.clear()
    second = photos(root, refresh_dataset(dataset))
    assert second[good.id]["reason_stage"] != "download"
    assert site.stats()["images_total"] == asked + 1
    assert bodies(ran)["download"] == 1


def test_a_deleted_output_is_made_again_and_the_rest_stays_cached(
    root: Layout, site: StandIn, dataset: Dataset, ran: Ran
) -> None:
    """Deleting a stage's file costs that one task."""
    refresh_dataset(dataset)
    for file in (root.root / "stages" / "rotate").glob("*.parquet"):
        file.unlink()
    ran.clear()
    assert not refresh_dataset(dataset).is_new
    assert bodies(ran) == {"rotate": 1}


def test_a_deleted_photo_file_is_fetched_again(root: Layout, site: StandIn, dataset: Dataset) -> None:
    """The site is asked for that one file, and the dataset is as it was."""
    row = next(row for row in photos(root, refresh_dataset(dataset)).values() if row["verdict"])
    file = root.blob(row["sha256"], row["format"])
    data = file.read_bytes()
    file.unlink()
    asked = site.stats()["images_total"]
    assert not refresh_dataset(dataset).is_new
    assert file.read_bytes() == data
    assert site.stats()["images_total"] == asked + 1


def test_a_deleted_turned_file_is_made_again(root: Layout, site: StandIn, dataset: Dataset, ran: Ran) -> None:
    """A file that the rotate stage wrote comes back, byte for byte, without asking the site."""
    found = photos(root, refresh_dataset(dataset)).values()
    row = next(row for row in found if row["blob"] is not None and row["blob"] != row["sha256"])
    file = root.blob(row["blob"], row["format"])
    data = file.read_bytes()
    file.unlink()
    ran.clear()
    assert not refresh_dataset(dataset).is_new
    assert file.read_bytes() == data
    assert bodies(ran) == {"rotate": 1}


def test_what_was_fetched_before_a_failure_is_kept(
    root: Layout, site: StandIn, dataset: Dataset, ran: Ran, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A refresh whose image host goes away in the middle keeps what it has; the next one asks for the rest only."""
    for name, value in (("MIN_BATCH_PHOTOS", 10), ("FULL_BATCH_PHOTOS", 10), ("BATCHES", 9)):
        monkeypatch.setattr(flows.acquire, name, value)
    monkeypatch.setattr(flows.acquire, "download", flows.acquire.download.with_options(retries=0))
    photo_ids = sorted(photo.id for photo in site.catalogue.listed())
    for photo_id in photo_ids[-20:]:
        site.faults.add([{"where": "image", "kind": "http_503", "match": f"/{photo_id}_"}])
    with pytest.raises(SourceUnavailable, match="could be fetched"):
        refresh_dataset(dataset)
    held = catalog.held(root, dataset.name).num_rows
    assert held > 20
    site.faults.clear()
    web.client.cache_clear()  # a later run, in another process
    asked = site.stats()["images"].get("200", 0)
    found = photos(root, refresh_dataset(dataset))
    assert set(found) == set(photo_ids)
    assert site.stats()["images"]["200"] - asked <= 40, "photos that were held are not asked for again"


def test_changed_rules_measure_nothing_again(root: Layout, site: StandIn, dataset: Dataset, ran: Ran) -> None:
    """Thresholds are applied to what was measured."""
    refresh_dataset(dataset)
    ran.clear()
    rules = dataset.filter.model_copy(update={"aspect": None})
    assert refresh_dataset(dataset.model_copy(update={"filter": rules})).version == 2
    assert not {"search", "download", "measure", "rotate"} & set(bodies(ran))


def test_an_empty_search_says_so(root: Layout, site: StandIn, dataset: Dataset) -> None:
    """One sentence, and no snapshot."""
    query = dataset.queries[0].model_copy(update={"text": "nobody ever wrote this"})
    with pytest.raises(EmptyResult, match="no photo was found"):
        refresh_dataset(dataset.model_copy(update={"queries": (query,)}))
    assert catalog.versions(root, dataset.name) == []


def test_a_filter_that_keeps_nothing_says_so(root: Layout, site: StandIn, dataset: Dataset) -> None:
    """The sentence names the dataset and its rules; nothing is published."""
    rules = dataset.filter.model_copy(update={"min_long_px": 90_000})
    with pytest.raises(EmptyResult, match=r"keeps none of .* photos .*min_long_px 90000"):
        refresh_dataset(dataset.model_copy(update={"filter": rules}))
    assert catalog.versions(root, dataset.name) == []


def test_too_few_photos_to_split_says_so(root: Layout, site: StandIn, dataset: Dataset) -> None:
    """Two groups cannot fill three splits."""
    owner = Counter(photo.owner.nsid for photo in site.catalogue.listed() if photo.defect is None).most_common(1)[0][0]
    for photo in site.catalogue.listed():
        if photo.owner.nsid != owner:
            site.catalogue.delete(photo.id)
    with pytest.raises(TooFewPhotos, match="split"):
        refresh_dataset(dataset)
    assert catalog.versions(root, dataset.name) == []


@pytest.mark.parametrize(("key", "words"), [("", "flickr.com/services"), ("short", "malformed"), ("f" * 32, "expired")])
def test_a_bad_key_ends_the_run_before_any_work(
    root: Layout, point: Point, dataset: Dataset, key: str, words: str
) -> None:
    """A missing, malformed or expired key: one sentence, no listing, no image request."""
    with StandIn(
        Catalogue.synthetic(5, min_long_px=144, max_long_px=162), keys=Keys(expired=frozenset({"f" * 32}))
    ) as site:
        point(site.url, key)
        with pytest.raises(CredentialsRejected, match=words) as refusal:
            refresh_dataset(dataset)
        assert site.stats()["images_total"] == 0
    assert "\n" not in str(refusal.value)
    assert not key or key not in str(refusal.value)
    assert not root.dataset(dataset.name).exists()


def test_a_key_may_lie_in_a_secret_block(root: Layout, site: StandIn, dataset: Dataset, point: Point) -> None:
    """Without a key in the environment, the block of the Prefect server opens the site."""
    from prefect.blocks.system import Secret

    point(site.url, "")
    block = Secret(value=KEY).save("flickr-api-key", _sync=True)
    try:
        assert refresh_dataset(dataset).version == 1
    finally:
        Secret.delete("flickr-api-key", _sync=True)
    assert block


def test_a_site_that_cannot_be_reached_says_so(
    root: Layout, point: Point, dataset: Dataset, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The host is named, and nothing is kept."""
    quick = flows.acquire.search.with_options(retries=0)
    monkeypatch.setattr(flows.acquire, "search", quick)
    point("http://127.0.0.1:9")
    with pytest.raises(SourceUnavailable, match=r"127\.0\.0\.1:9"):
        refresh_dataset(dataset)
    assert ledger.read(root, dataset.name, "listings").num_rows == 0


def test_a_root_that_cannot_be_written_says_so(
    site: StandIn, dataset: Dataset, tmp_path: Path, environment: Callable[..., None]
) -> None:
    """Before any request."""
    (tmp_path / "root").write_text("a file")
    environment(DARKROOM_ROOT=str(tmp_path / "root"))
    with pytest.raises(RootNotWritable, match="DARKROOM_ROOT"):
        refresh_dataset(dataset)
    assert site.stats()["calls_total"] == 0


def test_an_unknown_field_is_refused_by_name(dataset: Dataset) -> None:
    """A dataset with a misspelt key is no dataset."""
    from prefect.exceptions import ParameterTypeError

    with pytest.raises(ParameterTypeError, match="min_longest"):
        refresh_dataset(dataset={**dataset.rules, "filter": {"min_longest": 3}})


def test_secrets_are_nowhere(root: Layout, site: StandIn, dataset: Dataset, caplog: pytest.LogCaptureFixture) -> None:
    """The key is in no manifest, no ledger, no card and no log."""
    site.faults.add([{"where": "api", "kind": "http_500", "times": 1}])
    snapshot = refresh_dataset(dataset)
    assert KEY not in caplog.text
    assert KEY not in json.dumps(catalog.card(root, snapshot.dataset, snapshot.version))
    for kind in ledger.KINDS:
        assert KEY not in str(ledger.read(root, dataset.name, kind).to_pylist())
    assert KEY not in str(manifest.read_file(Path(snapshot.uri) / "rejected.parquet").to_pylist())
