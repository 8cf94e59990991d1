"""What is done with snapshots, under a real Prefect server: compared, published anew, and what they leave collected."""

from collections.abc import Callable, Iterator
from typing import Any
from urllib.parse import urlsplit

import pytest
from prefect.client.orchestration import get_client

from flows.refresh import refresh_dataset
from flows.snapshots import collect_garbage, diff_snapshots, roll_back
from flows.train import select
from storage import catalog, manifest, snapshots
from storage.layout import Layout
from storage.records import SnapshotRef
from tasks import web
from tasks.dataset import Dataset
from tasks.errors import SnapshotMissing
from tasks.pack import pack
from tasks.publish import published
from tasks.sources.standin import Catalogue, StandIn

pytestmark = pytest.mark.usefixtures("prefect_server")
KEY = "0123456789abcdef0123456789abcdef"
FAST = web.Limits(retries=1, backoff_s=0.001, pauses=1, pause_s=0.01, api_per_s=1e4, api_burst=1000, images_per_s=1e4)


@pytest.fixture
def own_root(where: Layout, environment: Callable[..., None], monkeypatch: pytest.MonkeyPatch) -> Iterator[Layout]:
    """A root of the test's own, beside a site with 24 photos; what was cached elsewhere is not found there."""
    monkeypatch.setattr(web, "LIMITS", FAST)
    web.client.cache_clear()
    with StandIn(Catalogue.synthetic(24, seed=3, min_long_px=144, max_long_px=162)) as site:
        environment(
            DARKROOM_ROOT=str(where.root), FLICKR_API_KEY=KEY, DARKROOM_FLICKR_URL=f"{site.url}/services/rest/",
            DARKROOM_IMAGE_HOSTS=urlsplit(site.url).netloc,
        )  # fmt: skip
        yield where
    web.client().close()
    web.client.cache_clear()


def dataset(min_long_px: int) -> Dataset:
    query = {"uploaded_after": "2004-01-01T00:00:00Z", "uploaded_before": "2026-01-01T00:00:00Z"}
    rules = {"min_long_px": min_long_px, "min_short_px": 72}
    return Dataset.model_validate({"name": "life", "queries": [query], "filter": rules})


def refreshed(min_long_px: int) -> SnapshotRef:
    result = refresh_dataset(dataset(min_long_px), allow_jump=True, announce=False)
    assert isinstance(result, SnapshotRef)
    return result


def table_of(key: str) -> str:
    with get_client(sync_client=True) as client:
        return str(
            client.request("POST", "/artifacts/latest/filter", json={"artifacts": {"key": {"any_": [key]}}}).json()
        )


def test_versions_outlive_rules_rollbacks_and_garbage(own_root: Layout) -> None:
    """Two versions under two rules are told apart, the first is published anew, and when all garbage is gone every
    version is whole, an old one can be packed, and a refresh finds nothing new."""
    first, second = refreshed(144), refreshed(156)
    summary = diff_snapshots("life@1", "life")
    assert summary.newly_rejected == first.counts["train"] + first.counts["val"] + first.counts["test"] - sum(
        photos for part, photos in second.counts.items() if part != "rejected"
    )
    assert set(summary.reasons) == {"too_small"}
    assert "newly rejected: too_small" in table_of("dataset-life-diff")

    third, again = roll_back("life", 1, announce=False), roll_back("life", 1, announce=False)
    assert (third.version, third.is_new, third.counts) == (3, True, first.counts)
    assert (again.version, again.is_new) == (3, False)
    assert catalog.card(own_root, "life", 3)["restores"] == 1
    assert snapshots.diff_versions(own_root, "life", 1, 3).rows.num_rows == 0

    before = files(own_root)
    assert collect_garbage(grace_days=0.0)["stages"] > 0
    assert files(own_root) == before
    collect_garbage(dry_run=False, grace_days=0.0)
    assert "freed" in table_of("garbage")
    assert files(own_root) < before
    assert [snapshots.verify(own_root, "life", version) for version in (1, 2, 3)] == [[], [], []]
    joined = manifest.write(own_root, "publish", published(own_root, "life", 2))
    packed = pack.fn(select(joined), 24, 36)
    assert packed.photos == {part: photos for part, photos in second.counts.items() if part != "rejected"}
    latest = refreshed(144)
    assert (latest.version, latest.is_new) == (3, False)


def files(root: Layout) -> set[Any]:
    """What lies below the root, but for the notes that Prefect and the ledger keep of the run itself."""
    return {path for folder in ("stages", "blobs", "datasets") for path in (root.root / folder).rglob("*")}


def test_a_version_that_is_not_there_cannot_be_restored(own_root: Layout) -> None:
    """One sentence, and nothing is published."""
    with pytest.raises(SnapshotMissing, match="'nowhere' has no snapshot"):
        roll_back("nowhere", 1)
    with pytest.raises(SnapshotMissing, match="'nowhere' has no snapshot"):
        diff_snapshots("nowhere@1", "nowhere@2")
    assert not (own_root.root / "datasets").exists()
