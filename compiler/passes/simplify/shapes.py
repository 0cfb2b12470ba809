"""Facts about shapes that rewrites rest on: extents equal as expressions, and the extent 1."""

from __future__ import annotations

from collections.abc import Sequence

from ....ir.dims import Dim, product

Shape = Sequence[Dim]


def reshape_groups(before: Shape, after: Shape) -> list[tuple[tuple[int, ...], tuple[int, ...]]] | None:
    """The finest split of a reshape into independent ones.

    Returns:
        Pairs of consecutive axes `(of before, of after)` of equal products that together cover all axes, or
        None if the extents do not tell (symbolic extents that only multiply out as a whole give one pair).

    >>> reshape_groups((4, 6), (4, 2, 3))
    [((0,), (0,)), ((1,), (1, 2))]
    """
    groups: list[tuple[tuple[int, ...], tuple[int, ...]]] = []
    i = j = 0
    while i < len(before) and j < len(after):
        found = _smallest(before[i:], after[j:])
        if found is None:
            return None
        n, m = found
        groups.append((tuple(range(i, i + n)), tuple(range(j, j + m))))
        i, j = i + n, j + m
    rest_before, rest_after = tuple(range(i, len(before))), tuple(range(j, len(after)))
    if product(list(before[i:])) != 1 or product(list(after[j:])) != 1:
        return None
    if rest_before or rest_after:  # ones at the end belong to the last group
        last_before, last_after = groups.pop() if groups else ((), ())
        groups.append((last_before + rest_before, last_after + rest_after))
    return groups


def _smallest(before: Shape, after: Shape) -> tuple[int, int] | None:
    """The least numbers of leading axes whose products agree."""
    for total in range(2, len(before) + len(after) + 1):
        for n in range(max(1, total - len(after)), min(len(before), total - 1) + 1):
            if product(list(before[:n])) == product(list(after[:total - n])):
                return n, total - n
    return None


def reshaped_broadcast(source: Shape, dims: Sequence[int], middle: Shape,
                       after: Shape) -> tuple[tuple[Dim, ...], tuple[int, ...]] | None:
    """A reshape of a broadcast as a broadcast of a reshape.

    Args:
        source: shape before the broadcast; dims: its attribute; middle: its result's shape; after: the
            reshape's.

    Returns:
        The shape to give the source, and the broadcast's new dims; None where that cannot say it.
    """
    groups = reshape_groups(middle, after)
    if groups is None:
        return None
    at = {axis: i for i, axis in enumerate(dims)}
    if any(source[i] != middle[axis] for axis, i in at.items()):
        return None  # a stretched axis of extent 1; canonical broadcasts have none
    shape: list[Dim] = []
    new_dims: list[int] = []
    for old_axes, new_axes in groups:
        held = [axis in at for axis in old_axes]
        if any(held) and not all(held):
            return None
        if any(held):
            shape += [after[a] for a in new_axes]
            new_dims += new_axes
    return tuple(shape), tuple(new_dims)
