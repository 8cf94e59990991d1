"""Keys of sites: from the environment, or else from a Secret block of the Prefect server."""

from typing import Any

from prefect.blocks.system import Secret
from pydantic import SecretStr

from storage.settings import Settings

FLICKR_BLOCK = "flickr-api-key"


def with_keys(settings: Settings) -> Settings:
    """``settings``, with Flickr's key taken from the Secret block FLICKR_BLOCK if the environment has none."""
    if settings.flickr_api_key is not None:
        return settings
    try:
        block: Any = Secret.load(FLICKR_BLOCK)  # Any: typed as what it would be where there is an event loop
    except ValueError:  # there is no such block
        return settings
    return settings.model_copy(update={"flickr_api_key": SecretStr(str(block.get()))})
