"""The sites that photos come from, by name. A new one is a file here and an entry below."""

from typing import Literal, get_args

from tasks.errors import ConfigError
from tasks.sources.base import Source
from tasks.sources.flickr import Flickr

SourceName = Literal["flickr"]
SOURCES: dict[str, Source] = {"flickr": Flickr()}


def named(name: str) -> Source:
    """The source called ``name``; raises ConfigError with the known names."""
    if name not in SOURCES:
        raise ConfigError(f"there is no source {name!r}: choose one of {', '.join(get_args(SourceName))}")
    return SOURCES[name]
