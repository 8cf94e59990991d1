"""Settings from the environment. The only module of the product that reads it.

======================== ==========================================================================
``DARKROOM_ROOT``        where everything is kept (default: ``data`` beside this checkout)
``FLICKR_API_KEY``       a Flickr API key: https://www.flickr.com/services/apps/create/
``DARKROOM_FLICKR_URL``  Flickr's REST endpoint, or that of a stand-in
``DARKROOM_PX500_URL``   500px's GraphQL endpoint, or that of a stand-in
``DARKROOM_PX500``       ``on``: 500px may be asked (its terms: see the README)
``DARKROOM_IMAGE_HOSTS`` comma-separated hosts (``host`` or ``host:port``) that images may come from besides those that
                         a source declares; the only way to an address of this machine or of a private network
``DARKROOM_CONTACT``     an address for the User-Agent, so that a site can reach you
``DARKROOM_API_CALLS_PER_HOUR``  of one key, over all workers (default 3000; Flickr wants less than 3,600)
``DARKROOM_IMAGES_PER_S``        of one image host, over all workers (default 20)
``DARKROOM_DISK_GB``     how large the folder of photos may grow (default: until 2 GB are free)
``DARKROOM_DEVICE``      ``auto``, ``cpu`` or ``cuda``: where training runs
``DARKROOM_THREADS``     CPU threads of a training process (default: all cores)
``DARKROOM_FILES_URL``   where ``make ui`` serves reports and pictures to the browser
======================== ==========================================================================
"""

import os
from functools import cache
from pathlib import Path

from pydantic import Field, SecretStr, ValidationError
from pydantic_settings import BaseSettings, SettingsConfigDict

from storage.errors import ConfigError

CHECKOUT = Path(__file__).resolve().parents[1]


class Settings(BaseSettings):
    """What a machine says of itself; what a dataset is stands in its flow parameter."""

    model_config = SettingsConfigDict(env_prefix="DARKROOM_", env_ignore_empty=True, extra="ignore", frozen=True)

    root: Path = CHECKOUT / "data"
    flickr_api_key: SecretStr | None = Field(default=None, validation_alias="FLICKR_API_KEY")
    flickr_url: str = "https://api.flickr.com/services/rest/"
    px500_url: str = "https://api-neo.500px.com/graphql"
    px500: bool = False
    image_hosts: str = ""
    contact: str = ""
    api_calls_per_hour: int = Field(default=3000, ge=1)
    images_per_s: float = Field(default=20.0, gt=0)
    disk_gb: float | None = Field(default=None, gt=0)
    files_url: str = "http://127.0.0.1:4280"
    device: str = "auto"
    threads: int | None = None

    @property
    def allowed_image_hosts(self) -> frozenset[str]:
        """Hosts that an image may be fetched from besides those of its source, ``host`` or ``host:port``."""
        return frozenset(host.strip() for host in self.image_hosts.split(",") if host.strip())


@cache
def settings() -> Settings:
    """The settings of this process, read once; ``settings.cache_clear()`` reads them again. Raises ConfigError."""
    try:
        return Settings()
    except ValidationError as error:
        wrong = "; ".join(
            f"DARKROOM_{'_'.join(map(str, each['loc'])).upper()}: {each['msg']}" for each in error.errors()
        )
        raise ConfigError(f"a setting of the environment cannot be used: {wrong}") from None


def child_environment(**changes: str) -> dict[str, str]:
    """This process's environment with ``changes``, for a process that it starts; a key goes only where it is given."""
    return {name: value for name, value in os.environ.items() if name != "FLICKR_API_KEY"} | changes


def apply_environment(**changes: str) -> None:
    """Change this process's environment, and what ``settings()`` says from now on."""
    os.environ.update(changes)
    settings.cache_clear()
