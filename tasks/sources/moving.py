"""Results that move while a search is read: behind a photo that is deleted between two pages all others move up by one,
and the first of the next page, which then stands at the end of the page before, is on none of those that are read.

A site that counts fewer results than on the page before has perhaps lost one of those that were read, so the page
before is read once more. Sites also count differently for no reason, by two in a hundred from page to page; that shows
when a look back finds nothing, or a count rises by more than are uploaded meanwhile. Then only a count just below all
others is believed, and where another falls a photo may have been missed that nothing tells of. A photo that is added
moves the others down: one is seen twice, and none is missed.
"""

from collections.abc import Set
from dataclasses import dataclass, field

LOOKS = 4  # of one search at pages that were read already
FEW = 5  # photos that come or go between two pages of a search


@dataclass
class Moving:
    """What the pages of one search said so far. ``may_miss``: photos may have moved past that no look has found.
    ``is_new``: the newest page shows some that none before it did.
    """

    may_miss: bool = False
    is_new: bool = False
    _total: int = -1  # results, as the newest page counts them
    _fewest: int = 0
    _gone: int = 0  # between the newest page and the one before it
    _looks: int = 0
    _is_look: bool = False
    _is_noise: bool = False
    _seen: set[str] = field(default_factory=set)

    def has_moved(self, total: int, ids: Set[str], per_page: int) -> bool:
        """Whether the page before the one that was just read, and shows ``ids``, is to be read once more.

        ``total``: results as the page counts them. The page that is read once more is told too: behind it the search
        goes on where it was. It shows no more than ``per_page`` that have moved.
        """
        self.is_new = not ids <= self._seen
        self._seen |= ids
        if self._is_look:
            self._is_look, self._is_noise = False, self._is_noise or not self.is_new
            self.may_miss |= self._gone + self._total - total > per_page
            return False
        self._gone = self._fall(total)
        self._is_look = self._gone > 0 and self._looks < LOOKS
        self._looks += self._is_look
        self.may_miss |= self._gone > 0 and not self._is_look
        return self._is_look

    def _fall(self, total: int) -> int:
        """How many results fewer ``total`` is, if it is to be believed; takes note of it."""
        before, fewest = (total, total) if self._total < 0 else (self._total, self._fewest)
        self._total, self._fewest = total, min(fewest, total)
        self._is_noise |= total > before + FEW
        if self._is_noise:
            is_believed = 0 < fewest - total <= FEW
            self.may_miss |= total < before and not is_believed
            return fewest - total if is_believed else 0
        return before - total
