"""Where the key of a site comes from when the environment has none."""

import httpx
import pytest
from prefect.blocks.system import Secret

from storage.settings import Settings
from tasks.credentials import with_keys
from tasks.errors import SourceUnavailable


@pytest.mark.parametrize("error", [httpx.ConnectError("refused"), httpx.ReadTimeout("slow")])
def test_a_server_that_is_away_is_asked_again_later(monkeypatch: pytest.MonkeyPatch, error: httpx.HTTPError) -> None:
    """Whether it keeps the key is not known: that passes, and is no missing key."""

    def load(name: str) -> Secret[str]:
        raise error

    monkeypatch.setattr(Secret, "load", load)
    with pytest.raises(SourceUnavailable, match="'flickr-api-key', does not answer"):
        with_keys(Settings(flickr_api_key=None))


def test_without_a_block_there_is_no_key(monkeypatch: pytest.MonkeyPatch) -> None:
    """The server says so, and the source then names what to set."""

    def load(name: str) -> Secret[str]:
        raise ValueError(f"Unable to find block document named {name}")

    monkeypatch.setattr(Secret, "load", load)
    assert with_keys(Settings(flickr_api_key=None)).flickr_api_key is None
