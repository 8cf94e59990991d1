"""Words of tags: how a tag is written, its lemma, and the label that a versioned map file gives it.

A map is a TOML file, ``tasks/mappings/<name>.<version>.toml`` or one of your own. A changed map is a new version; what
a dataset used stands whole in its rules, so an edit in place is noticed too.

    about = "what it is for"
    keep_unlisted = false             # words that it does not name are lost; true: they are labels of their own
    ignore = ["recipe"]               # words that say nothing
    [exceptions]                      # words that the lemmatiser gets wrong
    leaves = "leaf"
    [groups]                          # labels, each with its words, as written or as lemmas
    sweets = ["cake", "ice cream"]

Tags of the form namespace:predicate=value (machine tags, as Flickr calls them) are data for programs: no map makes them
labels.

Lemmas: Barbaresi, "simplemma", doi 10.5281/zenodo.4673264 (a dictionary for each language, nothing is downloaded).
"""

import re
import tomllib
import unicodedata
from dataclasses import dataclass
from functools import cached_property
from typing import Annotated, Literal, NamedTuple, Self

import simplemma
from pydantic import BaseModel, ConfigDict, Field, ValidationError, field_validator, model_validator

from storage.settings import CHECKOUT, settings
from tasks.errors import ConfigError

MAPPINGS = CHECKOUT / "tasks" / "mappings"
MAX_MAP_BYTES = 1_000_000
Loss = Literal["empty", "split", "machine_tag", "ignored", "unmapped"]
_INVISIBLE = re.compile("[\u00ad\u200b\u2060\ufe0e\ufe0f\ufeff]")  # soft hyphens, joints, how an emoji is drawn
_SPLIT = re.compile("split:(train|val|test)")  # a data set's own split, which an import keeps as a tag
_MACHINE_TAG = re.compile(r"[\s#]*[a-z]\w*:[a-z]\w*=.*", re.ASCII | re.IGNORECASE | re.DOTALL)
_NAME = re.compile(r"[a-z0-9-]+\.\d+")
_BLANKS = re.compile(r"[\s_]+")


class LabelMap(BaseModel):
    """Which words become which label. Words are compared as ``normalise`` writes them."""

    model_config = ConfigDict(frozen=True, extra="forbid", title="Label map")

    name: Annotated[str, Field(description="What it is called.")] = ""
    about: Annotated[str, Field(description="What it is for.")] = ""
    keep_unlisted: Annotated[bool, Field(description="Words that no group names are labels of their own.")] = False
    ignore: Annotated[tuple[str, ...], Field(description="Words that say nothing.")] = ()
    exceptions: Annotated[dict[str, str], Field(description="Words that the lemmatiser gets wrong, and theirs.")] = {}
    groups: Annotated[dict[str, tuple[str, ...]], Field(description="Labels and their words.")] = {}

    @field_validator("ignore")
    @classmethod
    def _ignored(cls, words: tuple[str, ...]) -> tuple[str, ...]:
        return tuple(map(normalise, words))

    @field_validator("exceptions")
    @classmethod
    def _excepted(cls, words: dict[str, str]) -> dict[str, str]:
        return {normalise(word): normalise(lemma) for word, lemma in words.items()}

    @field_validator("groups")
    @classmethod
    def _grouped(cls, groups: dict[str, tuple[str, ...]]) -> dict[str, tuple[str, ...]]:
        return {label: tuple(map(normalise, words)) for label, words in groups.items()}

    @model_validator(mode="after")
    def _each_word_once(self) -> Self:
        places = [("ignore", word) for word in self.ignore]
        places += [(label, word) for label, words in self.groups.items() for word in words]
        seen: dict[str, str] = {}
        for place, word in places:
            if seen.setdefault(word, place) != place or not word:
                raise ValueError(f"the word {word!r} stands in {seen[word]!r} and in {place!r}: leave it in one")
        return self


class Word(NamedTuple):
    """What became of one tag: as written, its lemma, and its label, or why it has none."""

    written: str
    lemma: str
    label: str | None
    loss: Loss | None


OPEN = LabelMap(keep_unlisted=True)  # every lemma is a label


def normalise(tag: str) -> str:
    """``tag`` as all ways to write it are compared: Unicode NFKC, small letters, no '#', single blanks.

    An underscore is a blank. Accents stay: they tell words apart in many languages.
    """
    small = unicodedata.normalize("NFKC", unicodedata.normalize("NFKC", tag).lower())
    return _BLANKS.sub(" ", _INVISIBLE.sub("", small)).strip("# ")


@dataclass(frozen=True)
class Vocabulary:
    """What becomes of tags. ``language``: that their lemmas are looked up in, None for words as they are."""

    language: str | None
    labels: LabelMap

    @cached_property
    def named(self) -> dict[str, str | None]:
        """The label of each word that the map names; None for those to ignore."""
        named = {word: label for label, words in self.labels.groups.items() for word in words}
        return named | dict.fromkeys(self.labels.ignore)

    def word(self, tag: str) -> Word:
        """What becomes of ``tag``. The word as written is looked up before its lemma."""
        written = normalise(tag)
        if not written or _SPLIT.fullmatch(written):
            return Word(written, written, None, "split" if written else "empty")
        if _MACHINE_TAG.fullmatch(tag):
            return Word(written, written, None, "machine_tag")
        lemma = self.lemma(written)
        for word in (written, lemma):
            if word in self.named:
                label = self.named[word]
                return Word(written, lemma, label, None if label else "ignored")
        return (
            Word(written, lemma, lemma, None) if self.labels.keep_unlisted else Word(written, lemma, None, "unmapped")
        )

    def lemma(self, written: str) -> str:
        """The lemma of a normalised tag: the exception for all of it, or else word by word."""
        exceptions = self.labels.exceptions
        language = self.language
        if written in exceptions or language is None:
            return exceptions.get(written, written)
        return " ".join(
            exceptions.get(word) or normalise(simplemma.lemmatize(word, lang=language)) for word in written.split()
        )


def load(name: str) -> LabelMap:
    """The map ``name.version`` of this package, or the file at a path; a relative one begins in the folder that holds
    the data root. Raises ConfigError if there is none, or it is no map.
    """
    file = MAPPINGS / f"{name}.toml"
    if not _NAME.fullmatch(name):
        file = settings().root.absolute().parent / name
    elif not file.is_file():
        known = ", ".join(sorted(each.stem for each in MAPPINGS.glob("*.toml")))
        raise ConfigError(
            f"there is no map of labels {name!r}: choose one of {known}, or give the path of a .toml file"
        )
    try:
        with file.open("rb") as stream:
            text = stream.read(MAX_MAP_BYTES + 1)
        if len(text) > MAX_MAP_BYTES:
            raise ConfigError(f"the map of labels {name!r} has more than {MAX_MAP_BYTES:,} bytes: it is none")
        return LabelMap.model_validate({**tomllib.loads(text.decode()), "name": name})
    except OSError as error:
        raise ConfigError(
            f"the map of labels {name!r} cannot be read ({error.strerror}): looked in {str(file)!r}"
        ) from None
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise ConfigError(f"the map of labels {name!r} is no TOML: {error}") from None
    except ValidationError as error:
        first = error.errors()[0]
        place = ".".join(map(str, first["loc"])) or "it"
        raise ConfigError(f"the map of labels {name!r} is none: {place}: {first['msg']}") from None
