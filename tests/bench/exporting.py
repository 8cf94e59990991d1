"""How fast a snapshot becomes a tree of classes: on one thread, on all, and beside a loop that only copies the files.

Run: ``python tests/bench/exporting.py DIR [--photos 1000] [--rounds 3]`` with a folder of pictures; prints a Markdown
table. The photos are read from blobs, checked by their digests, and looked through for places, as an export does; those
of a second set lie on their side, so that each is decoded, turned and encoded anew.
"""

import argparse
import shutil
import statistics
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from storage import blobs, manifest
from storage.layout import Layout
from tasks import export
from tasks.exports import export_photos
from tasks.exports.export_photos import ExportRules
from tasks.pictures import imaging
from tasks.publish import publish_snapshot


def publish(where: Layout, name: str, files: list[Path], photos: int, net_op: int) -> list[Path]:
    """A snapshot of so many photos; the paths of their blobs."""
    rows: list[dict[str, Any]] = []
    for number in range(photos):
        data = files[number % len(files)].read_bytes()
        data = data[:2] + b"\xff\xfe\x00\x06" + number.to_bytes(4, "big") + data[2:]  # a comment: each its own file
        kind = imaging.identify(data)
        width, height = imaging.stored_size(data)
        sha256 = blobs.put(where, data, kind)
        rows.append({
            "source": "folder", "photo_id": f"{number:06d}", "owner_id": "", "sha256": sha256, "blob": sha256,
            "format": kind, "net_op": net_op, "landscape_turns": 0, "width": width, "height": height, "verdict": True,
            "split": "train", "label": f"class {number % 10}", "long_px": max(width, height), "bytes": len(data),
            "short_px": min(width, height),
        })  # fmt: skip
    publish_snapshot(where, name, {}, manifest.write_rows(where, "publish", rows), {})
    return [where.blob(row["sha256"], row["format"]) for row in rows]


def copied(paths: list[Path], folder: Path) -> None:
    """What ``shutil.copytree`` does: one file after the other."""
    for number, path in enumerate(paths):
        target = folder / "train" / f"class {number % 10}" / path.name
        target.parent.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(path, target)


def exported(where: Layout, name: str, threads: int, folder: Path) -> None:
    """An export on so many threads."""
    export_photos.THREADS = threads
    export.write_export(where, name, 1, ExportRules(), folder)


def timed(work: Callable[[Path], None], folder: Path) -> tuple[float, float]:
    """(wall, CPU) seconds of ``work``, whose folder is deleted again."""
    begun, spent = time.perf_counter(), time.process_time()
    work(folder)
    taken = time.perf_counter() - begun, time.process_time() - spent
    shutil.rmtree(folder)
    return taken


def main() -> None:
    """Print photos per second of each way, the rounds interleaved."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("folder", type=Path)
    parser.add_argument("--photos", type=int, default=1000)
    parser.add_argument("--rounds", type=int, default=3)
    asked = parser.parse_args()
    files = sorted(path for path in asked.folder.rglob("*") if path.suffix.lower() in {".jpg", ".jpeg"})
    turned = max(1, asked.photos // 10)
    with tempfile.TemporaryDirectory() as scratch:
        where = Layout(Path(scratch))
        paths = publish(where, "upright", files, asked.photos, 1)
        publish(where, "lying", files, turned, 6)
        threads = export_photos.THREADS
        ways: dict[str, tuple[int, Callable[[Path], None]]] = {
            "copied, one after the other": (asked.photos, lambda folder: copied(paths, folder)),
            "exported, 1 thread": (asked.photos, lambda folder: exported(where, "upright", 1, folder)),
            f"exported, {threads} threads": (asked.photos, lambda folder: exported(where, "upright", threads, folder)),
            "turned and exported, 1 thread": (turned, lambda folder: exported(where, "lying", 1, folder)),
            f"turned and exported, {threads} threads": (
                turned,
                lambda folder: exported(where, "lying", threads, folder),
            ),
        }
        took: dict[str, list[tuple[float, float]]] = {name: [] for name in ways}
        for _ in range(asked.rounds):
            for name, (_, work) in ways.items():
                took[name].append(timed(work, where.root / "out"))
        megabytes = sum(path.stat().st_size for path in paths) / len(paths) / 1e6
        print(f"{asked.photos} photos of {megabytes:.2f} MB, {turned} of them turned; {asked.rounds} rounds\n")
        print("| way | photos/s, best | photos/s, median | CPU s a 1,000 photos |\n|---|---:|---:|---:|")
        for name, (photos, _) in ways.items():
            walls = [wall for wall, _ in took[name]]
            cpu = min(cpu for _, cpu in took[name]) * 1000 / photos
            print(f"| {name} | {photos / min(walls):,.0f} | {photos / statistics.median(walls):,.0f} | {cpu:.2f} |")


if __name__ == "__main__":
    main()
