"""An invented world of photos: owners of very uneven diligence, titles good and hostile, files sound and broken.

Photo number k is a pure function of (seed, k) and of how many photos were added with it. About three quarters are of
aspect 3:2 and large enough; each of the others shows one trouble (``ROLES``).
"""

import random
from bisect import bisect
from dataclasses import dataclass, replace
from datetime import UTC, datetime, timedelta
from itertools import accumulate

from tasks.sources.standin import words
from tasks.sources.standin.camera import CameraFacts, Lens
from tasks.sources.standin.facts import Owner, Photo, secret
from tasks.sources.standin.pictures import Picture, Scene

PHOTOS_PER_OWNER = 6
EPOCH = datetime(2024, 1, 1, tzinfo=UTC)
UPLOAD_SPAN_S = 731 * 86_400  # 2024-01-01 to 2025-12-31
FIRST_ID = 53_000_000_000
ALL_ROLES_FROM = 60  # photos; below that, roles rarer than one photo are left out

# Share of the photos of each kind; "plain" is the rest.
ROLES = {
    "exif_6": 0.03,
    "exif_8": 0.02,
    "portrait_aligned": 0.03,  # both sides multiples of 16 px: turns without loss
    "portrait_unaligned": 0.02,
    "png": 0.01,
    "webp": 0.02,
    "original_hidden": 0.04,
    "edited": 0.02,
    "too_small": 0.03,
    "wrong_aspect": 0.05,
    "exact": 0.02,
    "reencoded": 0.01,
    "resized": 0.01,
    "turned": 0.01,
    "mirrored": 0.01,
    "watermarked": 0.01,
    "brighter": 0.01,
    "grey": 0.01,
    "truncated": 0.01,
    "zero_bytes": 0.01,
    "html": 0.01,
    "png_named_jpg": 0.01,
    "corrupt": 0.01,
    "bomb": 0.01,
    "missing": 0.01,
    "noimageai": 0.01,
}
DUPLICATES = ("exact", "reencoded", "resized", "turned", "mirrored", "watermarked", "brighter")
DEFECTS = ("truncated", "zero_bytes", "html", "png_named_jpg", "corrupt", "bomb", "missing", "noimageai")
LANDSCAPES = ((1440, 960), (1500, 1000), (1536, 1024), (1584, 1056), (1620, 1080), (2040, 1360), (2400, 1600))
WRONG_ASPECTS = ((16, 9), (4, 3), (1, 1), (5, 4), (2, 1))
LICENCE_WEIGHTS = (40, 8, 3, 6, 9, 6, 2, 3, 2, 4, 2, 5, 4, 1, 2, 2, 1)  # of the ids 0 to 16


@dataclass(frozen=True)
class World:
    """Where photos are invented. ``long_edges_px`` bounds the long edge of all but the small ones."""

    seed: int
    lens: Lens
    long_edges_px: tuple[int, int]

    def photos(self, first: int, count: int) -> list[Photo]:
        """Photos number ``first`` to ``first + count - 1``; what is reposted stands earlier in the same batch."""
        roles = self._roles(first, count)
        owners = _Owners(self.seed, max(4, (first + count) // PHOTOS_PER_OWNER))
        photos: list[Photo] = []
        originals: list[Photo] = []
        for index, role in enumerate(roles, start=first):
            chance = random.Random(f"{self.seed}/photo/{index}")
            photo = self._photo(index, role, owners.choose(chance), chance)
            if role in DUPLICATES:
                photo = _repost(photo, role, chance.choice(originals))
            elif role == "plain":
                originals.append(photo)
            photos.append(photo)
        return photos

    def _roles(self, first: int, count: int) -> list[str]:
        """A shuffled deck; the first card is plain, so that there is something to repost."""
        deck = [role for role, share in ROLES.items() for _ in range(_copies(share, count))]
        deck += ["plain"] * (count - len(deck))
        random.Random(f"{self.seed}/roles/{first}/{count}").shuffle(deck)
        where = deck.index("plain") if deck else 0
        deck[:1], deck[where : where + 1] = deck[where : where + 1], deck[:1]
        return deck

    def _photo(self, index: int, role: str, owner: Owner, chance: random.Random) -> Photo:
        """One photo that repeats no other."""
        photo_id = str(FIRST_ID + index * 7_919 + self.seed % 7_919)
        uploaded_at = EPOCH + timedelta(seconds=chance.randrange(UPLOAD_SPAN_S))
        taken_at = _taken_at(uploaded_at, chance)
        text = words.describe(index, chance)
        return Photo(
            id=photo_id,
            secret=secret(self.seed, photo_id),
            original_secret=secret(self.seed, photo_id, "original"),
            owner=owner,
            picture=self._picture(index, role, owner, taken_at, chance),
            title=text.title,
            description=text.description,
            tags=text.tags,
            licence=chance.choices(range(17), LICENCE_WEIGHTS)[0],
            uploaded_at=uploaded_at,
            updated_at=uploaded_at + timedelta(hours=chance.randrange(1, 200)),
            taken_at=taken_at,
            location=_location(chance),
            views=int(chance.paretovariate(0.8) * 10),
            is_original_public=role != "original_hidden",
            is_exif_public=chance.random() > 0.1,
        )

    def _picture(
        self, index: int, role: str, owner: Owner, taken_at: datetime | None, chance: random.Random
    ) -> Picture:
        """The file of a photo in this role."""
        width, height = self._size(role, chance)
        make, model = words.CAMERAS[hash_of(owner.nsid) % len(words.CAMERAS)]
        software = "Adobe Photoshop 26.1 (Macintosh)" if role == "edited" else f"{model} Ver.1.0"
        orientation = {"exif_6": 6, "exif_8": 8}.get(role, 1)
        return Picture(
            width=width,
            height=height,
            format=role if role in ("png", "webp") else "jpg",
            scene=Scene(hash_of(self.seed, "scene", index), width, height, self.lens),
            alteration="grey" if role == "grey" else None,
            defect=role if role in DEFECTS else None,
            camera=CameraFacts(make, model, taken_at, orientation, software),
        )

    def _size(self, role: str, chance: random.Random) -> tuple[int, int]:
        """(width, height) of the stored pixels."""
        least, most = self.long_edges_px
        sizes = [size for size in LANDSCAPES if least <= size[0] <= most] or [(most, most * 2 // 3)]
        width, height = chance.choice(sizes)
        if role == "too_small":
            long_px = min(least - 1, chance.choice((1024, 800, 1200)))
            return long_px, long_px * 2 // 3
        if role == "wrong_aspect":
            across, down = chance.choice(WRONG_ASPECTS)
            return width, width * down // across
        if role == "portrait_aligned":
            return _portrait(height // 32 * 32)
        if role == "portrait_unaligned":
            return _portrait(height // 16 * 16 + 4)
        return width, height


def _portrait(width: int) -> tuple[int, int]:
    """2:3 of an even width; from a multiple of 32 px, both sides are multiples of 16."""
    return width, width * 3 // 2


def _copies(share: float, count: int) -> int:
    """How many of ``count`` photos have a role of this share."""
    return max(round(share * count), 1 if count >= ALL_ROLES_FROM else 0)


def hash_of(*identity: object) -> int:
    """A number below 2^40 that follows from ``identity``."""
    return int(secret("number", *identity), 16)


class _Owners:
    """A population in which the owner of rank r has a share of 1 / (r + 3): few upload much, most upload little."""

    def __init__(self, seed: int, count: int) -> None:
        self._seed = seed
        self._cumulative = list(accumulate(1 / (rank + 3) for rank in range(count)))

    def choose(self, chance: random.Random) -> Owner:
        """An owner by share."""
        return self.owner(bisect(self._cumulative, chance.random() * self._cumulative[-1]))

    def owner(self, rank: int) -> Owner:
        """The owner of one rank: the same person in every batch."""
        chance = random.Random(f"{self._seed}/owner/{rank}")
        first, last = chance.choice(words.FIRST_NAMES), chance.choice(words.LAST_NAMES)
        return Owner(
            nsid=f"{10_000_000 + rank * 37}@N{chance.randrange(100):02d}",
            username=chance.choice((f"{first} {last}", f"{first}_{rank}", f"{first.lower()}.{last.lower()}")),
            realname=f"{first} {last}" if chance.random() < 0.7 else "",
            path_alias=f"{first}{last}{rank}".lower() if chance.random() < 0.7 and last.isascii() else None,
        )


def _taken_at(uploaded_at: datetime, chance: random.Random) -> datetime | None:
    """Some days before the upload; unknown for one photo in twelve."""
    if chance.random() < 1 / 12:
        return None
    return uploaded_at - timedelta(seconds=int(chance.expovariate(1 / (20 * 86_400))))


def _location(chance: random.Random) -> tuple[float, float] | None:
    """(latitude, longitude) in degrees near a town; two photos in five have one."""
    if chance.random() > 0.4:
        return None
    latitude, longitude = chance.choice(list(words.PLACES.values()))
    return round(latitude + chance.gauss(0, 0.05), 6), round(longitude + chance.gauss(0, 0.05), 6)


def _repost(photo: Photo, kind: str, of: Photo) -> Photo:
    """``photo`` with the picture of another, as it is or altered; by another owner, after the original."""
    picture = of.picture
    if kind == "resized":
        width = 1440 if picture.width != 1440 else 1500
        picture = replace(picture, width=width, height=width * 2 // 3)
    elif kind == "turned":
        picture = replace(picture, width=picture.height, height=picture.width)
    if kind != "exact":
        picture = replace(picture, alteration=kind, camera=CameraFacts())
    uploaded_at = max(photo.uploaded_at, of.uploaded_at + timedelta(days=1))
    return replace(
        photo,
        picture=picture,
        owner=photo.owner if photo.owner != of.owner else _stranger(of.owner),
        uploaded_at=uploaded_at,
        updated_at=uploaded_at + timedelta(hours=1),
        taken_at=of.taken_at,
        duplicate_of=of.id,
        duplicate_kind=kind,
    )


def _stranger(owner: Owner) -> Owner:
    """An owner who only reposts what ``owner`` took."""
    return Owner(nsid=f"9{owner.nsid}", username=f"best of {owner.username}")
