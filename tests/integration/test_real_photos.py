"""225 real photographs, served over HTTP and curated; skips, saying so, where they are not at hand."""

import csv
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from flows.pipeline import pipeline
from flows.refresh import refresh_dataset
from flows.train import train_model
from storage.layout import Layout
from tasks import publish, web
from tasks.errors import TooFewPhotos
from tasks.sources.standin import Catalogue, StandIn

pytestmark = pytest.mark.usefixtures("prefect_server")
QUERIES = [{"text": "photos"}]  # the stand-in tags every photo of a folder with the folder's name


@pytest.fixture
def site(shared: Path, monkeypatch: pytest.MonkeyPatch, environment: Callable[..., None]) -> Iterator[StandIn]:
    """The photographs, behind a client that need not be polite to this machine."""
    monkeypatch.setattr(web, "LIMITS", web.Limits(api_per_s=1e4, images_per_s=1e4))
    web.client.cache_clear()
    with StandIn(Catalogue.folder(shared / "photos")) as running:
        environment(
            FLICKR_API_KEY="0" * 32,
            DARKROOM_FLICKR_URL=f"{running.url}/services/rest/",
            DARKROOM_IMAGE_HOSTS=running.url.removeprefix("http://"),
        )
        yield running
    web.client().close()
    web.client.cache_clear()


def wanted_by_hand(photos_csv: Path) -> dict[str, bool]:
    """sha256 of the photos that the crops rules must keep, computed from photos.csv alone; True: a portrait."""
    kept = {}
    with photos_csv.open(newline="") as stream:
        for row in csv.DictReader(stream):
            sides = int(row["width"]), int(row["height"])
            long_px, short_px = max(sides), min(sides)
            # |long / short - 1.5| <= 0.02 in whole numbers
            if long_px >= 1440 and short_px >= 720 and abs(100 * long_px - 150 * short_px) <= 2 * short_px:
                kept[row["sha256"]] = sides[0] < sides[1]
    return kept


def test_the_crops_rules_keep_thirteen_photographs_which_are_too_few_to_train_on(
    root: Layout, site: StandIn, shared: Path
) -> None:
    """Exactly the 13 that photos.csv promises, its 2 portraits made landscape, and a sentence instead of a model."""
    snapshot = refresh_dataset(dataset={"name": "real-crops", "queries": QUERIES})
    rows = publish.published(root, "real-crops", snapshot.version).to_pylist()
    assert len(rows) == 225
    kept = {row["sha256"]: row["landscape_turns"] != 0 for row in rows if row["verdict"]}
    by_hand = wanted_by_hand(shared / "photos" / "photos.csv")
    assert kept == by_hand
    assert (len(by_hand), sum(by_hand.values())) == (13, 2)
    with pytest.raises(TooFewPhotos, match=r"'real-crops' has .* too few to train on"):
        train_model("real-crops", "crops_thumbnail_narrow")


def test_without_rules_every_photograph_is_kept_and_a_model_is_trained_and_evaluated(
    root: Layout, site: StandIn
) -> None:
    """None of the 225 is broken, no two are the same; every figure has its baseline, and the report is there."""
    rules = {"min_long_px": 1, "min_short_px": 1, "aspect": None}
    result = pipeline(dataset={"name": "real", "queries": QUERIES, "filter": rules}, recipe="crops_thumbnail_narrow")
    assert sum(result.snapshot.counts.values()) == 225
    assert result.snapshot.counts["rejected"] == 0
    assert len(result.run.figures) == 7
    assert all(figure.low <= figure.value <= figure.high for figure in result.run.figures)
    assert (Path(result.run.uri) / "report.html").is_file()
