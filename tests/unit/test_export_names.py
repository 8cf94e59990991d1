"""Names of exported files and folders are safe, the same each time, and never the same twice."""

import re
import unicodedata

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tasks.exports.export_names import UNLABELLED, class_folders, stem

IDS = st.one_of(st.text(min_size=1), st.from_regex(r"[a-zA-Z0-9_/.-]{1,60}", fullmatch=True))


@pytest.mark.parametrize(
    ("photo_id", "name"), [("53312345678", "flickr-53312345678"), ("a-b_c", "flickr-a-b_c")]
)  # fmt: skip
def test_plain_ids_stand_as_they_are(photo_id: str, name: str) -> None:
    """A number is its own name."""
    assert stem("flickr", photo_id) == name


@pytest.mark.parametrize(
    "photo_id", ["a/b.jpg", "../../etc/passwd", 'a\n"b"😀', "", ".", "A", "a--b", "a" * 300, "con"]
)
def test_a_stem_is_safe(photo_id: str) -> None:
    """ASCII letters, digits, dashes and underscores, short, and no dot: a sample's key ends at the first."""
    assert re.fullmatch(r"folder-[A-Za-z0-9_-]{1,80}", stem("folder", photo_id))


@given(st.lists(IDS, unique=True, min_size=2))
def test_no_two_photos_have_one_stem(ids: list[str]) -> None:
    """Not even on a file system that minds no case."""
    stems = {stem(source, photo_id).casefold() for source in ("folder", "table") for photo_id in ids}
    assert len(stems) == 2 * len(ids)


@given(st.lists(IDS, unique=True))
def test_no_two_labels_have_one_folder(labels: list[str]) -> None:
    """Folders are single, safe names, told apart whatever their case and their way of writing accents."""
    folders = class_folders(labels)
    assert set(folders) == set(labels)
    seen = {unicodedata.normalize("NFC", folder).casefold() for folder in [*folders.values(), UNLABELLED]}
    assert len(seen) == len(labels) + 1
    for folder in folders.values():
        assert 0 < len(folder.encode()) <= 120
        assert not set(folder) & set('/\\\0\n:*?"<>|')
        assert not folder.startswith(".")


@pytest.mark.parametrize("label", ["bee", "Honey bee", "浮世絵", "naïve", "a-b"])
def test_ordinary_labels_are_their_own_folders(label: str) -> None:
    """Spaces, accents and other scripts are no danger."""
    assert class_folders([label]) == {label: label}


def test_a_folder_does_not_depend_on_the_other_labels_unless_it_must() -> None:
    """Labels that differ by case both have a digest; a third stays as it is."""
    folders = class_folders(["bee", "Bee", "ant"])
    assert folders["ant"] == "ant"
    assert folders["bee"].startswith("bee--")
    assert folders["Bee"].startswith("Bee--")
