"""Who may ask, and how often."""

from __future__ import annotations

import hmac

import pytest

from raycl.config_serving import GuardConfig
from raycl.errors import ConfigError
from raycl.serving.tokens import Rate, Tokens, whole_seconds


class Clock:
    """Seconds that a test moves on."""

    now = 0.0

    def __call__(self) -> float:
        return self.now


def test_without_tokens_all_may_ask() -> None:
    assert Tokens(()).caller(None) == Tokens(()).caller("Bearer x") == ""


@pytest.mark.parametrize(
    "header",
    [None, "", "Bearer", "Bearer ", "Bearer on", "Bearer onee", "Basic one", "one", "Bearer \udcff", "Bearer one,two"],
)
def test_who_has_no_token_may_not_ask(header: str | None) -> None:
    assert Tokens(("one", "two")).caller(header) is None


def test_each_token_is_a_caller_of_its_own_and_its_name_does_not_tell_it() -> None:
    tokens = Tokens(("one", "two"))
    names = [tokens.caller(header) for header in ("Bearer one", "bearer  one", "Bearer two")]
    assert names[0] == names[1] != names[2]
    assert "one" not in str(names[0])


def test_every_token_is_compared_in_constant_time(monkeypatch: pytest.MonkeyPatch) -> None:
    compared: list[tuple[int, int]] = []
    true_compare = hmac.compare_digest

    def listen(first: bytes, second: bytes) -> bool:
        compared.append((len(first), len(second)))
        return true_compare(first, second)

    monkeypatch.setattr(hmac, "compare_digest", listen)
    assert Tokens(("one", "a longer one", "three")).caller("Bearer one") is not None
    assert compared == [(32, 32)] * 3


def test_tokens_come_from_the_variable_that_the_config_names() -> None:
    config = GuardConfig(token_env="RAYCL_TOKENS")
    tokens = Tokens.of(config, {"RAYCL_TOKENS": "one, two,"})
    assert tokens.caller("Bearer two") is not None
    assert tokens.caller("Bearer ") is None
    assert Tokens.of(GuardConfig(), {"RAYCL_TOKENS": "one"}).caller(None) == ""


@pytest.mark.parametrize("environment", [{}, {"RAYCL_TOKENS": " , "}])
def test_a_variable_without_a_token_does_not_open_the_service(environment: dict[str, str]) -> None:
    with pytest.raises(ConfigError, match=r"serving\.guard\.token_env=RAYCL_TOKENS: that variable holds no token"):
        Tokens.of(GuardConfig(token_env="RAYCL_TOKENS"), environment)


def test_a_rate_lets_a_burst_pass_and_then_so_many_a_second() -> None:
    clock = Clock()
    rate = Rate(GuardConfig(requests_per_s=2.0, burst=3), clock)
    assert [rate.wait_s("ann") for _ in range(4)] == [0.0, 0.0, 0.0, 0.5]
    assert rate.wait_s("bob") == 0.0
    clock.now = 0.25
    assert rate.wait_s("ann") == pytest.approx(0.25)
    clock.now = 0.5
    assert rate.wait_s("ann") == 0.0
    clock.now = 1_000.0
    assert [rate.wait_s("ann") for _ in range(4)] == [0.0, 0.0, 0.0, 0.5]


def test_without_a_rate_all_may_pass() -> None:
    rate = Rate(GuardConfig(burst=1), Clock())
    assert {rate.wait_s("ann") for _ in range(50)} == {0.0}


def test_callers_are_forgotten_beyond_ten_thousand() -> None:
    rate = Rate(GuardConfig(requests_per_s=0.001, burst=1), Clock())
    for caller in range(10_001):
        rate.wait_s(str(caller))
    assert rate.wait_s("10000") > 0.0
    assert rate.wait_s("0") == 0.0


@pytest.mark.parametrize(("wait", "told"), [(0.01, "1"), (1.0, "1"), (1.2, "2")])
def test_a_wait_is_told_in_whole_seconds(wait: float, told: str) -> None:
    assert whole_seconds(wait) == told
