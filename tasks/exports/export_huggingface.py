"""Parquet files with the pictures within, as the Hugging Face Hub keeps them: ``data/<split>-00000-of-00001.parquet``.

Source: Hugging Face ``datasets``, ``Image`` (a struct of bytes and path) and ``Features`` (the schema's metadata); the
Hub, "Parquet content-defined chunking" (what stays equal is not sent again).
"""

import json
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from tasks.exports.export_photos import Sample, cut

DATA = "data/{split}-*"
SHARD_BYTES, GROUP_BYTES, GROUP_PHOTOS = 500_000_000, 64_000_000, 100
READING = """```python
from datasets import load_dataset

photos = load_dataset(".", split="train")
photos[0]["image"]                # a PIL image; beside it label, labels, title, author, licence, ...
```

`photos.parquet` has the keys of the photos, `export.json` how they were exported."""
IMAGE = pa.struct([("bytes", pa.binary()), ("path", pa.string())])


def schema_of(facts: pa.Schema, classes: Sequence[str]) -> pa.Schema:
    """The columns of the files: image, and ``facts``, with the label as the place of its name in ``classes``."""
    label = [pa.field("label", pa.int64())] if classes else []
    fields = [pa.field("image", IMAGE), *label, *(field for field in facts if field.name != "label")]
    features = {field.name: _feature(field, classes) for field in fields}
    return pa.schema(fields, {"huggingface": json.dumps({"info": {"features": features}})})


def _feature(field: pa.Field, classes: Sequence[str]) -> dict[str, Any]:
    """How ``datasets`` describes a column; ``Sequence`` is the name of a list that old versions know too."""
    if field.name == "image":
        return {"_type": "Image"}
    if field.name == "label":
        return {"names": list(classes), "_type": "ClassLabel"}
    if pa.types.is_list(field.type):
        return {"feature": {"dtype": str(field.type.value_type), "_type": "Value"}, "_type": "Sequence"}
    return {"dtype": {"double": "float64"}.get(str(field.type), str(field.type)), "_type": "Value"}


def write_split(
    folder: Path, split: str, samples: Iterable[Sample], facts: pa.Schema, classes: Sequence[str],
    shard_bytes: int = SHARD_BYTES,
) -> list[dict[str, Any]]:  # fmt: skip
    """Write ``samples`` into shards of about ``shard_bytes``; one entry of export.json for each."""
    schema, codes = schema_of(facts, classes), {name: place for place, name in enumerate(classes)}
    (folder / "data").mkdir(exist_ok=True)
    photos: list[int] = []
    for shard in cut(samples, shard_bytes):
        with pq.ParquetWriter(
            _draft(folder, split, len(photos)), schema, compression="snappy", use_content_defined_chunking=True
        ) as writer:
            groups = [_write_group(writer, list(group), codes) for group in cut(shard, GROUP_BYTES, GROUP_PHOTOS)]
        photos.append(sum(groups))
    names = [f"data/{split}-{number:05d}-of-{len(photos):05d}.parquet" for number in range(len(photos))]
    for number, name in enumerate(names):
        _draft(folder, split, number).rename(folder / name)
    return [{"file": name, "photos": number} for name, number in zip(names, photos, strict=True)]


def _draft(folder: Path, split: str, number: int) -> Path:
    """A shard before it is known how many there are."""
    return folder / "data" / f".{split}-{number:05d}"


def _write_group(writer: pq.ParquetWriter, samples: list[Sample], codes: dict[str, int]) -> int:
    rows = [
        sample.facts | {"image": {"bytes": sample.data, "path": sample.name}, "label": codes.get(sample.facts["label"])}
        for sample in samples
    ]
    table = pa.Table.from_pylist(rows, schema=writer.schema)
    writer.write_table(table, row_group_size=GROUP_PHOTOS)
    return len(samples)
