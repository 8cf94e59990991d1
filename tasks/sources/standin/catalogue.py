"""What the site knows, which a test may change while the site runs.

``Catalogue.synthetic`` invents a world of photos for the synthetic camera, ``Catalogue.folder`` serves the pictures of
a folder. Photos are frozen; every change replaces one under a lock, so a reader never sees half of it.
"""

import threading
from collections.abc import Iterable
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from tasks.sources.standin.camera import Lens
from tasks.sources.standin.facts import LicenceChange, Photo, secret
from tasks.sources.standin.folder import folder_photos
from tasks.sources.standin.pictures import Picture, original_bytes
from tasks.sources.standin.world import World


@dataclass
class Catalogue:
    """Photos by id, in the order in which they came. ``seed`` and ``lens`` are those of photos still to be invented."""

    seed: int = 0
    lens: Lens = field(default_factory=Lens)
    long_edges_px: tuple[int, int] = (1440, 1620)

    def __post_init__(self) -> None:
        self._photos: dict[str, Photo] = {}
        self._lock = threading.RLock()

    @classmethod
    def synthetic(
        cls,
        photos: int,
        seed: int = 0,
        lens: Lens | None = None,
        *,
        min_long_px: int = 1440,
        max_long_px: int = 1620,
    ) -> "Catalogue":
        """A world of ``photos`` invented photos: about three quarters usable, the rest every kind of trouble."""
        catalogue = cls(seed=seed, lens=lens or Lens(), long_edges_px=(min_long_px, max_long_px))
        catalogue.add(photos)
        return catalogue

    @classmethod
    def folder(cls, directory: Path | str) -> "Catalogue":
        """Every picture below ``directory``, byte for byte; facts from its photos.csv where there is one."""
        catalogue = cls()
        catalogue.put(folder_photos(Path(directory)))
        return catalogue

    def photos(self) -> list[Photo]:
        """All photos, hidden and deleted ones too."""
        with self._lock:
            return list(self._photos.values())

    def listed(self) -> list[Photo]:
        """The photos that a search may return."""
        return [photo for photo in self.photos() if photo.is_listed]

    def photo(self, photo_id: str) -> Photo | None:
        """The photo of this id, whatever its state."""
        with self._lock:
            return self._photos.get(photo_id)

    def original(self, photo_id: str) -> bytes:
        """The bytes that the image host serves as the original. Raises KeyError for an unknown id."""
        with self._lock:
            picture = self._photos[photo_id].picture
        return original_bytes(picture)

    def put(self, photos: Iterable[Photo]) -> None:
        """Add ``photos``, or replace those of the same id."""
        with self._lock:
            self._photos.update((photo.id, photo) for photo in photos)

    def add(self, count: int = 1, **facts: Any) -> list[Photo]:
        """Invent ``count`` more photos, with ``facts`` (fields of Photo) laid over what is invented."""
        with self._lock:
            world = World(self.seed, self.lens, self.long_edges_px)
            new = [replace(photo, **facts) for photo in world.photos(len(self._photos), count)]
            self.put(new)
        return new

    def change(self, photo_id: str, **facts: Any) -> Photo:
        """Replace ``facts`` (fields of Photo) of one photo; it counts as updated now, unless they say when."""
        with self._lock:
            photo = replace(self._photos[photo_id], **{"updated_at": datetime.now(UTC), **facts})
            self._photos[photo_id] = photo
        return photo

    def retitle(self, photo_id: str, title: str) -> Photo:
        """Give a photo another title."""
        return self.change(photo_id, title=title)

    def relicense(self, photo_id: str, licence: int) -> Photo:
        """Give a photo another licence; its history remembers the old one."""
        with self._lock:
            photo = self._photos[photo_id]
            entry = LicenceChange(datetime.now(UTC), photo.licence, licence)
            return self.change(photo_id, licence=licence, licence_history=(*photo.licence_history, entry))

    def make_private(self, photo_id: str) -> Photo:
        """Hide a photo from everyone but its owner; its files answer on, as they do on the site."""
        return self.change(photo_id, is_public=False)

    def delete(self, photo_id: str, *, keep_file: bool = False) -> Photo:
        """Delete a photo; with ``keep_file`` the image host still has it, as seen on the site."""
        return self.change(photo_id, is_deleted=True, is_file_kept=keep_file)

    def upload_before(self, photo_id: str) -> Photo:
        """Add a photo like this one in the same second, which a search by upload shows right before it."""
        with self._lock:
            photo = replace(self._photos[photo_id], id=f"{photo_id}0")
            self._photos[photo.id] = photo
        return photo

    def replace_file(self, photo_id: str, picture: Picture | None = None) -> Photo:
        """Put another picture (by default of another scene) behind a photo: both secrets change, old addresses end."""
        with self._lock:
            photo = self._photos[photo_id]
            if picture is None:
                if photo.picture.scene is None:
                    raise ValueError(f"photo {photo_id!r} is a file of a folder: say which picture replaces it")
                picture = replace(photo.picture, scene=replace(photo.picture.scene, seed=photo.picture.scene.seed + 1))
            secrets = {"secret": secret(photo.secret, "new"), "original_secret": secret(photo.original_secret, "new")}
            return self.change(photo_id, picture=picture, **secrets)
