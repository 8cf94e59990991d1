"""Connected components: which members hang together by links between pairs.

Source: Tarjan and van Leeuwen, "Worst-case analysis of set union algorithms", JACM 31(2), 1984 (path halving).
"""

from collections.abc import Iterable

import numpy as np
import numpy.typing as npt

Members = npt.NDArray[np.intp]


class Forest:
    """Members 0 .. size - 1, some of them joined; each component is named by its smallest member."""

    def __init__(self, size: int) -> None:
        self.parent = np.arange(size)

    def roots(self, members: Members) -> Members:
        """The component of each of ``members``."""
        found = self.parent[members]
        while not np.array_equal(found, above := self.parent[found]):
            found = above
        self.parent[members] = found
        return found

    def join(self, links: Iterable[tuple[int, int]]) -> None:
        """Join both members of each link."""
        for first, second in links:
            low, high = sorted((self._root(first), self._root(second)))
            self.parent[high] = low

    def _root(self, member: int) -> int:
        while self.parent[member] != member:
            self.parent[member] = self.parent[self.parent[member]]
            member = int(self.parent[member])
        return member


def components(size: int, links: Iterable[tuple[int, int]]) -> list[int]:
    """For each of the members 0 .. size - 1 the smallest member that it hangs together with."""
    parent = list(range(size))

    def root(member: int) -> int:
        while parent[member] != member:
            parent[member] = parent[parent[member]]
            member = parent[member]
        return member

    for first, second in links:
        low, high = sorted((root(first), root(second)))
        parent[high] = low
    return [root(member) for member in range(size)]
