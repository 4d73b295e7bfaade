"""The ``loss`` section: terms by name or in full, and combinations that cannot train."""

from __future__ import annotations

import copy
from typing import Any

import pytest
import yaml

from raycl import config_file
from raycl.config_loss import Bpr, LossConfig, Softmax, Triplet, ViewContrast
from raycl.errors import ConfigError

SMALLEST: dict[str, Any] = {"workspace": "w", "logs": [{"uri": "log"}]}
TURNED_DOWN = {
    "logs": [{"uri": "log", "columns": {"event": "kind"}}],
    "event_weights": {"view": 1.0},
    "pairs": {"negative_events": ["skip"]},
}
DESCRIBED = {"items": {"uri": "items", "features": [{"column": "category"}]}}


def loss(plain: dict[str, Any], **rest: Any) -> LossConfig:
    return config_file.check(copy.deepcopy(SMALLEST) | rest | {"loss": plain}).loss


def refusal(plain: dict[str, Any], **rest: Any) -> str:
    with pytest.raises(ConfigError) as caught:
        loss(plain, **rest)
    return str(caught.value)


@pytest.mark.parametrize("plain", ["bpr", ["bpr"], {"kind": "bpr"}, [{"kind": "bpr", "weight": 1}]])
def test_one_term_needs_no_more_than_its_name(plain: Any) -> None:
    assert loss({"terms": plain}).terms == (Bpr(kind="bpr"),)


def test_names_and_terms_in_full_stand_side_by_side() -> None:
    found = loss({"terms": ["softmax", {"kind": "triplet", "margin": 0.3, "weight": 2}, "views"]}).terms
    assert found == (
        Softmax(kind="softmax"),
        Triplet(kind="triplet", margin=0.3, weight=2.0),
        ViewContrast(kind="views"),
    )


def test_without_a_word_it_is_the_softmax_with_static_log_q() -> None:
    assert loss({}) == LossConfig()
    assert (LossConfig().terms, LossConfig().log_q) == ((Softmax(kind="softmax"),), "static")


def test_terms_are_set_from_the_command_line_and_read_back() -> None:
    tree = config_file.apply_overrides(SMALLEST, ["loss.terms=[softmax, {kind: views, mask: null}]"])
    config = config_file.check(tree)
    assert config_file.check(yaml.safe_load(config_file.dump(config))) == config
    changed = config_file.check(
        config_file.apply_overrides(yaml.safe_load(config_file.dump(config)), ["loss.terms=bpr"])
    )
    assert changed.loss.terms == (Bpr(kind="bpr"),)


# What is refused, how, and a change that the message names.
IMPOSSIBLE: dict[str, tuple[dict[str, Any], dict[str, Any], str, dict[str, Any]]] = {
    "users and items apart": (
        {"terms": "views"},
        {},
        "loss.terms.0.kind=views does not bring users and items together: add a term such as softmax",
        {"terms": ["views", "softmax"]},
    ),
    "a term twice": (
        {"terms": ["bpr", "softmax", {"kind": "bpr", "weight": 2}]},
        {},
        "loss.terms.2.kind=bpr is that of loss.terms.0 already: add up their weights in one",
        {"terms": [{"kind": "bpr", "weight": 3}, "softmax"]},
    ),
    "a correction of nothing": (
        {"terms": "corrected_softmax", "log_q": "off"},
        {},
        "loss.terms.0.kind=corrected_softmax is a correction by log_q, and loss.log_q=off: set it to static or"
        " streaming, or use softmax",
        {"terms": "corrected_softmax", "log_q": "streaming"},
    ),
    "views of one item": (
        {"terms": ["softmax", "views"]},
        {"pairs": {"max_history": 1}},
        "loss.terms.1.kind=views changes the history, and pairs.max_history=1 leaves nothing to change: remove the"
        " term",
        {"terms": "softmax"},
    ),
    "nothing to read back": (
        {"terms": ["softmax", "reconstruction"]},
        {"items": {"uri": "items"}},
        "loss.terms.1.kind=reconstruction reads item features back, and items.features has none: name some or remove"
        " the term",
        {"terms": "softmax"},
    ),
    "half of one feature": (
        {"terms": ["softmax", "masked_features"]},
        {"model": {"item_id": False}, **DESCRIBED},
        "loss.terms.1.kind=masked_features hides half of an item's features, and items.features and model.item_id give"
        " 1: name more or remove the term",
        {"terms": "softmax"},
    ),
    "a temperature that nothing reads": (
        {"terms": "triplet", "learn_temperature": True},
        {},
        "loss.learn_temperature=true needs a term with a temperature: add one of softmax, corrected_softmax,"
        " multi_positive, bpr",
        {"terms": ["triplet", "bpr"], "learn_temperature": True},
    ),
    "the strength of no correction": (
        {"log_q": "off", "log_q_strength": 0.5},
        {},
        "loss.log_q_strength=0.5 is of a correction that loss.log_q=off leaves out: set log_q to static or streaming,"
        " or remove log_q_strength",
        {"log_q": "streaming", "log_q_strength": 0.5},
    ),
    "ratings whose weights are changed": (
        {"terms": ["softmax", "rating"], "user_balance": 0.5},
        {},
        "loss.user_balance=0.5 changes the weights of pairs, which the term rating reads as ratings: set it to 0"
        " or remove the term",
        {"terms": "softmax", "user_balance": 0.5},
    ),
    "mined negatives of ratings": (
        {"terms": "rating", "negatives": {"mined": {}}},
        {},
        "loss.negatives.mined needs a term with negatives: add one of softmax, corrected_softmax, multi_positive, bpr,"
        " triplet, cosine_margin",
        {"terms": ["rating", "bpr"], "negatives": {"mined": {}}},
    ),
    "explicit negatives of ratings": (
        {"terms": "rating", "negatives": {"explicit": True}},
        TURNED_DOWN,
        "loss.negatives.explicit=true needs a term with negatives: add one of softmax, corrected_softmax,"
        " multi_positive, bpr, triplet, cosine_margin",
        {"terms": ["rating", "bpr"], "negatives": {"explicit": True}},
    ),
    "fewer ranks than are kept": (
        {"negatives": {"mined": {"range_min": 90, "range_max": 100}}},
        {},
        "range_max=100 leaves fewer ranks from range_min=90 on than pool=16: raise it, or lower pool",
        {"negatives": {"mined": {"range_min": 90, "range_max": 106}}},
    ),
    "more mined negatives than are kept": (
        {"negatives": {"mined": {"per_pair": 17}}},
        {},
        "per_pair=17 is more than pool=16: raise pool or lower per_pair",
        {"negatives": {"mined": {"per_pair": 17, "pool": 17}}},
    ),
    "explicit negatives that no pair has": (
        {"negatives": {"explicit": True}},
        {},
        "loss.negatives.explicit=true needs explicit negatives in the pairs: name event types in"
        " pairs.negative_events, or set pairs.negative_below",
        {"negatives": {"explicit": False}},
    ),
    "more explicit negatives than a pair has": (
        {"negatives": {"explicit": 6}},
        TURNED_DOWN,
        "loss.negatives.explicit=6 is more than pairs.max_negatives=5, which a pair has beside it: lower the first or"
        " raise the second",
        {"negatives": {"explicit": 5}},
    ),
    **{
        f"{name} negatives of ratings": (
            {"terms": "rating", "negatives": {name: 8}},
            {},
            f"loss.negatives.{name}=8 needs a term with negatives: add one of softmax, corrected_softmax,"
            " multi_positive, bpr, triplet, cosine_margin",
            {"terms": ["rating", "triplet"], "negatives": {name: 8}},
        )
        for name in ("uniform", "bank", "hard", "random")
    },
}


def test_explicit_negatives_are_all_of_a_pair_or_this_many() -> None:
    for explicit, expected in ((False, 0), (True, 5), (1, 1), (3, 3)):
        found = loss({"negatives": {"explicit": explicit}}, **TURNED_DOWN)
        assert found.negatives.num_explicit(5) == expected


@pytest.mark.parametrize("name", IMPOSSIBLE)
def test_what_cannot_work_together_is_refused_with_a_remedy_that_works(name: str) -> None:
    plain, rest, message, remedy = IMPOSSIBLE[name]
    assert refusal(plain, **rest) == message
    loss(remedy, **rest)


def test_item_features_and_the_own_embedding_are_enough_to_hide_half() -> None:
    loss({"terms": ["softmax", "masked_features", "reconstruction"]}, **DESCRIBED)


@pytest.mark.parametrize(
    ("terms", "message"),
    [
        ([{"kind": "triplet", "margin": 0}], "loss.terms.0.margin=0: input should be greater than 0"),
        (["softmax", {"kind": "views", "crop": 1}], "loss.terms.1.crop=1: input should be less than 1"),
        ([{"kind": "softmax", "wight": 2}], "loss.terms.0.wight=2: unknown key; did you mean 'weight'?"),
        ([{"weight": 2}], "loss.terms.0.kind: required and not set; add it to the config"),
    ],
)
def test_a_problem_in_a_term_is_told_with_its_place(terms: list[Any], message: str) -> None:
    assert refusal({"terms": terms}) == message


def test_an_unknown_kind_is_told_with_those_that_there_are() -> None:
    message = refusal({"terms": "softmx"})
    assert message.startswith("loss.terms.0.kind=softmx: unknown kind; did you mean 'softmax'? known kinds: softmax, ")


def test_a_term_without_effect_says_what_to_give() -> None:
    assert "low=3 must be below high=3" in refusal({"terms": {"kind": "rating", "low": 3, "high": 3}})
    without = {"kind": "views", "crop": None, "mask": None, "reorder": None}
    assert "give one of crop, mask, reorder and substitute a share" in refusal({"terms": ["softmax", without]})
