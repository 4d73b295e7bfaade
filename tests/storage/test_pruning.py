"""What something refers to stays, and nothing else."""

from __future__ import annotations

from raycl.storage.pruning import Held, reasons


def held(name: str, stage: str, finished_s: float = 0.0, **inputs: str) -> Held:
    return Held(stage, name, inputs, 100, finished_s)


P1, P2, P3 = (held(f"p{number}", "pairs", logs="/data/log") for number in (1, 2, 3))
T1 = held("t1", "towers", pairs="p1")
T2 = held("t2", "towers", pairs="p2")
T3 = held("t3", "towers", pairs="p3")
E1 = held("e1", "evaluations", towers="t1")
E3 = held("e3", "evaluations", towers="t3")
R1 = held("r1", "releases", pairs="p1", towers="t1", evaluation="e1")
ALL = [P1, P2, P3, T1, T2, T3, E1, E3, R1]
NOW = 1_000_000.0


def kept(*versions: Held, keep: int = 1, grace_s: float = 0.0, pins: tuple[str, ...] = ()) -> set[str]:
    return set(reasons(versions, keep, grace_s, NOW, pins))


def test_what_releases_and_the_newest_run_were_made_from_is_kept() -> None:
    assert kept(*ALL) == {one.name for one in ALL} - {"p2", "t2"}
    told = reasons(ALL, 1, 0.0, NOW)
    assert (told["r1"], told["t3"], told["p1"]) == (
        "one of the releases",
        "the newest",
        "releases r1 are made from it",
    )


def test_without_the_release_its_versions_go() -> None:
    assert kept(*ALL[:-1]) == {"p3", "t3", "e3"}


def test_more_of_the_newest_are_kept_with_what_they_were_made_from() -> None:
    assert kept(*ALL[:-1], keep=2) == {"p2", "p3", "t2", "t3", "e1", "e3", "t1", "p1"}  # e1 is the second of its stage


def test_what_was_finished_just_now_is_kept_since_a_run_may_build_on_it() -> None:
    late = held("p0", "pairs", NOW - 60.0)
    assert kept(late, P3, grace_s=61.0) == {"p0", "p3"}
    assert kept(late, P3, grace_s=60.0) == {"p3"}


def test_a_pin_is_kept_with_what_it_was_made_from() -> None:
    assert kept(*ALL[:-1], pins=("t2", "gone")) == {"p2", "t2", "p3", "t3", "e3"}


def test_encoded_words_are_kept_for_pairs_whose_items_lie_among_them() -> None:
    words = [held(name, "encodings", items="/data/items") for name in ("w1", "w2")]
    pairs = held("p9", "pairs", items="s3://bucket/w/encodings/w1/items")
    assert kept(*words, pairs) == {"w1", "w2", "p9"}
    assert kept(*words, P3) == {"w2", "p3"}


def test_searches_and_what_they_found_are_kept() -> None:
    search = held("s1", "searches", pairs="p1", towers="t1")
    assert {"s1", "p1", "t1"} <= kept(*ALL[:-1], search)


def test_towers_that_went_on_are_kept_with_their_beginnings_and_the_pairs_of_the_first_alone() -> None:
    pairs = [held(f"p{number}", "pairs") for number in range(5)]
    towers = [held("t0", "towers", pairs="p0")]
    towers += [held(f"t{n}", "towers", pairs=f"p{n}", started_from=f"t{n - 1}", mined_from="x1") for n in range(1, 5)]
    mined = held("a0", "towers", pairs="p0")
    assert kept(*pairs, *towers, mined) == {"t0", "t1", "t2", "t3", "t4", "p4", "p3"}
