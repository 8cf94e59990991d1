"""Everything that was published, as views of an in-memory DuckDB: for questions that no report answers.

Example: ``with views.connect(layout()) as db: db.sql("from photos where dataset = 'crops' and is_latest").show()``
"""

from __future__ import annotations

import json
import logging
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import duckdb
import pyarrow as pa

from storage import catalog, migration, removals
from storage.layout import Layout
from storage.records import MOMENT, SCHEMAS, SPLITS

LOG = logging.getLogger(__name__)
_SNAPSHOTS = pa.schema([
    ("dataset", pa.string()), ("version", pa.int32()), ("parent", pa.int32()), ("restores", pa.int32()),
    ("is_latest", pa.bool_()), ("created_at", MOMENT), ("code_version", pa.string()),
    *((part, pa.int64()) for part in (*SPLITS, "rejected")), ("uri", pa.string()),
])  # fmt: skip
_RUNS = pa.schema([
    ("run_id", pa.string()), ("recipe", pa.string()), ("seed", pa.int64()), ("is_evaluated", pa.bool_()),
    ("figures", pa.map_(pa.string(), pa.float64())), ("uri", pa.string()),
])  # fmt: skip


@contextmanager
def connect(layout: Layout) -> Iterator[duckdb.DuckDBPyConnection]:
    """A database of all that lies below the root, as it is now.

    ``photos`` and ``rejected``: the rows of all versions of all datasets, with dataset, version and is_latest before
    them, so that ``where version = 3`` is time travel; what older versions did not know is null, and ``photos`` leaves
    out what was removed since. ``snapshots``: a row each version. ``runs``: a row each training, with its figures by
    name. ``removals``: what must not come back.
    """
    with duckdb.connect() as db:
        db.execute("set timezone = 'UTC'")
        published = list(_snapshots(layout))
        db.register("snapshots", pa.Table.from_pylist(published, schema=_SNAPSHOTS))
        db.register("runs", pa.Table.from_pylist(list(_runs(layout)), schema=_RUNS))
        db.register("removals", removals.read(layout))
        db.register("no_photos", SCHEMAS["publish"].empty_table())
        db.execute(f"create view photos as {_published(published, SPLITS)} {_not_removed(removals.read(layout))}")
        db.execute(f"create view rejected as {_published(published, ('rejected',))}")
        yield db


def all_versions(layout: Layout) -> list[tuple[str, int]]:
    """(dataset, version) of everything that was published."""
    names = sorted(folder.name for folder in (layout.root / "datasets").glob("[!.]*"))
    return [(name, version) for name in names for version in catalog.versions(layout, name)]


def _published(published: list[dict[str, Any]], parts: tuple[str, ...]) -> str:
    """The query for rows of ``parts`` of all versions: a branch each, so that DuckDB opens only those asked for."""
    branches = ["select null::varchar as dataset, null::int as version, null::bool as is_latest, * from no_photos"]
    for each in published:
        files = [Path(each["uri"]) / f"{part}.parquet" for part in parts]
        names = ", ".join(f'"{name}"' for name in migration.names_in(files) if name in SCHEMAS["publish"].names)
        paths = ", ".join(_quoted(str(file)) for file in files)
        branches.append(
            f"select {_quoted(each['dataset'])} as dataset, {each['version']}::int as version, "
            f"{each['is_latest']} as is_latest, {names} from read_parquet([{paths}], hive_partitioning = false)"
        )
    return f"select * from ({' union all by name '.join(branches)}) published"


def _quoted(text: str) -> str:
    """``text`` as SQL writes it."""
    return "'" + text.replace("'", "''") + "'"


def _not_removed(gone: pa.Table) -> str:
    """The joins that leave out what ``gone`` (schema "removals") blocks, one for each combination of columns given."""
    given = {tuple(name for name in removals.COLUMNS if row[name] is not None) for row in gone.to_pylist()}
    return " ".join(
        f"anti join (select {', '.join(names)} from removals where "
        + " and ".join(f"{name} is {'not ' if name in names else ''}null" for name in removals.COLUMNS)
        + f") using ({', '.join(names)})"
        for names in sorted(given) if names
    )  # fmt: skip


def _snapshots(layout: Layout) -> Iterator[dict[str, Any]]:
    """What each version says of itself; one of which a file is damaged or gone is left out, and told in the log."""
    for name, version in all_versions(layout):
        try:
            found = _snapshot(layout, name, version)
            pa.Table.from_pylist([found], schema=_SNAPSHOTS)
            migration.names_in([Path(found["uri"]) / f"{part}.parquet" for part in (*SPLITS, "rejected")])
        except (OSError, ValueError, KeyError, TypeError, OverflowError, RecursionError) as error:
            LOG.warning("the views leave out version %d of %r, for it is damaged: %s", version, name, _briefly(error))
        else:
            yield found


def _briefly(error: Exception) -> str:
    return f"{type(error).__name__}: {error}".partition("\n")[0][:200]


def _snapshot(layout: Layout, name: str, version: int) -> dict[str, Any]:
    card: dict[str, Any] = catalog.card(layout, name, version)
    return {
        **card["counts"], "dataset": name, "version": version, "parent": card["parent"],
        "restores": card.get("restores"), "is_latest": version == catalog.versions(layout, name)[-1],
        "created_at": catalog.published_at(layout, name, version), "code_version": card["code_version"],
        "uri": str(layout.snapshot(name, version)),
    }  # fmt: skip


def _runs(layout: Layout) -> Iterator[dict[str, Any]]:
    """What each folder of a run says of itself; what cannot be read there is null, and told in the log."""
    for file in sorted(layout.root.glob("runs/*/train.run.json")):
        judged = file.with_name("evaluation.json")
        asked = _read(file, lambda said: {"recipe": said["recipe"]["name"], "seed": said["seed"]})
        found = _read(judged, lambda said: {"figures": [(each["name"], each["value"]) for each in said["figures"]]})
        yield {
            "run_id": file.parent.name, **asked, "is_evaluated": bool(found), "figures": [], **found,
            "uri": str(file.parent),
        }  # fmt: skip


def _read(file: Path, columns: Callable[[Any], dict[str, Any]]) -> dict[str, Any]:
    """``columns``, of _RUNS, of the JSON in ``file``; none if it is not there, or damaged."""
    try:
        found = columns(json.loads(file.read_bytes()))
        pa.Table.from_pylist([found], schema=pa.schema([_RUNS.field(name) for name in found]))  # or none could be made
    except FileNotFoundError:
        return {}
    except (OSError, ValueError, KeyError, TypeError, OverflowError, RecursionError) as error:  # Arrow's among them
        LOG.warning("the views lack what %r says, for it is damaged (%s)", str(file), type(error).__name__)
        return {}
    return found
