"""The Croissant description of a snapshot passes its validator, and its loader reads the tables by it."""

import json
import warnings
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest

from storage import manifest
from storage.records import SCHEMAS, SPLITS
from tasks.companions import card
from tasks.companions.croissant import COLUMNS, REPEATED

FACTS: dict[str, Any] = {
    "dataset": "crops", "version": 2, "parent": 1, "rules": {}, "code_version": "0.2.0", "reasons": {},
    "counts": {"train": 2, "val": 0, "test": 1, "rejected": 1}, "created_at": "2026-01-02T03:04:05+00:00",
}  # fmt: skip
NOW = datetime(2026, 1, 2, 3, tzinfo=UTC)


def joined(**more: Any) -> pa.Table:
    """Two train photos, one of them with hardly any fact, one test photo, and a rejected one."""
    full = dict.fromkeys(SCHEMAS["publish"].names) | {
        "source": "flickr", "title": "Harbour", "tags": ["sea", "boat"], "label": "port", "labels": ["port", "sea"],
        "owner_id": "1@N00", "owner_name": "Ann", "licence": "CC BY 2.0", "page_url": "https://x/1", "verdict": True,
        "licence_url": "https://creativecommons.org/licenses/by/2.0/", "split": "train", "sha256": "aa", "blob": "aa",
        "uploaded_at": NOW, "bytes": 1000, "width": 1500, "height": 1000, "net_op": 1, "is_grey": False,
        "sharpness": 12.5, "brightness": 99.0, "landscape_turns": 0,
    }  # fmt: skip
    bare = dict.fromkeys(full) | {key: full[key] for key in ("source", "verdict", "sha256", "blob", "net_op")}
    rows = [full | more, bare | {"split": "train"}, full | {"split": "test"} | more, bare | {"verdict": False}]
    numbered = [row | {"photo_id": str(place)} for place, row in enumerate(rows)]
    return pa.Table.from_pylist(numbered, schema=SCHEMAS["publish"])


def write_snapshot(folder: Path, table: pa.Table) -> Path:
    """The tables and croissant.json of a snapshot; the path of the latter."""
    for split in SPLITS:
        rows = [row for row in table.to_pylist() if row["verdict"] and row["split"] == split]
        part = pa.Table.from_pylist(rows, schema=table.schema)
        manifest.write_parquet(folder / f"{split}.parquet", part, "publish")
    digests = {path.name: manifest.sha256_file(path) for path in folder.glob("*.parquet")}
    (folder / "croissant.json").write_bytes(card.companions(table, FACTS, digests)["croissant.json"])
    return folder / "croissant.json"


@pytest.fixture
def croissant() -> Iterator[Any]:
    """The reference implementation; the warnings of its libraries are its own."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        import mlcroissant

        yield mlcroissant


def test_the_validator_has_nothing_to_say(croissant: Any, tmp_path: Path) -> None:
    """No error and no warning; the facts of the dataset come back as they were."""
    dataset = croissant.Dataset(jsonld=str(write_snapshot(tmp_path, joined())))
    assert not dataset.metadata.ctx.issues.errors
    assert not dataset.metadata.ctx.issues.warnings
    assert dataset.metadata.name == "crops"
    assert dataset.metadata.version == "2.0.0"
    assert dataset.metadata.license == ["https://creativecommons.org/licenses/by/2.0/", "unstated"]
    assert dataset.metadata.date_published.isoformat().startswith("2026-01-02T03:04:05")
    assert "no part of these tables" in dataset.metadata.description
    splits, train, test = dataset.metadata.record_sets
    assert (splits.id, train.id, test.id) == ("splits", "train", "test")
    assert {field.name for field in train.fields if field.repeated} == REPEATED


def test_the_loader_reads_every_photo(croissant: Any, tmp_path: Path) -> None:
    """Records of a split come from the Parquet file beside it, each column as what it is, nulls included."""
    dataset = croissant.Dataset(jsonld=str(write_snapshot(tmp_path, joined())))
    full, bare = list(dataset.records("train"))
    assert full["train/title"] == b"Harbour"
    assert full["train/tags"] == [b"sea", b"boat"]
    assert full["train/bytes"] == 1000
    assert full["train/uploaded_at"].isoformat() == NOW.isoformat()
    assert full["train/is_grey"] is False
    assert bare["train/photo_id"] == b"1"
    assert bare["train/title"] is None
    assert [record["splits/name"] for record in dataset.records("splits")] == ["train", "test"]
    assert len(list(dataset.records("test"))) == 1


def test_a_changed_table_is_noticed(croissant: Any, tmp_path: Path) -> None:
    """The digests are those of the files: a loader refuses others."""
    jsonld = write_snapshot(tmp_path, joined())
    manifest.write_parquet(tmp_path / "train.parquet", joined().slice(0, 1), "publish")
    with pytest.raises(croissant.GenerationError) as refused:
        list(croissant.Dataset(jsonld=str(jsonld)).records("train"))
    assert "Hash of downloaded file" in str(refused.value.__cause__)


def test_every_column_is_published() -> None:
    """The description names no column that the tables lack, and gives each the type that it has."""
    kinds = {
        "sc:Text": pa.types.is_string, "sc:URL": pa.types.is_string, "sc:Integer": pa.types.is_integer,
        "sc:Float": pa.types.is_floating, "sc:Boolean": pa.types.is_boolean, "sc:DateTime": pa.types.is_timestamp,
    }  # fmt: skip
    for column in COLUMNS:
        found = SCHEMAS["publish"].field(column.name).type
        assert pa.types.is_list(found) == (column.name in REPEATED)
        assert kinds[column.kind](found.value_type if column.name in REPEATED else found), column


def test_places_are_described_where_they_are_published() -> None:
    """Without locations there is no latitude in the description; with them there is, and it says so."""
    for more, is_there in (({}, False), ({"latitude": 48.85, "longitude": 2.29}, True)):
        digests = {f"{split}.parquet": "00" * 32 for split in SPLITS}
        text = card.companions(joined(**more), FACTS, digests)["croissant.json"].decode()
        assert ("train/latitude" in text) == is_there
        assert ("Rows say where" in text) == is_there


def test_nothing_of_a_single_photo_stands_in_it() -> None:
    """No title, owner or address: a takedown has nothing to take out but counts."""
    data = card.companions(joined(), FACTS, {f"{split}.parquet": "00" * 32 for split in SPLITS})["croissant.json"]
    assert not [word for word in ("Harbour", "Ann", "1@N00", "https://x/1") if word in data.decode()]
    assert json.loads(data)["isLiveDataset"] is False
