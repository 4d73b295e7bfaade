"""Fresh events are remembered for a while, of so many users and no more."""

from __future__ import annotations

from raycl.config_serving import SessionConfig
from raycl.serving.sessions import Sessions


class Clock:
    """Seconds that a test moves on."""

    now = 0.0

    def __call__(self) -> float:
        return self.now


def items(sessions: Sessions, user: int | str) -> list[int | str]:
    return [event.item for event in sessions.of(user)]


def test_events_come_back_in_order_the_newest_last() -> None:
    sessions = Sessions(SessionConfig())
    sessions.add("ann", [1, 2])
    sessions.add("bob", [9])
    sessions.add("ann", ["3"])
    assert items(sessions, "ann") == [1, 2, "3"]
    assert items(sessions, "eve") == []


def test_a_user_id_may_be_a_number_or_its_text() -> None:
    sessions = Sessions(SessionConfig())
    sessions.add(7, [1])
    assert items(sessions, "7") == items(sessions, 7) == [1]


def test_the_oldest_events_of_a_user_leave_first() -> None:
    sessions = Sessions(SessionConfig(max_events=3))
    sessions.add("ann", [1, 2, 3, 4])
    sessions.add("ann", [5])
    assert items(sessions, "ann") == [3, 4, 5]


def test_the_user_heard_of_least_recently_leaves_first() -> None:
    sessions = Sessions(SessionConfig(max_users=2))
    for user in ("ann", "bob", "ann", "eve"):
        sessions.add(user, [1])
    assert [bool(items(sessions, user)) for user in ("ann", "bob", "eve")] == [True, False, True]
    assert len(sessions) == 2


def test_a_user_who_is_silent_for_too_long_is_forgotten() -> None:
    clock = Clock()
    sessions = Sessions(SessionConfig(ttl_s=10), clock)
    sessions.add("ann", [1])
    clock.now = 6.0
    sessions.add("bob", [2])
    clock.now = 10.0
    assert items(sessions, "ann") == [1]
    clock.now = 10.5
    assert items(sessions, "ann") == []
    assert len(sessions) == 1


def test_events_know_when_they_were_posted() -> None:
    clock = Clock()
    sessions = Sessions(SessionConfig(), clock=clock)
    for now in (5.0, 7.5):
        clock.now = now
        sessions.add("ann", [1, 2])
    assert [event.time for event in sessions.of("ann")] == [5.0, 5.0, 7.5, 7.5]


def test_without_users_nothing_is_remembered() -> None:
    sessions = Sessions(SessionConfig(max_users=0))
    sessions.add("ann", [1])
    assert len(sessions) == 0
