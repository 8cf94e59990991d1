"""Laws of imports: names, pixels and captions come back as they were, and nothing that is read can raise."""

import json
import os
import tempfile
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import array_shapes, arrays

from tasks.pictures import imaging
from tasks.sources.base import Query, degrees
from tasks.sources.imports import answers, cells, files, imet, instagram, png, tabular
from tasks.sources.table import Reader, where

NAMES = st.binary(min_size=1, max_size=60).filter(lambda name: b"/" not in name and b"\0" not in name)
KEYS = st.sampled_from(["uri", "title", "media", "media_metadata", "x"])
JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(),
    lambda inner: st.lists(inner) | st.dictionaries(KEYS, inner),
    max_leaves=20,
)


@given(NAMES, st.none() | st.integers(0, 10**9))
def test_a_url_leads_back_to_its_file(name: bytes, record: int | None) -> None:
    """Whatever bytes a file is called by; the URL and the id can be stored as text."""
    path = f"/folder/{os.fsdecode(name)}"
    url = files.file_url(path, record)
    assert files.path_and_record(url) == (path, record)
    assert "?" not in url
    pa.array([url, files.readable(path)], pa.string()).validate(full=True)


@given(
    arrays(np.uint8, array_shapes(min_dims=2, max_dims=2, max_side=300))
    | arrays(np.uint8, st.tuples(st.integers(1, 90), st.integers(1, 300), st.just(3)))
)
def test_png_keeps_every_pixel(pixels: imaging.Pixels) -> None:
    """Grey or colour, also where the rows are longer than one block."""
    body = png.encode(pixels)
    assert imaging.verify(body)[1:] == (pixels.shape[1], pixels.shape[0])
    decoded = imaging.decode_grey(body, 1) if pixels.ndim == 2 else imaging.decode_upright(body, 1)
    assert np.array_equal(decoded, pixels)


@given(st.text())
def test_spoilt_text_is_put_right(text: str) -> None:
    """Bytes of UTF-8 that were written as characters become text again, and text that is none of that stays."""
    text = text.encode("utf-8", "ignore").decode()
    assert instagram.unspoilt(text.encode().decode("latin-1")) == text


@given(JSON)
def test_no_list_of_posts_can_raise(node: Any) -> None:
    """Whatever lies where a post should be."""
    for _, item in instagram.media(node, {}):
        row = instagram.columns(item)
        pa.array([row["title"], *row["tags"]], pa.string()).validate(full=True)


@given(JSON)
def test_no_cell_can_raise(value: Any) -> None:
    """What cannot be read is None; all text can be stored."""
    cells.integer(value)
    cells.moment(value)
    assert degrees(value, 90) is None or abs(float(value)) <= 90
    pa.array([cells.text(value), *cells.tags(value), *cells.split_tag(value)], pa.string()).validate(full=True)


@given(st.text(min_size=1))
def test_no_cell_leads_out_of_the_table_s_folder(cell: str) -> None:
    """Its address is none, a file below the folder, or a URL whose host is the only one that it may lead to."""
    with tempfile.TemporaryDirectory() as folder:
        reader = Reader(Path(folder).resolve(), {"image_url": "url"}, [])
        photo = reader.photo({"url": cell})
        url = photo["image_url"] if photo else None
        if url is None:
            return
        if url.startswith("file:"):
            path, record = files.path_and_record(url)
            assert record is None
            assert Path(os.path.normpath(path)).is_relative_to(reader.folder)
            assert answers.answer(url, None, 100).outcome in ("gone", "denied")
        else:
            assert len(where(url)[1]) == 1


@given(st.binary(max_size=200), st.sampled_from(["csv", "jsonl", "txt", "tsv"]))
def test_no_table_can_raise(data: bytes, suffix: str) -> None:
    """Rows are mappings, or there are none."""
    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder) / f"t.{suffix}"
        file.write_bytes(data)
        assert all(isinstance(name, str) for name in tabular.names(file))
        assert all(isinstance(record, dict) for record in tabular.records(file))


@given(st.text(), st.dictionaries(st.text(), st.text()))
def test_attributes_are_never_lost(ids: str, attributes: dict[str, str]) -> None:
    """Each id gives a tag, known or not."""
    assert bool(imet.names(ids, attributes)) == bool((cells.text(ids) or "").split())


def test_a_query_of_a_path_has_a_name() -> None:
    """As people see it in a list of runs, and an id that does not change with how much is taken."""
    one, other = Query(path="a"), Query(path="a", limit=3)
    assert (one.name, one.query_id) == ("a", other.query_id)
    assert json.loads(one.model_dump_json())["path"] == "a"
