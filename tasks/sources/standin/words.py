"""Titles, tags, names, places and cameras of the invented world."""

import random
from dataclasses import dataclass

TOPICS = (
    "Travel",
    "Tourism",
    "Summer",
    "Street",
    "Sport",
    "Protest",
    "Portrait",
    "Photography",
    "Park",
    "Outside",
    "Online",
    "News",
    "Mountains",
    "Morning",
    "Military",
    "Life",
    "Landscape",
    "International",
    "Horizon",
    "Demonstration",
    "Celebrity",
    "Boat",
    "Beach",
)
ADJECTIVES = (
    "Quiet",
    "Old",
    "Blue",
    "Golden",
    "Crowded",
    "Windy",
    "Forgotten",
    "Bright",
    "Late",
    "First",
    "Misty",
    "Red",
)
THINGS = (
    "harbour",
    "market",
    "bridge",
    "bicycle",
    "tram",
    "lighthouse",
    "window",
    "garden",
    "station",
    "canal",
    "square",
    "path",
    "café",
    "wall",
    "river",
    "roof",
)
PLACES = {
    "Antwerp": (51.2213, 4.4051),
    "Leuven": (50.8796, 4.7009),
    "Lisboa": (38.7167, -9.1333),
    "Kraków": (50.0614, 19.9366),
    "Reykjavík": (64.1355, -21.8954),
    "Kyōto": (35.0116, 135.7681),
    "Nairobi": (-1.2833, 36.8167),
    "São Paulo": (-23.5505, -46.6333),
    "Vancouver": (49.2609, -123.1139),
    "Dunedin": (-45.8742, 170.5036),
}
FIRST_NAMES = (
    "Ann",
    "Bram",
    "Chiara",
    "Dieter",
    "Elif",
    "Femke",
    "Goran",
    "Hana",
    "Ines",
    "Jonas",
    "Kofi",
    "Léa",
    "Mei",
    "Noor",
)
LAST_NAMES = (
    "Peeters",
    "Rossi",
    "Novák",
    "Okafor",
    "Tanaka",
    "Silva",
    "Jansen",
    "Berg",
    "Moreau",
    "Kaya",
    "Lund",
    "Walsh",
)
CAMERAS = (
    ("Canon", "Canon EOS 6D"),
    ("Canon", "Canon EOS R6"),
    ("NIKON CORPORATION", "NIKON D750"),
    ("NIKON CORPORATION", "NIKON Z 6"),
    ("SONY", "ILCE-7M3"),
    ("FUJIFILM", "X-T3"),
    ("PENTAX", "PENTAX K-70"),
    ("OLYMPUS CORPORATION", "E-M1MarkII"),
)
HOSTILE_TITLES = (
    "../../etc/passwd",
    "..\\..\\windows\\system32",
    "<script>alert('photo')</script>",
    "Tom &amp; Jerry &lt;3 &quot;holidays&quot;",
    "'; DROP TABLE photos; --",
    "",
    "   ",
    "=cmd|'/c calc'!A1",
    "zomer aan zee ☀️ été 夏 🏖",
    "\u202egpj.exe",
    "tab\tand\nnew line",
    "a" * 300,
)
HOSTILE_SHARE = 0.06


@dataclass(frozen=True)
class Text:
    """What an owner wrote about a photo. Tags are as the site lists them: lower case, letters and digits only."""

    title: str
    description: str
    tags: tuple[str, ...]


def describe(index: int, chance: random.Random) -> Text:
    """One topic in its turn, perhaps a second: in the tags always, in the title unless that is hostile."""
    topics = [TOPICS[index % len(TOPICS)], *chance.sample(TOPICS, chance.choice((0, 0, 0, 1)))]
    thing, place = chance.choice(THINGS), chance.choice(list(PLACES))
    tags = [*topics, thing, place, *chance.sample(("nature", "city", "2024", "35mm", "people"), chance.randrange(3))]
    return Text(
        title=_title(chance, topics[0], thing, place),
        description=_description(chance, thing, place),
        tags=tuple(dict.fromkeys(normal_tag(tag) for tag in tags)),
    )


def normal_tag(tag: str) -> str:
    """The site's form of a tag."""
    return "".join(letter for letter in tag.casefold() if letter.isalnum())


def _title(chance: random.Random, topic: str, thing: str, place: str) -> str:
    """A plausible title, or a hostile one."""
    if chance.random() < HOSTILE_SHARE:
        return chance.choice(HOSTILE_TITLES)
    adjective, number = chance.choice(ADJECTIVES), chance.randrange(1, 9999)
    return chance.choice(
        (
            f"{topic}: {adjective.lower()} {thing}",
            f"{adjective} {thing} in {place}",
            f"{topic} in {place}",
            f"{topic} #{number}",
            f"{adjective} {topic.lower()}",
            f"IMG_{number:04d}",
        )
    )


def _description(chance: random.Random, thing: str, place: str) -> str:
    """Often nothing, sometimes text, sometimes HTML as the site returns it."""
    return chance.choice(
        (
            "",
            "",
            f"The {thing} of {place}, seen on the way home.",
            f'More of <a href="https://example.org/{thing}" rel="nofollow">this {thing}</a> &amp; others.',
            f"Two lines.\n\nAbout a {thing}.",
        )
    )
