"""Keys of sites: from the environment, or else from a Secret block of the Prefect server."""

from typing import Any

import httpx
from prefect.blocks.system import Secret
from pydantic import SecretStr

from storage.settings import Settings
from tasks.errors import SourceUnavailable

FLICKR_BLOCK = "flickr-api-key"


def with_keys(settings: Settings) -> Settings:
    """``settings``, with Flickr's key taken from the Secret block FLICKR_BLOCK if the environment has none.

    Raises SourceUnavailable if the Prefect server, which keeps the block, cannot be asked.
    """
    if settings.flickr_api_key is not None:
        return settings
    try:
        block: Any = Secret.load(FLICKR_BLOCK)  # Any: typed as what it would be where there is an event loop
    except ValueError:  # there is no such block
        return settings
    except httpx.HTTPError as error:
        raise SourceUnavailable(
            f"the Prefect server, which may keep the key of Flickr in the Secret block {FLICKR_BLOCK!r}, does not "
            f"answer ({type(error).__name__}): see that it runs, or set FLICKR_API_KEY, then run again"
        ) from error
    return settings.model_copy(update={"flickr_api_key": SecretStr(str(block.get()))})
