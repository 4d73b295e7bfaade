"""Which finished versions a release or a newest run still refers to, and which may go."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass

from raycl.storage.versions import Version, begun_at

STAGES = ("pairs", "towers", "evaluations", "encodings")
"""Those whose versions go; releases have ``raycl release prune``, and searches stay."""
_BEGAN_WITH, _MINED_FROM = "started_from", "mined_from"


@dataclass(frozen=True)
class Held:
    """A finished version: what it was made from by its manifest, its size, and when it was finished."""

    stage: str
    name: str
    inputs: Mapping[str, str]
    num_bytes: int
    finished_s: float

    @classmethod
    def of(cls, version: Version) -> Held:
        """A version as its manifest has it."""
        manifest, begun = version.manifest, begun_at(version.name)
        finished_s = (begun.timestamp() if begun else 0.0) + manifest.wall_s
        return cls(manifest.stage, version.name, manifest.inputs, sum(manifest.sizes.values()), finished_s)


def reasons(
    held: Sequence[Held], keep: int, grace_s: float, now_s: float, pins: Collection[str] = ()
) -> dict[str, str]:
    """By name of each version that is kept: why.

    All releases and searches; of every stage the ``keep`` newest; those that were finished within ``grace_s``, since a
    run may be about to build on one; ``pins``; and what all these were made from. Of towers that went on from others,
    these with their pairs too, and their own beginnings without, since the nightly job counts them.
    """
    by_name = {one.name: one for one in held}
    kept: dict[str, str] = {one.name: f"one of the {one.stage}" for one in held if one.stage not in STAGES}
    for stage in STAGES:
        of_stage = sorted((one for one in held if one.stage == stage), key=lambda one: one.name, reverse=True)
        for one in of_stage[:keep]:
            kept.setdefault(one.name, f"one of the {keep} newest" if keep > 1 else "the newest")
    for one in held:
        if now_s - one.finished_s < grace_s:
            kept.setdefault(one.name, f"finished {max(now_s - one.finished_s, 0.0):.0f} s ago")
    kept |= {name: kept.get(name, "pinned") for name in pins if name in by_name}
    _spread(kept, list(kept), by_name)
    begun = list(_begun_with(list(kept), by_name))
    for name, after in begun:
        kept.setdefault(name, f"{after} began with it")
    _spread(kept, [name for name, _ in begun], by_name)
    while begun:
        begun = [(name, after) for name, after in _begun_with([name for name, _ in begun], by_name) if name not in kept]
        kept |= {name: f"{after} began with it" for name, after in begun}
    return {one.name: kept[one.name] for one in held if one.name in kept}


def _spread(kept: dict[str, str], names: Iterable[str], by_name: Mapping[str, Held]) -> None:
    """Keep what these were made from, and what that was made from."""
    left = list(names)
    while left:
        user = by_name[left.pop()]
        for key, value in user.inputs.items():
            # An input is a version's name, or the place of a table that may lie within a version.
            for name in set(value.split("/")) & by_name.keys():
                if key not in (_BEGAN_WITH, _MINED_FROM) and name not in kept:
                    kept[name] = f"{user.stage} {user.name} are made from it"
                    left.append(name)


def _begun_with(names: Iterable[str], by_name: Mapping[str, Held]) -> Iterator[tuple[str, str]]:
    """The towers that these began with, each with the towers that did."""
    for after in names:
        name = by_name[after].inputs.get(_BEGAN_WITH, "")
        if name in by_name:
            yield name, after
