"""Connected components: which members hang together by links between pairs.

Source: Tarjan and van Leeuwen, "Worst-case analysis of set union algorithms", JACM 31(2), 1984 (path halving).
"""

from collections.abc import Iterable


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
