"""A tree of classes: ``<split>/<label>/<photo>.<extension>``, and a ``metadata.jsonl`` in each split.

Source: torchvision, ``ImageFolder`` (a folder is a class); Hugging Face ``datasets``, "ImageFolder" (``file_name``).
"""

import json
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

from tasks.exports.export_names import UNLABELLED
from tasks.exports.export_photos import Sample, as_json, in_order

DATA = "{split}/**"
READING = """```python
from torchvision.datasets import ImageFolder

photos = ImageFolder("train")     # a folder is a class; a class that a split lacks has no folder there

from datasets import load_dataset

photos = load_dataset("imagefolder", data_dir=".", split="train")   # with the facts of metadata.jsonl
```

`photos.parquet` has the keys of the photos, `export.json` how they were exported."""


def write_split(
    folder: Path, split: str, rows: Iterable[dict[str, Any]], make: Callable[[dict[str, Any]], Sample],
    folders: dict[str, str],
) -> list[dict[str, Any]]:  # fmt: skip
    """Write the photos of ``rows`` that ``make`` makes; ``folders``: of the labels. The one file that lists them."""
    for name in {*folders.values(), UNLABELLED}:
        (folder / split / name).mkdir(parents=True, exist_ok=True)

    def place(row: dict[str, Any]) -> str:
        made = make(row)
        file_name = f"{folders.get(row['label'], UNLABELLED)}/{made.name}"
        (folder / split / file_name).write_bytes(made.data)
        return json.dumps({"file_name": file_name, **as_json(made.facts)}, ensure_ascii=False)

    index = folder / split / "metadata.jsonl"
    with index.open("w", encoding="utf-8", newline="\n") as stream:
        photos = sum(stream.write(line + "\n") > 0 for line in in_order(place, rows))
    for name in {*folders.values(), UNLABELLED}:  # an empty folder would be a class without photos
        if not any((folder / split / name).iterdir()):
            (folder / split / name).rmdir()
    return [{"file": f"{split}/metadata.jsonl", "photos": photos}]
