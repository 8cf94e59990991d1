"""Owners and photos as the site knows them: frozen rows."""

import hashlib
from dataclasses import dataclass
from datetime import datetime

from tasks.sources.standin.pictures import Picture


@dataclass(frozen=True)
class Owner:
    """A photographer."""

    nsid: str
    username: str
    realname: str = ""
    path_alias: str | None = None


@dataclass(frozen=True)
class LicenceChange:
    """A licence that was replaced by another."""

    changed_at: datetime
    old: int
    new: int


@dataclass(frozen=True)
class Photo:
    """The facts of one photo. ``secret`` opens sizes up to 1024 px, ``original_secret`` the original and larger ones.

    ``taken_at`` None is unknown. ``is_original_public`` False hides url_o, as
    does ``is_download_allowed`` False, though not the smaller sizes. ``is_deleted`` photos are unknown to the
    API; the image host forgets them too, unless ``is_file_kept``. ``file_url``: what the API gives as the address of
    the original, if it is not the true one.
    """

    id: str
    secret: str
    original_secret: str
    owner: Owner
    picture: Picture
    title: str
    uploaded_at: datetime
    updated_at: datetime
    description: str = ""
    tags: tuple[str, ...] = ()
    licence: int = 0
    licence_history: tuple[LicenceChange, ...] = ()
    taken_at: datetime | None = None
    location: tuple[float, float] | None = None
    views: int = 0
    safety_level: int = 0
    media: str = "photo"
    server: str = "65535"
    is_public: bool = True
    is_deleted: bool = False
    is_file_kept: bool = False
    is_original_public: bool = True
    is_download_allowed: bool = True
    is_exif_public: bool = True
    file_url: str | None = None
    duplicate_of: str | None = None
    duplicate_kind: str | None = None

    @property
    def width(self) -> int:
        """Of the original's stored pixels."""
        return self.picture.width

    @property
    def height(self) -> int:
        """Of the original's stored pixels."""
        return self.picture.height

    @property
    def original_format(self) -> str:
        """jpg, png, webp or gif."""
        return self.picture.format

    @property
    def orientation(self) -> int:
        """EXIF orientation of the original, 1 to 8."""
        return self.picture.camera.orientation

    @property
    def defect(self) -> str | None:
        """What is wrong with its bytes, one of ``defects.DEFECTS``."""
        return self.picture.defect

    @property
    def is_listed(self) -> bool:
        """Whether a search by a stranger may return it (once it is indexed)."""
        return self.is_public and not self.is_deleted and self.safety_level == 0


def secret(*identity: object) -> str:
    """Ten hexadecimal digits that follow from ``identity``."""
    return hashlib.sha256("/".join(map(str, identity)).encode()).hexdigest()[:10]
