"""What a query accepts, and what identifies it."""

from datetime import UTC, datetime, timedelta, timezone
from typing import Any

import pytest
from pydantic import ValidationError

from tasks import sources
from tasks.dataset import Dataset
from tasks.errors import ConfigError
from tasks.sources.base import LONG_EDGE_PX, Query, Window
from tasks.sources.flickr_rows import LADDER

NOW = datetime(2026, 11, 22, 12, 0, tzinfo=UTC)


@pytest.mark.parametrize(
    ("fields", "complaint"),
    [
        ({}, "at least one of text, tags, bbox, category, path, uploaded_after, uploaded_before"),
        ({"label": "harbour", "limit": 5, "licences": ["4"]}, "at least one of text"),
        ({"text": ""}, "at least 1 character"),
        ({"text": "a", "pages": 3}, "pages"),
        ({"text": "a", "limit": 0}, "limit"),
        ({"text": "a", "start_page": -1}, "start_page"),
        ({"text": "a", "max_pages": 0}, "max_pages"),
        ({"text": "a", "size": "huge"}, "size"),
        ({"tags": ["t"] * 21}, "at most 20"),
        ({"bbox": [5, 52, 4, 53]}, "bbox must be min_lon, min_lat, max_lon, max_lat"),
        ({"bbox": [4, 53, 5, 52]}, "each minimum below its maximum"),
        ({"bbox": [4, 52, 5, 91]}, "bbox must be"),
        ({"bbox": [4, 52, 5]}, "bbox"),
        ({"bbox": [4, float("nan"), 5, 53]}, "bbox must be"),
        ({"text": "a", "uploaded_after": "2024-01-01T00:00:00"}, "timezone"),
        ({"uploaded_after": "2024-02-01T00:00:00Z", "uploaded_before": "2024-01-01T00:00:00Z"}, "lies behind"),
    ],
)
def test_impossible_queries_are_refused_by_name(fields: dict[str, Any], complaint: str) -> None:
    """The refusal names the key, or what is missing."""
    with pytest.raises(ValidationError, match=complaint):
        Query(**fields)


def test_page_zero_is_the_first_page() -> None:
    """The first page may be called 0 or 1."""
    assert Query(text="a", start_page=0).start_page == 1
    assert Query(text="a", start_page=0).query_id == Query(text="a").query_id


def test_a_query_is_identified_by_what_it_looks_for() -> None:
    """The same search has the same id however it is spelt and however much of it is wanted, another has another."""
    two_hours_east = datetime(2024, 1, 1, 2, tzinfo=timezone(timedelta(hours=2)))
    asked = Query(text="a", uploaded_after=datetime(2024, 1, 1, tzinfo=UTC))
    assert asked.query_id == Query.model_validate({"text": "a", "uploaded_after": two_hours_east}).query_id
    assert asked.query_id == Query.model_validate_json(asked.model_dump_json()).query_id
    assert asked.query_id == Query(text="a", limit=3, max_pages=2, start_page=5).query_id
    others = [Query(text="b"), Query(tags=("a",)), Query(text="a", size="Large"), Query(text="a", label="b")]
    assert len({query.query_id for query in [asked, *others]}) == 5


def test_the_id_of_a_query_does_not_change_between_versions() -> None:
    """Rows in old ledgers keep naming the same query."""
    assert Query(text="Travel").query_id == "85aa66d9e000"


@pytest.mark.parametrize(
    ("before", "closed"),
    [
        (NOW, False), (NOW + timedelta(days=1), False), (NOW - timedelta(days=14) + timedelta(seconds=1), False),
        (NOW - timedelta(days=14), True),
    ],
)  # fmt: skip
def test_a_window_is_closed_fourteen_days_after_its_end(before: datetime, closed: bool) -> None:
    """Only a window that ended two weeks ago lists the same for ever."""
    assert Window(after=NOW - timedelta(days=99), before=before).is_closed(NOW) is closed


@pytest.mark.parametrize(
    ("source", "query", "complaint"),
    [
        ("flickr", {"text": "a", "path": "/photos"}, "the source 'flickr' takes no path"),
        ("flickr", {"category": "Animals"}, "takes no category"),
        ("folder", {"path": "/photos", "bbox": [4, 52, 5, 53]}, "the source 'folder' takes no bbox"),
    ],
)
def test_a_query_suits_its_source(source: str, query: dict[str, Any], complaint: str) -> None:
    """A field that a source would not heed is refused by name."""
    with pytest.raises(ValidationError, match=complaint):
        Dataset.model_validate({"name": "d", "source": source, "queries": [query]})


def test_an_unknown_source_is_refused_with_the_known_ones() -> None:
    """Whoever misspells a source is told which there are."""
    with pytest.raises(ConfigError, match="no source 'flikr': choose one of flickr"):
        sources.named("flikr")
    assert [source.name for source in sources.SOURCES.values()] == list(sources.SOURCES)


def test_the_form_explains_every_field() -> None:
    """The Prefect UI shows a description beside each field of a query."""
    fields = Query.model_json_schema()["properties"]
    assert [name for name, field in fields.items() if not field.get("description")] == []


def test_every_size_is_a_rung_of_the_ladder() -> None:
    """A size that a query may ask for is one that Flickr serves, and the ladder descends."""
    assert set(LADDER.values()) == {"Original", *LONG_EDGE_PX}
    edges = list(LONG_EDGE_PX.values())
    assert edges == sorted(edges, reverse=True)
