"""The audit flow against the stand-in site, under a real Prefect server: what it proves; that nothing comes back."""

import html
import json
import shutil
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import datetime, timedelta, tzinfo
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import pytest
from prefect.client.orchestration import get_client
from prefect.client.schemas.filters import ArtifactFilter, ArtifactFilterKey

import flows.audit
import tasks.audit
from flows.audit import audit_dataset
from flows.refresh import refresh_dataset
from storage import catalog, ledger, licences, manifest, removals
from storage.layout import Layout
from storage.records import SnapshotRef
from storage.settings import settings
from tasks import web
from tasks.dataset import Dataset
from tasks.errors import ConfigError, CredentialsRejected, GateRefused, SourceChanged, SourceUnavailable
from tasks.publish import published
from tasks.sources.standin import Catalogue, StandIn
from tasks.sources.standin.facts import Owner, Photo

pytestmark = pytest.mark.usefixtures("prefect_server")
KEY = "0123456789abcdef0123456789abcdef"
FAST = web.Limits(retries=1, backoff_s=0.001, pauses=1, pause_s=0.01, api_per_s=1e4, api_burst=1000, images_per_s=1e4)
ANN = Owner(nsid="77777777@N07", username="Ann Unmistakable", realname="Ann Only Example", path_alias="annunmistakable")


@pytest.fixture(scope="module")
def running() -> Iterator[StandIn]:
    """A site with 24 small photos, one of them Ann's."""
    with StandIn(Catalogue.synthetic(24, seed=11, min_long_px=144, max_long_px=162)) as site:
        portrait = next(
            photo for photo in site.catalogue.listed()
            if photo.defect is None and photo.original_format == "jpg" and photo.duplicate_of is None
            and photo.is_original_public and photo.width * 2 == photo.height * 3
        )  # fmt: skip
        site.catalogue.change(portrait.id, title="An unmistakable title", owner=ANN)
        yield site


@contextmanager
def pointed(site: StandIn, root: Path) -> Iterator[None]:
    """The environment points at ``site``, and all is kept below ``root``; the client waits for next to nothing."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(web, "LIMITS", FAST)
        for name, value in {
            "DARKROOM_ROOT": str(root), "FLICKR_API_KEY": KEY, "DARKROOM_FLICKR_URL": f"{site.url}/services/rest/",
            "DARKROOM_IMAGE_HOSTS": urlsplit(site.url).netloc,
        }.items():  # fmt: skip
            patch.setenv(name, value)
        for cached in (settings, web.client):
            cached.cache_clear()
        yield
        web.client().close()
    for cached in (settings, web.client):
        cached.cache_clear()


@pytest.fixture(scope="module")
def refreshed(running: StandIn, tmp_path_factory: pytest.TempPathFactory, prefect_server: None) -> Path:
    """A root with the dataset ``town`` over all photos of the site, for the tests to copy."""
    root = tmp_path_factory.mktemp("refreshed")
    with pointed(running, root):
        refresh("town")
    return root


@pytest.fixture
def site(running: StandIn, refreshed: Path, where: Layout) -> Iterator[StandIn]:
    """The site as it was when ``town`` was refreshed; whatever a test changes is taken back."""
    before = running.catalogue.photos()
    with pointed(running, where.root):
        yield running
    running.faults.clear()
    for photo in running.catalogue.photos():
        running.catalogue.delete(photo.id)
    running.catalogue.put(before)


@pytest.fixture
def where(refreshed: Path, tmp_path: Path) -> Layout:
    """A root of the test's own in which ``town`` was refreshed: removals hold for all datasets of a root."""
    shutil.copytree(refreshed, tmp_path, dirs_exist_ok=True)
    return Layout(tmp_path)


@pytest.fixture
def ann(site: StandIn) -> Photo:
    """A photo that is kept, whose words and owner are no other photo's; its file was turned."""
    return next(photo for photo in site.catalogue.listed() if photo.owner == ANN)


def dataset(name: str, label: str | None = None) -> Dataset:
    """A dataset over all photos of the site, in a window that is closed."""
    query = {"uploaded_after": "2004-01-01T00:00:00Z", "uploaded_before": "2026-01-01T00:00:00Z", "label": label}
    rules = {"min_long_px": 144, "min_short_px": 72}
    return Dataset.model_validate({"name": name, "queries": [query], "filter": rules})


def refresh(name: str, label: str | None = None) -> SnapshotRef:
    snapshot = refresh_dataset(dataset(name, label))
    assert isinstance(snapshot, SnapshotRef)
    return snapshot


def rows(where: Layout, name: str, version: int) -> dict[str, dict[str, Any]]:
    return {row["photo_id"]: row for row in published(where, name, version).to_pylist()}


def traces(where: Layout, photo: Photo) -> list[str]:
    """Files below the root that tell anything of ``photo`` but its key."""
    words = [photo.title, photo.owner.username, photo.owner.realname, photo.secret, photo.original_secret]
    words += [html.escape(word) for word in words]
    found = []
    for path in sorted(path for path in where.root.rglob("*") if path.is_file()):
        said = path.read_bytes() + path.name.encode()
        if path.suffix == ".parquet":
            table = manifest.read_file(path)
            said += str(table.to_pylist()).encode()
        found += [f"{path}: {word}" for word in words if word.encode() in said]
    return found


def files_of(where: Layout, row: dict[str, Any]) -> list[Path]:
    return [path for name in ("sha256", "blob") if row[name] for path in (where.root / "blobs").rglob(f"{row[name]}.*")]


def asked_for(site: StandIn, photo: Photo, monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """The image requests for ``photo`` from now on."""
    asked: list[str] = []
    answer = site.images.answer

    def listening(path: str, headers: Any, client: str) -> Any:
        if photo.id in path:
            asked.append(path)
        return answer(path, headers, client)

    monkeypatch.setattr(site.images, "answer", listening)
    return asked


def later(monkeypatch: pytest.MonkeyPatch, hours: float) -> None:
    """Set the clock of the audit ahead."""

    class Clock(datetime):
        @classmethod
        def now(cls, tz: tzinfo | None = None) -> "Clock":
            return cls.fromtimestamp((datetime.now(tz) + timedelta(hours=hours)).timestamp(), tz)

    monkeypatch.setattr(tasks.audit, "datetime", Clock)
    monkeypatch.setattr(flows.audit, "datetime", Clock)


def is_key_only(row: dict[str, Any]) -> bool:
    told = {name: value for name, value in row.items() if value is not None and name not in ("source", "photo_id")}
    return told == {"verdict": False, "reason": "removed", "reason_stage": "removal"}


def test_a_deleted_photo_leaves_no_trace_and_never_comes_back(
    where: Layout, site: StandIn, ann: Photo, monkeypatch: pytest.MonkeyPatch
) -> None:
    """One look and its missing file prove it; bytes, rows and pages go, from old versions too; caches serve nothing."""
    before = rows(where, "town", 1)
    assert before[ann.id]["verdict"]
    assert len(traces(where, ann)) > 20, "or there is nothing to purge"
    files = files_of(where, before[ann.id])
    assert files
    pictures = "dataset-town-photos"
    assert pictures in shown()
    site.catalogue.delete(ann.id)
    found = audit_dataset("town", everything=True)
    assert (found.checked, found.gone, found.suspected, found.removed, found.failed) == (len(before), 1, 0, 1, 0)
    [removal] = removals.read(where).to_pylist()
    assert (removal["photo_id"], removal["reason"]) == (ann.id, "gone")
    assert "HTTP 404" in removal["proof"]
    assert traces(where, ann) == []
    assert not any(file.exists() for file in files)
    assert pictures not in shown()
    after = rows(where, "town", 1)
    assert is_key_only(after[ann.id])
    assert {key: row for key, row in after.items() if key != ann.id} == {
        key: row for key, row in before.items() if key != ann.id
    }
    assert audit_dataset("town").removed == 0

    asked = asked_for(site, ann, monkeypatch)
    second = refresh("town")
    assert (second.version, second.is_new) == (2, True)
    assert ann.id not in rows(where, "town", 2)
    assert refresh("town").version == 2
    assert asked == []
    assert traces(where, ann) == []


def shown() -> set[str | None]:
    """The keys of the pages in the UI."""
    with get_client(sync_client=True) as client:
        return {page.key for page in client.read_artifacts(offset=0)}


@pytest.mark.parametrize("how", ["private", "file kept"])
def test_a_photo_whose_file_is_still_there_needs_two_looks_a_day_apart(
    where: Layout, site: StandIn, ann: Photo, monkeypatch: pytest.MonkeyPatch, how: str
) -> None:
    """Deleted or made private: suspected first, looked at again after a day, then removed."""
    if how == "private":
        site.catalogue.make_private(ann.id)
    else:
        site.catalogue.delete(ann.id, keep_file=True)
    first = audit_dataset("town", everything=True)
    assert (first.gone, first.suspected, first.removed) == (1, 1, 0)
    later(monkeypatch, 20)
    assert audit_dataset("town", everything=True).removed == 0
    assert rows(where, "town", 1)[ann.id]["verdict"]
    later(monkeypatch, 44.5)
    last = audit_dataset("town", photos=1)
    assert (last.checked, last.gone, last.suspected, last.removed, last.scrubbed_snapshots) == (1, 1, 0, 1, 1)
    assert traces(where, ann) == []


def test_a_removed_owner_never_comes_back_though_the_site_lists_them(
    where: Layout, site: StandIn, ann: Photo, monkeypatch: pytest.MonkeyPatch
) -> None:
    """On a person's word, without asking the site; another search of another dataset keeps nothing of the owner."""
    remove: Any = [{"source": "flickr", "owner_id": ANN.nsid, "words": "by letter of 3 November"}]
    calls = site.stats()["calls_total"]
    assert audit_dataset("town", photos=0, remove=remove).removed == 1
    assert site.stats()["calls_total"] == calls
    assert traces(where, ann) == []
    assert "by letter of 3 November" in removals.read(where)["proof"].to_pylist()

    asked = asked_for(site, ann, monkeypatch)
    another = site.catalogue.add(1, owner=ANN, title="Another unmistakable title")[0]
    refresh("village", label="elsewhere")
    assert asked == []
    assert {ann.id, another.id}.isdisjoint(rows(where, "village", 1))
    assert traces(where, ann) == traces(where, another) == []
    assert ANN.nsid not in ledger.read(where, "village", "listings")["owner_id"].to_pylist()


def test_removed_bytes_never_come_back_under_another_name(
    where: Layout, site: StandIn, ann: Photo, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Whoever uploads the file again: it is not kept, and the next audit removes that photo as well."""
    row = rows(where, "town", 1)[ann.id]
    remove: Any = [{"sha256": row["sha256"], "words": "by letter"}]
    audit_dataset("town", photos=0, remove=remove)
    assert files_of(where, row) == []
    again = site.catalogue.add(1, picture=ann.picture, uploaded_at=ann.uploaded_at, title="Once more, unmistakably")[0]
    refresh("village", label="elsewhere")
    assert rows(where, "village", 1)[again.id]["reason"] == "removed"
    assert files_of(where, row) == []
    audit_dataset("village", photos=0)
    assert is_key_only(rows(where, "village", 1)[again.id])
    assert removals.blocked(where).is_blocked("flickr", again.id)
    assert files_of(where, row) == []
    assert [path for path in traces(where, again) if "unmistakably" in path] == []


def test_a_download_from_the_cache_brings_nothing_back(where: Layout, site: StandIn, ann: Photo) -> None:
    """Stages and cache as they were before the removal, restored from a backup: the photo stays away."""
    backup = where.root.parent / f"{where.root.name}-backup"
    shutil.copytree(where.root / "stages", backup)
    audit_dataset("town", photos=0, remove=[{"source": "flickr", "photo_id": ann.id, "words": "by letter"}])  # type: ignore[list-item]
    shutil.copytree(backup, where.root / "stages", dirs_exist_ok=True)
    assert refresh("town").version == 2
    assert ann.id not in rows(where, "town", 2)
    assert files_of(where, rows(where, "town", 2)[next(iter(rows(where, "town", 2)))])
    audit_dataset("town", photos=0)
    assert traces(where, ann) == []


def test_a_site_that_does_not_answer_proves_nothing(
    where: Layout, site: StandIn, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The audit ends in a sentence; nothing is removed, and what was not seen is due again."""
    monkeypatch.setattr(flows.audit, "audit", tasks.audit.audit.with_options(retries=0))
    site.faults.add([{"where": "api", "kind": "http_500"}])
    with pytest.raises(SourceUnavailable):
        audit_dataset("town", everything=True)
    assert removals.read(where).num_rows == 0
    site.faults.clear()
    assert audit_dataset("town", everything=True).gone == 0


def test_many_photos_that_are_gone_at_once_are_doubted_until_a_person_confirms(
    where: Layout, site: StandIn, ann: Photo, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A site that calls everything gone, files and all, takes nothing away; once it is well, nothing is suspected. What
    a person asks for goes at once, and so does the rest when a person confirms."""
    hiccup: Any = [{"where": "api", "kind": "code_1", "match": "flickr.photos.getInfo"},
                   {"where": "image", "kind": "http_404"}]  # fmt: skip
    blobs = sorted((where.root / "blobs").rglob("*.*"))
    before = rows(where, "town", 1)
    site.faults.add(hiccup)
    for times in (1, 2):
        with pytest.raises(GateRefused, match=r"^23 photos of 'town' .* at most 20 at once: none.* allow_jump=true$"):
            audit_dataset("town", everything=True)
        assert removals.read(where).num_rows == 0
        states = Counter(row["state"] for row in ledger.read(where, "town", "checks").to_pylist())
        assert states == {"gone": 24 * times, "doubted": 23 * times}, "one has no file to ask for, and needs a day"
    assert sorted((where.root / "blobs").rglob("*.*")) == blobs
    assert rows(where, "town", 1) == before
    backup = where.root.parent / f"{where.root.name}-backup"
    shutil.copytree(where.root, backup)
    site.faults.clear()
    later(monkeypatch, 25)
    well = audit_dataset("town")
    assert (well.checked, well.gone, well.suspected, well.removed) == (24, 0, 0, 0)

    monkeypatch.setenv("DARKROOM_ROOT", str(backup))
    settings.cache_clear()
    remove: Any = [{"source": "flickr", "photo_id": ann.id, "words": "by letter"}]
    asked = audit_dataset("town", photos=0, remove=remove)
    assert (asked.removed, asked.suspected) == (1, 23)
    assert audit_dataset("town", photos=0, allow_jump=True).removed == 22
    assert sum(is_key_only(row) for row in rows(Layout(backup), "town", 1).values()) == 23


def test_what_a_person_asks_for_is_done_before_the_site_is_asked(
    where: Layout, site: StandIn, ann: Photo, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Without a key nothing can be looked at; what was asked to be removed is gone all the same."""
    monkeypatch.setenv("FLICKR_API_KEY", "")
    settings.cache_clear()
    remove: Any = [{"source": "flickr", "photo_id": ann.id, "words": "by letter"}]
    with pytest.raises(CredentialsRejected):
        audit_dataset("town", everything=True, remove=remove)
    assert traces(where, ann) == []


def test_a_changed_licence_becomes_a_row(where: Layout, site: StandIn, ann: Photo) -> None:
    """What a look sees is kept beside what was listed; the next audit tells of it once."""
    before = rows(where, "town", 1)[ann.id]["licence"]
    site.catalogue.relicense(ann.id, 10)
    assert audit_dataset("town", everything=True).licence_changes == 1
    [change] = licences.licence_changes(where, "town").to_pylist()
    assert (change["photo_id"], change["before"]) == (ann.id, before)
    assert change["after"] not in (None, before)
    assert audit_dataset("town", everything=True).licence_changes == 0


def test_the_cap_is_spent_on_photos_that_are_due(where: Layout, site: StandIn) -> None:
    """Nothing is due after a refresh; each look is a row."""
    calls = site.stats()["calls"].get("flickr.photos.getInfo", 0)
    assert audit_dataset("town").checked == 0
    assert site.stats()["calls"].get("flickr.photos.getInfo", 0) == calls
    assert audit_dataset("town", photos=5, everything=True).checked == 5
    looks = ledger.read(where, "town", "checks").to_pylist()
    assert [row["state"] for row in looks] == ["present"] * 5
    assert all(row["licence"] and row["proof"] and KEY not in row["proof"] for row in looks)
    assert catalog.versions(where, "town") == [1]


@pytest.mark.parametrize("name", ["towm", "../../etc", ""])
def test_an_audit_of_a_dataset_that_is_not_there_ends_in_a_sentence(where: Layout, ann: Photo, name: str) -> None:
    """It names those that are there; what a person asks for is done all the same, for it needs no dataset."""
    remove: Any = [{"source": "flickr", "photo_id": ann.id, "words": "by letter"}]
    with pytest.raises(ConfigError, match=r"there is no dataset .* to audit: choose one of town$"):
        audit_dataset(name, remove=remove)
    assert traces(where, ann) == []
    shutil.rmtree(where.root / "datasets")
    with pytest.raises(ConfigError, match="refresh it first"):
        audit_dataset("town")


def test_a_removal_that_matches_nothing_is_told_apart(
    where: Layout, site: StandIn, ann: Photo, caplog: pytest.LogCaptureFixture
) -> None:
    """In the result, in the log and on the page; it counts for what comes later, and said twice it is not new."""
    known = ledger.read(where, "town", "listings").to_pylist()
    others = Counter(row["owner_id"] for row in known if row["owner_id"] != ANN.nsid)
    [(owner, photos)] = others.most_common(1)
    remove: Any = [
        {"source": "flickr", "photo_id": f" {ann.id} ", "words": "by letter"},
        {"source": "flickr", "photo_id": "999", "words": "by letter"},
        {"source": "flickr", "owner_id": owner, "words": "by letter"},
    ]
    with caplog.at_level("INFO", logger="flows.audit"):
        found = audit_dataset("town", photos=0, remove=remove)
    assert (found.removed, found.unmatched) == (2, 1)
    assert traces(where, ann) == []
    assert f"removal of source=flickr owner_id={owner}: matches {photos} known photos" in caplog.messages
    assert "removal of source=flickr photo_id=999: matches no photo that is known" in caplog.text
    page = shown_rows("dataset-town-audit")
    assert page["known photos of the removal of source=flickr photo_id=999"] == 0
    assert page[f"known photos of the removal of source=flickr owner_id={owner}"] == photos
    assert removals.blocked(where).is_blocked("flickr", "999")
    again = audit_dataset("town", photos=0, remove=remove)
    assert (again.removed, again.unmatched) == (0, 0)


def shown_rows(key: str) -> dict[str, int]:
    """The latest table of that name in the UI."""
    with get_client(sync_client=True) as client:
        pages = client.read_artifacts(artifact_filter=ArtifactFilter(key=ArtifactFilterKey(any_=[key])), offset=0)
    latest = max(pages, key=lambda page: page.created or datetime.min)
    return {row["what"]: row["number"] for row in json.loads(str(latest.data))}


@pytest.mark.parametrize(("kind", "times"), [("code_2", 1), ("code_999", 1), ("html", 4)])
def test_a_photo_that_the_site_refuses_stops_no_audit(where: Layout, site: StandIn, kind: str, times: int) -> None:
    """It is a look that failed and is due again; the others are looked at, and a removal beside it is proven."""
    *_, deleted = sorted(photo.id for photo in site.catalogue.listed())  # the last that is asked about
    site.catalogue.delete(deleted)
    site.faults.add([{"where": "api", "kind": kind, "match": "getInfo", "times": times}])
    found = audit_dataset("town", everything=True)
    assert (found.failed, found.removed) == (1, 1)
    [failed] = [row for row in ledger.read(where, "town", "checks").to_pylist() if row["state"] == "failed"]
    assert failed["photo_id"] < deleted
    assert "flickr.photos.getInfo" in failed["proof"]
    assert KEY not in failed["proof"]


def test_a_site_that_has_changed_ends_the_audit(where: Layout, site: StandIn) -> None:
    """Not one answer of a batch can be read: that is no fault of the photos, and nothing is removed."""
    site.faults.add([{"where": "api", "kind": "html", "match": "getInfo"}])
    with pytest.raises(SourceChanged, match="getInfo"):
        audit_dataset("town", everything=True)
    assert removals.read(where).num_rows == 0
