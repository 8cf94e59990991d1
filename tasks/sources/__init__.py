"""The sites that photos come from, by name. A new one is a file here and an entry below."""

from typing import Literal, get_args

from tasks.errors import ConfigError
from tasks.sources.base import Source
from tasks.sources.flickr import Flickr
from tasks.sources.folder import Folder
from tasks.sources.px500 import Px500
from tasks.sources.table import Table

SourceName = Literal["flickr", "500px", "folder", "table"]
SOURCES: dict[str, Source] = {"flickr": Flickr(), "500px": Px500(), "folder": Folder(), "table": Table()}


def named(name: str) -> Source:
    """The source called ``name``; raises ConfigError with the known names."""
    if name not in SOURCES:
        raise ConfigError(f"there is no source {name!r}: choose one of {', '.join(get_args(SourceName))}")
    return SOURCES[name]
