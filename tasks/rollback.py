"""An old version of a dataset, ready to be published anew: its photos, splits and reasons, under the rules of then."""

from typing import Any

import pyarrow.compute as pc

from storage import catalog, manifest, removals
from storage.errors import BlobCorrupt
from storage.layout import Layout
from storage.records import FileRef, ManifestRef, SnapshotRef
from tasks.publish import published

PROOFS = ("leakage.json", "labels.json")  # made by the stages, not from the rows: they hold for fewer photos too


def restored(where: Layout, name: str, version: int) -> ManifestRef:
    """The table of a version, less what was taken down since: of that not even the key comes back.

    Raises BlobCorrupt if a photo that it keeps is no longer there.
    """
    table = published(where, name, version)
    table = table.filter(pc.invert(removals.blocked(where).mask(table)))
    files = table.filter(table["verdict"]).select(["blob", "format"]).rename_columns(["sha256", "format"])
    if lost := catalog.lost(where, files.filter(files["sha256"].is_valid())).num_rows:
        raise BlobCorrupt(
            f"version {version} of {name!r} cannot be published anew: the files of {lost:,} of its photos are gone "
            f"from {str(where.root)!r}; put them back, from a backup for instance"
        )
    return manifest.write(where, "publish", table)


def unchanged(where: Layout, name: str, version: int, joined: ManifestRef) -> SnapshotRef | None:
    """The newest version, if it has the rows ``joined`` and the rules of ``version`` already."""
    newest = catalog.versions(where, name)[-1]
    card: dict[str, Any] = catalog.card(where, name, newest)
    if version != newest and (
        card["rules"] != catalog.card(where, name, version)["rules"] or restored(where, name, newest) != joined
    ):
        return None
    return SnapshotRef(
        dataset=name, version=newest, uri=str(where.snapshot(name, newest)), counts=card["counts"], is_new=False
    )


def proofs(where: Layout, name: str, version: int) -> dict[str, FileRef]:
    """What a version proved of itself, by file name."""
    files = [where.snapshot(name, version) / proof for proof in PROOFS]
    return {file.name: manifest.file_ref(where, file) for file in files if file.is_file()}
