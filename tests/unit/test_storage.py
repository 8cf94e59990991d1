"""Manifests, blobs, layout and settings."""

import errno
import time
from pathlib import Path

import pyarrow as pa
import pytest

from storage import blobs, ledger, manifest, partial
from storage.errors import BlobCorrupt, DiskFull, ManifestMissing, RootNotWritable, SchemaMismatch
from storage.layout import Layout, drafting, replacing, write_bytes
from storage.records import SCHEMAS, FileRef, ManifestRef

ROWS = [{"source": "flickr", "photo_id": "2"}, {"source": "flickr", "photo_id": "1", "filter_reason": "too_small"}]


def test_a_manifest_reads_back_sorted_by_photo_key(where: Layout) -> None:
    """What is written comes back, in the order of the photo key, nulls where nothing was said."""
    ref = manifest.write_rows(where, "filter", ROWS)
    assert manifest.read(where, ref).to_pylist() == [
        {"source": "flickr", "photo_id": "1", "filter_reason": "too_small"},
        {"source": "flickr", "photo_id": "2", "filter_reason": None},
    ]
    assert ref.rows == 2


def test_row_order_does_not_change_the_reference(where: Layout) -> None:
    """The same rows are the same manifest."""
    assert manifest.write_rows(where, "filter", ROWS) == manifest.write_rows(where, "filter", ROWS[::-1])


def test_a_foreign_column_is_refused_by_name(where: Layout) -> None:
    """A stage writes its own columns and no others."""
    table = pa.table({"source": ["a"], "photo_id": ["1"], "split": ["train"]})
    with pytest.raises(SchemaMismatch, match="split"):
        manifest.write(where, "filter", table)


def test_a_column_of_the_wrong_type_is_refused(where: Layout) -> None:
    """Text where a number belongs is no manifest."""
    table = pa.table({"source": ["a"], "photo_id": ["1"]}).append_column("filter_reason", pa.array([[1]]))
    with pytest.raises(SchemaMismatch, match="wrong type"):
        manifest.write(where, "filter", table)


def test_a_missing_manifest_says_so(where: Layout) -> None:
    """Reading what was deleted names the stage."""
    ref = manifest.write_rows(where, "filter", ROWS)
    where.stage("filter", ref.sha256).unlink()
    with pytest.raises(ManifestMissing, match="filter"):
        manifest.read(where, ref)


@pytest.mark.parametrize("harm", ["delete", "truncate", "flip"])
def test_a_harmed_manifest_is_not_intact(where: Layout, harm: str) -> None:
    """Deleted, cut and changed bytes are all noticed, also at equal size."""
    ref = manifest.write_rows(where, "filter", ROWS)
    file = where.stage("filter", ref.sha256)
    assert manifest.intact(where, ref)
    data = bytearray(file.read_bytes())
    if harm == "delete":
        file.unlink()
    elif harm == "truncate":
        file.write_bytes(data[:-1])
    else:
        data[len(data) // 2] ^= 1
        file.write_bytes(data)
    assert not manifest.intact(where, ref)


def test_a_file_reference_follows_its_file(where: Layout) -> None:
    """Any file below the root can be referred to by path and digest."""
    write_bytes(where.run("r") / "report.html", b"<html>")
    ref = manifest.file_ref(where, where.run("r") / "report.html")
    assert ref == FileRef(path="runs/r/report.html", sha256=ref.sha256, size_bytes=6)
    assert manifest.intact(where, ref)


def test_blobs_are_kept_once_and_checked(where: Layout) -> None:
    """A blob is named by its digest, and reading notices other bytes."""
    digest = blobs.put(where, b"picture", "JPEG")
    assert blobs.put(where, b"picture", "JPEG") == digest
    assert blobs.get(where, digest, "JPEG") == b"picture"
    where.blob(digest, "JPEG").write_bytes(b"another")
    with pytest.raises(BlobCorrupt, match=digest):
        blobs.get(where, digest, "JPEG")
    where.blob(digest, "JPEG").unlink()
    with pytest.raises(BlobCorrupt, match="missing"):
        blobs.get(where, digest, "JPEG")


@pytest.mark.parametrize("harm", [b"pic", b"Picture"])
def test_a_damaged_blob_is_written_again(where: Layout, harm: bytes) -> None:
    """A blob that was cut or changed is healed by the next put."""
    digest = blobs.put(where, b"picture", "JPEG")
    where.blob(digest, "JPEG").write_bytes(harm)
    blobs.put(where, b"picture", "JPEG")
    assert blobs.get(where, digest, "JPEG") == b"picture"


def test_nothing_is_left_of_a_write_that_failed(where: Layout) -> None:
    """Neither the file nor its draft stays when the block raises."""
    target = where.root / "file"
    with pytest.raises(ZeroDivisionError), replacing(target) as part:
        part.write_bytes(b"half")
        raise ZeroDivisionError
    assert list(where.root.iterdir()) == []


def test_a_full_disk_has_a_name_and_a_remedy(where: Layout) -> None:
    """ENOSPC becomes DiskFull."""
    with pytest.raises(DiskFull, match="DARKROOM_ROOT"), replacing(where.root / "file"):
        raise OSError(errno.ENOSPC, "no space")


def test_nothing_is_left_of_a_folder_on_a_full_disk(where: Layout) -> None:
    """A draft that is a folder goes with all that it holds, and the error is ours."""
    with pytest.raises(DiskFull, match="DARKROOM_ROOT"), drafting(where.root / "packs") as draft:
        draft.mkdir()
        (draft / "half").write_bytes(b"half")
        raise OSError(errno.ENOSPC, "no space")
    assert list((where.root / "packs").iterdir()) == []


def test_a_root_that_cannot_be_written_says_how_to_mend_it(tmp_path: Path) -> None:
    """A file where the root should be is not a root."""
    (tmp_path / "root").write_text("a file")
    with pytest.raises(RootNotWritable, match="DARKROOM_ROOT"):
        Layout(tmp_path / "root").check_writable()


def test_adopting_rows_twice_adds_them_once(where: Layout) -> None:
    """The ledger is idempotent, so a run may adopt all it has."""
    ref = manifest.write_rows(where, "listings", [{"source": "flickr", "photo_id": "1"}])
    assert ledger.adopt(where, "crops", ref)
    assert not ledger.adopt(where, "crops", ref)
    assert ledger.read(where, "crops", "listings").num_rows == 1


def test_a_ledger_that_never_was_is_empty(where: Layout) -> None:
    """Asking a new dataset for its attempts gives no rows, with their columns."""
    assert ledger.read(where, "new", "attempts").schema.names == SCHEMAS["attempts"].names


def test_references_survive_json() -> None:
    """A reference is what Prefect stores; it must come back equal."""
    ref = ManifestRef(stage="filter", sha256="0" * 64, size_bytes=1, rows=2)
    assert ManifestRef.model_validate_json(ref.model_dump_json()) == ref


def test_a_part_that_vanishes_while_parts_are_swept_harms_nobody(where: Layout) -> None:
    """Its owner has finished between our looking and our asking; drafts of others are none of its business."""
    where.partial.mkdir(parents=True)
    (where.partial / "old.part").write_bytes(b"x")
    (where.partial / ".draft.part").write_bytes(b"x")
    (where.partial / "gone.part").symlink_to(where.partial / "nowhere")
    assert partial.sweep(where.partial, now_s=time.time() + 2 * partial.KEEP_S) == 1
    assert sorted(path.name for path in where.partial.iterdir()) == [".draft.part", "gone.part"]
