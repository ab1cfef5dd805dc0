"""Which group of a program depends on which, kept transitively while groups grow and merge."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterable

__all__ = ["Order"]


class Order:
    """Sets of groups are integers, one bit a group; a merged group keeps the bits of its parts.

    parent: of a merged group, the one that it is a part of.
    mask:   the bits of a group.
    before: all that a group depends on; bits of the groups before it.
    direct: what it was told to run after; users: what was told to run after it.  Both name groups
            as they were, merged ones too, and every path of dependences is one over `direct`.

    A new group has no users, so that making it depend on others touches no group but itself.
    """

    def __init__(self) -> None:
        self.parent: list[int] = []
        self.mask: list[int] = []
        self.before: list[int] = []
        self.direct: list[set[int]] = []
        self.users: list[set[int]] = []

    def new(self) -> int:
        g = len(self.parent)
        self.parent.append(g)
        self.mask.append(1 << g)
        self.before.append(0)
        self.direct.append(set())
        self.users.append(set())
        return g

    def find(self, g: int) -> int:
        while self.parent[g] != g:
            self.parent[g] = self.parent[self.parent[g]]
            g = self.parent[g]
        return g

    def sources(self, g: int) -> set[int]:
        """The groups that `g` was told to run after."""
        g = self.find(g)
        return {self.find(h) for h in self.direct[g]} - {g}

    def depends(self, g: int, h: int) -> bool:
        """Whether `g` runs after `h`."""
        return bool(self.before[self.find(g)] & self.mask[self.find(h)])

    def depend(self, g: int, h: int) -> None:
        """Make `g` run after `h`."""
        g, h = self.find(g), self.find(h)
        assert g != h
        earlier = self.before[h] | self.mask[h]
        if not earlier & ~self.before[g]:
            return
        self.direct[g].add(h)
        self.users[h].add(g)
        self._precede(g, earlier)

    def _precede(self, g: int, earlier: int) -> None:
        """Let `g` and all that run after it run after the groups `earlier`."""
        waiting = [g]
        while waiting:
            x = self.find(waiting.pop())
            if earlier & ~self.before[x]:
                self.before[x] |= earlier
                waiting += self.users[x]

    def can_depend(self, g: int, earlier: Iterable[int]) -> bool:
        """Whether `g` may run after all of `earlier`."""
        return not any(self.depends(h, g) for h in earlier)

    def can_merge(self, g: int, h: int) -> bool:
        """Whether nothing must run between `g` and `h`."""
        g, h = self.find(g), self.find(h)
        if self.depends(h, g):
            g, h = h, g
        # What runs between the two is, or comes before, a group that `g` was told to run after.
        return not any(self.depends(x, h) for x in self.sources(g) if x != h)

    def merge(self, g: int, h: int) -> None:
        """Make `h` a part of `g`."""
        g, h = self.find(g), self.find(h)
        both = self.mask[g] | self.mask[h]
        earlier = (self.before[g] | self.before[h]) & ~both
        self.parent[h] = g
        self.mask[g], self.before[g] = both, earlier
        self.direct[g] |= self.direct[h]
        self.users[g] |= self.users[h]
        for x in self.users[g]:
            if self.find(x) != g:
                self._precede(x, earlier | both)
