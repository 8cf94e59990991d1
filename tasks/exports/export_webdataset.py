"""Tar files of samples, for reading in one go: ``<split>-000000.tar`` with ``key.jpg``, ``key.json`` and ``key.cls``.

Source: Aizman, Maltzahn and Breuel, "High Performance I/O For Large Scale Deep Learning", 2020, section IV (a sample is
the files of one base name, side by side); POSIX.1-1988, ustar.
"""

import io
import json
import tarfile
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

from tasks.exports.export_photos import Sample, as_json, cut

DATA = "{split}-*.tar"
SHARD_BYTES = 500_000_000
READING = """```python
import webdataset

photos = webdataset.WebDataset("train-000000.tar", shardshuffle=False).decode("pil").to_tuple("jpg;png;webp", "json")
```

`key.cls` is the place of a label's name among the `labels` of `export.json`; a photo without a label has none.
`photos.parquet` has the keys of the photos."""


def write_split(
    folder: Path, split: str, samples: Iterable[Sample], classes: Sequence[str], shard_bytes: int = SHARD_BYTES
) -> list[dict[str, Any]]:
    """Write ``samples`` into shards of about ``shard_bytes``; one entry of export.json for each."""
    codes = {name: place for place, name in enumerate(classes)}
    shards = []
    for number, shard in enumerate(cut(samples, shard_bytes)):
        name = f"{split}-{number:06d}.tar"
        with tarfile.open(folder / name, "w", format=tarfile.USTAR_FORMAT) as tar:
            photos = sum(_add_sample(tar, sample, codes) for sample in shard)
        shards.append({"file": name, "photos": photos})
    return shards


def _add_sample(tar: tarfile.TarFile, sample: Sample, codes: dict[str, int]) -> int:
    _add(tar, sample.name, sample.data)
    _add(tar, f"{sample.stem}.json", json.dumps(as_json(sample.facts), ensure_ascii=False).encode())
    if sample.facts["label"] in codes:
        _add(tar, f"{sample.stem}.cls", str(codes[sample.facts["label"]]).encode())
    return 1


def _add(tar: tarfile.TarFile, name: str, data: bytes) -> None:
    """One member whose header says nothing of clock, user or machine."""
    member = tarfile.TarInfo(name)
    member.size = len(data)
    tar.addfile(member, io.BytesIO(data))
