"""Photos as the Flickr API writes them: JSON fields whose types waver between number and string, as the site's do.

Source: recorded answers of photos.search, getInfo, getSizes and getExif.
"""

from collections.abc import Callable, Collection
from datetime import datetime

from tasks.sources.standin.facts import Photo
from tasks.sources.standin.photo_search import chance, shown_taken_at
from tasks.sources.standin.sizes import ORIGINAL, SIZES, SizedPhoto, public_sizes

Json = dict[str, object]

LICENCES = (
    (0, "All Rights Reserved", "https://www.flickrhelp.com/hc/en-us/articles/10710266545556-Using-Flickr-images"),
    (4, "CC BY 2.0", "https://creativecommons.org/licenses/by/2.0/"),
    (6, "CC BY-ND 2.0", "https://creativecommons.org/licenses/by-nd/2.0/"),
    (3, "CC BY-NC-ND 2.0", "https://creativecommons.org/licenses/by-nc-nd/2.0/"),
    (2, "CC BY-NC 2.0", "https://creativecommons.org/licenses/by-nc/2.0/"),
    (1, "CC BY-NC-SA 2.0", "https://creativecommons.org/licenses/by-nc-sa/2.0/"),
    (5, "CC BY-SA 2.0", "https://creativecommons.org/licenses/by-sa/2.0/"),
    (7, "No known copyright restrictions", "https://www.flickr.com/commons/usage/"),
    (8, "United States Government Work", "https://www.usa.gov/government-copyright"),
    (9, "Public Domain Dedication (CC0)", "https://creativecommons.org/publicdomain/zero/1.0/"),
    (10, "Public Domain Mark", "https://creativecommons.org/publicdomain/mark/1.0/"),
    (11, "CC BY 4.0", "https://creativecommons.org/licenses/by/4.0/"),
    (12, "CC BY-SA 4.0", "https://creativecommons.org/licenses/by-sa/4.0/"),
    (13, "CC BY-ND 4.0", "https://creativecommons.org/licenses/by-nd/4.0/"),
    (14, "CC BY-NC 4.0", "https://creativecommons.org/licenses/by-nc/4.0/"),
    (15, "CC BY-NC-SA 4.0", "https://creativecommons.org/licenses/by-nc-sa/4.0/"),
    (16, "CC BY-NC-ND 4.0", "https://creativecommons.org/licenses/by-nc-nd/4.0/"),
)


def uneven(value: int | float, *identity: object) -> int | float | str:
    """``value`` as a number or as text, by a coin that follows from ``identity``."""
    return value if chance(*identity) < 0.5 else str(value)


def unix(moment: datetime) -> str:
    """Whole seconds since 1970, as text."""
    return str(int(moment.timestamp()))


def listing_row(photo: Photo, extras: Collection[str], image_host: str) -> Json:
    """One entry of ``photos.photo``; a field stands there only if its extra was asked for and has a value."""
    row: Json = {
        "id": photo.id,
        "owner": photo.owner.nsid,
        "secret": photo.secret,
        "server": photo.server,
        "farm": 66,
        "title": photo.title,
        "ispublic": 1,
        "isfriend": 0,
        "isfamily": 0,
    }
    for extra, fields in _EXTRAS.items():
        if extra in extras:
            row |= fields(photo)
    wanted = {f"url_{size.extra}" for size in SIZES} & set(extras)
    if wanted:
        for each in public_sizes(photo):
            if f"url_{each.size.extra}" in wanted:
                row |= _size_fields(each, image_host)
    return row


def _size_fields(each: SizedPhoto, image_host: str) -> Json:
    """url_X, width_X and height_X of one size."""
    letter, photo_id = each.size.extra, each.photo.id
    return {
        f"url_{letter}": (each.size is ORIGINAL and each.photo.file_url) or f"{image_host}/{each.path}",
        f"height_{letter}": uneven(each.height, photo_id, letter, "height"),
        f"width_{letter}": uneven(each.width, photo_id, letter, "width"),
    }


def _taken_fields(photo: Photo) -> Json:
    """An unknown date is the upload's with takenunknown 1, or, for some old photos, all zeros."""
    taken = f"{shown_taken_at(photo):%Y-%m-%d %H:%M:%S}"
    if photo.taken_at is None and chance(photo.id, "zeros") < 0.3:
        taken = "0000-00-00 00:00:00"
    return {
        "datetaken": taken,
        "datetakengranularity": uneven(0, photo.id, "granularity"),
        "datetakenunknown": uneven(int(photo.taken_at is None), photo.id, "unknown"),
    }


def _original_fields(photo: Photo) -> Json:
    """Nothing where the original is hidden."""
    if not photo.is_original_public:
        return {}
    return {"originalsecret": photo.original_secret, "originalformat": photo.original_format}


def _dimension_fields(photo: Photo) -> Json:
    """Of the original, where it is public."""
    if not photo.is_original_public:
        return {}
    return {
        "o_width": uneven(photo.width, photo.id, "o_width"),
        "o_height": uneven(photo.height, photo.id, "o_height"),
    }


def _geo_fields(photo: Photo) -> Json:
    """Zeros where the place is unknown."""
    if photo.location is None:
        return {"latitude": 0, "longitude": 0, "accuracy": 0, "context": 0}
    latitude, longitude = photo.location
    return {
        "latitude": uneven(latitude, photo.id, "latitude"),
        "longitude": uneven(longitude, photo.id, "longitude"),
        "accuracy": uneven(15, photo.id, "accuracy"),
        "context": 0,
        "place_id": "",
        "woeid": "0",
        "geo_is_public": 1,
    }


_EXTRAS: dict[str, Callable[[Photo], Json]] = {
    "license": lambda photo: {"license": uneven(photo.licence, photo.id, "license")},
    "description": lambda photo: {"description": {"_content": photo.description}},
    "date_upload": lambda photo: {"dateupload": unix(photo.uploaded_at)},
    "last_update": lambda photo: {"lastupdate": unix(photo.updated_at)},
    "date_taken": _taken_fields,
    "owner_name": lambda photo: {"ownername": photo.owner.username},
    "realname": lambda photo: {"realname": photo.owner.realname} if photo.owner.realname else {},
    "path_alias": lambda photo: {"pathalias": photo.owner.path_alias},
    "tags": lambda photo: {"tags": " ".join(photo.tags)},
    "machine_tags": lambda photo: {"machine_tags": ""},
    "original_format": _original_fields,
    "o_dims": _dimension_fields,
    "geo": _geo_fields,
    "views": lambda photo: {"views": uneven(photo.views, photo.id, "views")},
    "media": lambda photo: {"media": photo.media, "media_status": "ready"},
    "safety_level": lambda photo: {"safety_level": str(photo.safety_level)},
    "content_type": lambda photo: {"content_type": "0"},
}


def page_address(photo: Photo) -> str:
    """Where a person looks at the photo."""
    return f"https://www.flickr.com/photos/{photo.owner.path_alias or photo.owner.nsid}/{photo.id}/"


def info_row(photo: Photo) -> Json:
    """``photo`` of photos.getInfo."""
    owner = photo.owner
    row: Json = {
        "id": photo.id,
        "secret": photo.secret,
        "server": photo.server,
        "farm": 66,
        "dateuploaded": unix(photo.uploaded_at),
        "isfavorite": 0,
        "license": uneven(photo.licence, photo.id, "license"),
        "safety_level": str(photo.safety_level),
        "rotation": 0,
        "views": uneven(photo.views, photo.id, "views"),
        "media": photo.media,
        "owner": {
            "nsid": owner.nsid,
            "username": owner.username,
            "realname": owner.realname,
            "location": None,
            "iconserver": "0",
            "iconfarm": 0,
            "path_alias": owner.path_alias,
        },
        "title": {"_content": photo.title},
        "description": {"_content": photo.description},
        "visibility": {"ispublic": 1, "isfriend": 0, "isfamily": 0},
        "editability": {"cancomment": 0, "canaddmeta": 0},
        "publiceditability": {"cancomment": 1, "canaddmeta": 0},
        "usage": _usage(photo) | {"canshare": 1},
        "comments": {"_content": "0"},
        "notes": {"note": []},
        "people": {"haspeople": 0},
        "urls": {"url": [{"type": "photopage", "_content": page_address(photo)}]},
    }
    return row | _original_fields(photo) | _info_dates(photo) | _info_tags(photo) | _info_location(photo)


def _usage(photo: Photo) -> Json:
    """Whether the original may be downloaded."""
    return {"candownload": int(photo.is_download_allowed), "canblog": 0, "canprint": 0}


def _info_dates(photo: Photo) -> Json:
    taken = _taken_fields(photo)
    dates = {
        "posted": unix(photo.uploaded_at),
        "taken": taken["datetaken"],
        "takengranularity": taken["datetakengranularity"],
        "takenunknown": taken["datetakenunknown"],
        "lastupdate": unix(photo.updated_at),
    }
    return {"dates": dates}


def _info_tags(photo: Photo) -> Json:
    tags = [
        {
            "id": f"{photo.owner.nsid}-{photo.id}-{position}",
            "author": photo.owner.nsid,
            "authorname": photo.owner.username,
            "raw": tag.title(),
            "_content": tag,
            "machine_tag": 0,
        }
        for position, tag in enumerate(photo.tags)
    ]
    return {"tags": {"tag": tags}}


def _info_location(photo: Photo) -> Json:
    if photo.location is None:
        return {}
    latitude, longitude = map(str, photo.location)
    return {"location": {"latitude": latitude, "longitude": longitude, "accuracy": "15", "context": "0"}}


def size_rows(photo: Photo, image_host: str) -> Json:
    """``sizes`` of photos.getSizes, small to large."""
    rows = [
        {
            "label": each.size.label,
            "width": uneven(each.width, photo.id, each.size.label, "width"),
            "height": uneven(each.height, photo.id, each.size.label, "height"),
            "source": f"{image_host}/{each.path}",
            "url": f"{page_address(photo)}sizes/{each.size.extra}/",
            "media": photo.media,
        }
        for each in public_sizes(photo)
    ]
    return _usage(photo) | {"size": rows}


def exif_rows(photo: Photo) -> Json:
    """``photo`` of photos.getExif."""
    camera = photo.picture.camera
    taken = camera.taken_at.strftime("%Y:%m:%d %H:%M:%S") if camera.taken_at else ""
    tags = (
        ("IFD0", "Make", camera.make),
        ("IFD0", "Model", camera.model),
        ("IFD0", "Software", camera.software),
        ("ExifIFD", "DateTimeOriginal", taken),
    )
    rows = [
        {"tagspace": space, "tagspaceid": 0, "tag": tag, "label": tag, "raw": {"_content": value}}
        for space, tag, value in tags
        if value
    ]
    return {
        "id": photo.id,
        "secret": photo.secret,
        "server": photo.server,
        "farm": 66,
        "camera": camera.model,
        "exif": rows,
    }
