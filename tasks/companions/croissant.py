"""A snapshot described for machines: Croissant, JSON-LD that dataset search engines and loaders read.

The pictures are no part of a snapshot, and the description says so: it has the tables, by name and digest, and what
each of their columns means.

Source: MLCommons, "Croissant Format Specification 1.0" (vocabulary, record sets, splits as an enumeration of
``cr:Split``) and "Croissant RAI 1.0" (collection, preprocessing, personal information).
"""

import re
from collections.abc import Iterable, Mapping
from typing import Any, NamedTuple

import pyarrow as pa

from storage.records import SPLITS
from tasks.companions.licences import licence_report

Json = dict[str, Any]
CONTEXT: Json = {
    "@language": "en", "@vocab": "https://schema.org/", "citeAs": "cr:citeAs", "column": "cr:column",
    "conformsTo": "dct:conformsTo", "cr": "http://mlcommons.org/croissant/",
    "data": {"@id": "cr:data", "@type": "@json"},
    "dataType": {"@id": "cr:dataType", "@type": "@vocab"}, "dct": "http://purl.org/dc/terms/",
    "equivalentProperty": "cr:equivalentProperty", "examples": {"@id": "cr:examples", "@type": "@json"},
    "extract": "cr:extract", "field": "cr:field", "fileObject": "cr:fileObject", "fileProperty": "cr:fileProperty",
    "fileSet": "cr:fileSet", "format": "cr:format", "includes": "cr:includes", "isLiveDataset": "cr:isLiveDataset",
    "jsonPath": "cr:jsonPath", "key": "cr:key", "md5": "cr:md5", "parentField": "cr:parentField", "path": "cr:path",
    "rai": "http://mlcommons.org/croissant/RAI/", "recordSet": "cr:recordSet", "references": "cr:references",
    "regex": "cr:regex", "repeated": "cr:repeated", "replace": "cr:replace", "samplingRate": "cr:samplingRate",
    "sc": "https://schema.org/", "separator": "cr:separator", "source": "cr:source", "subField": "cr:subField",
    "transform": "cr:transform",
}  # fmt: skip
CONFORMS_TO = ["http://mlcommons.org/croissant/1.0", "http://mlcommons.org/croissant/RAI/1.0"]
PURPOSES = {"train": "cr:TrainingSplit", "val": "cr:ValidationSplit", "test": "cr:TestSplit"}


class Column(NamedTuple):
    """A column of the tables. ``kind``: what its values are, as Croissant spells it."""

    name: str
    kind: str
    description: str


COLUMNS = (
    Column("source", "sc:Text", "The site or collection that the photo comes from."),
    Column("photo_id", "sc:Text", "The photo's id there; with source, the key of a row."),
    Column("title", "sc:Text", "As its owner typed it."),
    Column("tags", "sc:Text", "As its owner typed them."),
    Column("owner_id", "sc:Text", "The owner's id."),
    Column("owner_name", "sc:Text", "Whom to credit."),
    Column("licence", "sc:Text", "The licence when the photo was downloaded."),
    Column("licence_url", "sc:URL", "Its text."),
    Column("licence_now", "sc:Text", "The licence since, where it is another one."),
    Column("page_url", "sc:URL", "The photo's page, to link to."),
    Column("image_url", "sc:URL", "Where the site offered the file."),
    Column("uploaded_at", "sc:DateTime", "When the photo was uploaded, UTC."),
    Column("taken_at", "sc:DateTime", "When the photo was taken, as the site says."),
    Column("latitude", "sc:Float", "Where it was taken, degrees north."),
    Column("longitude", "sc:Float", "Where it was taken, degrees east."),
    Column("label", "sc:Text", "Its class."),
    Column("labels", "sc:Text", "All of its classes."),
    Column("split", "sc:Text", "train, val or test."),
    Column("group_id", "sc:Text", "Photos of one group are in one split."),
    Column("duplicate_group", "sc:Text", "Photos that show the same."),
    Column("sha256", "sc:Text", "SHA-256 of the file as downloaded."),
    Column("bytes", "sc:Integer", "Size of that file."),
    Column("format", "sc:Text", "JPEG, PNG, WEBP or GIF."),
    Column("blob", "sc:Text", "SHA-256 of the file to read: that of the download, or of what was turned without loss."),
    Column("net_op", "sc:Integer", "The EXIF orientation (1 to 8) that a reader must apply to its pixels; 1 = none."),
    Column("width", "sc:Integer", "Width in px of the file as downloaded, as stored."),
    Column("height", "sc:Integer", "Height in px of the file as downloaded, as stored."),
    Column("long_px", "sc:Integer", "The longer side in px."),
    Column("short_px", "sc:Integer", "The shorter side in px."),
    Column("exif_make", "sc:Text", "The camera's maker, as the file says."),
    Column("exif_model", "sc:Text", "The camera, as the file says."),
    Column("edit_tier", "sc:Text", "camera_original, developed, edited or unknown, by the file's own evidence."),
    Column("is_grey", "sc:Boolean", "Whether it has no colours."),
    Column("sharpness", "sc:Float", "Variance of the Laplacian of a reduced picture."),
    Column("brightness", "sc:Float", "Mean luma."),
)
REPEATED = {"tags", "labels"}


def croissant(table: pa.Table, facts: Mapping[str, Any], digests: Mapping[str, str]) -> Json:
    """The description of a snapshot. ``table``: its rows (schema "publish"); ``facts``: what snapshot.json says;
    ``digests``: sha256 of its Parquet files by name."""
    present = [split for split in SPLITS if facts["counts"].get(split)]
    is_located = table["latitude"].null_count < table.num_rows
    columns = [column for column in COLUMNS if is_located or column.name not in {"latitude", "longitude"}]
    title = f"{facts['dataset']}, version {facts['version']}"
    return {
        "@context": CONTEXT, "@type": "sc:Dataset", "conformsTo": CONFORMS_TO, "name": facts["dataset"],
        "description": _description(facts), "version": f"{facts['version']}.0.0",
        "datePublished": facts["created_at"], "license": _licences(table) or ["unknown"],
        "creator": {"@type": "Organization", "name": f"Whoever runs this Darkroom ({facts['code_version']})",
                    "description": "collected and judged the photos; ATTRIBUTION.csv names who made each of them"},
        "citeAs": _citation(facts, title), "isLiveDataset": False, "keywords": ["photographs", "darkroom"],
        "distribution": [_file(f"{split}.parquet", digests[f"{split}.parquet"], split) for split in present],
        "recordSet": [_splits(present), *(_photos(split, columns) for split in present)],
        **_responsibility(table, is_located),
    }  # fmt: skip


def _description(facts: Mapping[str, Any]) -> str:
    counts = ", ".join(f"{facts['counts'].get(split, 0):,} {split}" for split in SPLITS)
    return (
        f"Photographs ({counts}): where each comes from, who made it, under which licence, what was measured and how "
        "it was judged. The pictures are no part of these tables: they lie in the blobs folder of the Darkroom that "
        "published them, as blobs/ab/cd/<blob>.<extension>, and are to be turned by net_op when read. See README.md."
    )


def _licences(table: pa.Table) -> list[str]:
    """Links to the licences of the kept photos, or their names."""
    return list(dict.fromkeys(entry.url or entry.name for entry in licence_report(table) if entry.kept))


def _citation(facts: Mapping[str, Any], title: str) -> str:
    """BibTeX."""
    key = re.sub(r"[^a-z0-9]+", "_", f"{facts['dataset']}_{facts['version']}".lower())
    return f"@misc{{{key}, title={{{title}}}, year={{{str(facts['created_at'])[:4]}}}, note={{Made with Darkroom}}}}"


def _file(name: str, sha256: str, split: str) -> Json:
    return {
        "@type": "cr:FileObject", "@id": name, "name": name, "description": f"The photos of {split}.",
        "contentUrl": name, "encodingFormat": "application/x-parquet", "sha256": sha256,
    }  # fmt: skip


def _splits(present: Iterable[str]) -> Json:
    fields = [
        {"@type": "cr:Field", "@id": "splits/name", "name": "name", "dataType": "sc:Text"},
        {"@type": "cr:Field", "@id": "splits/url", "name": "url", "dataType": ["sc:URL", "sc:Text"]},
    ]
    data = [{"splits/name": split, "splits/url": PURPOSES[split]} for split in present]
    return {
        "@type": "cr:RecordSet", "@id": "splits", "name": "splits", "description": "What the photos are for.",
        "dataType": "cr:Split", "key": {"@id": "splits/name"}, "field": fields, "data": data,
    }  # fmt: skip


def _photos(split: str, columns: Iterable[Column]) -> Json:
    return {
        "@type": "cr:RecordSet", "@id": split, "name": split, "description": f"The photos of {split}, one a record.",
        "key": [{"@id": f"{split}/source"}, {"@id": f"{split}/photo_id"}],
        "field": [_field(split, column) for column in columns],
    }  # fmt: skip


def _field(split: str, column: Column) -> Json:
    field: Json = {
        "@type": "cr:Field", "@id": f"{split}/{column.name}", "name": column.name, "description": column.description,
        "dataType": column.kind,
        "source": {"fileObject": {"@id": f"{split}.parquet"}, "extract": {"column": column.name}},
    }  # fmt: skip
    if column.name in REPEATED:
        field["repeated"] = True
    if column.name == "split":
        field["references"] = {"field": {"@id": "splits/name"}}
    return field


def _responsibility(table: pa.Table, is_located: bool) -> Json:
    """What Croissant RAI asks."""
    sources = ", ".join(sorted(set(table["source"].to_pylist())))
    where = "Rows say where photos were taken." if is_located else "Rows do not say where a photo was taken."
    return {
        "rai:dataCollection": f"By search and download from: {sources}. README.md has the queries.",
        "rai:dataPreprocessingProtocol": [
            "Photos are turned without re-encoding, or when they are read; nothing else."
        ],
        "rai:personalSensitiveInformation": [f"Rows name owners; photographs may show people. {where}"],
    }
