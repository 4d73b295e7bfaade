"""Settings that are each possible and together are not: every check names field, value and remedy."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

from raycl import config_checks_features, config_checks_search, config_index, config_loss, config_validation

if TYPE_CHECKING:
    from raycl.config import Config

_MOST_EVENT_TYPES = 256  # an event's type is one byte
_QUARANTINE_COLUMNS = ("reason", "row", "file")
_EXACT = ("auto", "flat")  # auto is exact where there are few items, and then there may be few users


def _workers_divide_batch(config: Config) -> str | None:
    batch, fewest, most = config.train.global_batch_size, config.train.num_workers.min, config.train.num_workers.max
    if fewest > most:
        return (
            f"train.num_workers.min={fewest} is above train.num_workers.max={most}: raise the second or lower the first"
        )
    unit = math.lcm(*range(fewest, most + 1))
    if batch % unit == 0 and batch // most >= 2:
        return None
    least = -(-2 * most // unit) * unit
    choices = sorted({size for size in (batch // unit * unit, -(-batch // unit) * unit) if size >= least} or {least})
    workers = f"train.num_workers={most}" if fewest == most else f"each of train.num_workers={fewest} to {most}"
    narrower = "" if fewest == most else ", or a narrower range"
    return (
        f"train.global_batch_size={batch} must divide evenly by {workers}, with at least two pairs a worker: use"
        f" {' or '.join(map(str, choices))}{narrower}"
    )


def _split_has_its_column(config: Config) -> str | None:
    kind = config.pairs.split.kind
    needs = "split" if kind == "column" else "time"
    for position, log in enumerate(config.logs):
        if getattr(log.columns, needs) is None:
            return (
                f"pairs.split.kind={kind} needs logs.{position}.columns.{needs}, which is null: name the column or"
                f" choose another split"
            )
        if config.pairs.history == "before" and log.columns.time is None:
            return (
                f"pairs.history=before needs logs.{position}.columns.time, which is null: name the column or set"
                f" pairs.history=others"
            )
    if config.pairs.history == "others" and kind != "column":
        return f"pairs.history=others looks past the target, so pairs.split.kind={kind} would leak: use column"
    return None


def _rules_have_time(config: Config) -> str | None:
    rules = config.pairs
    off = {"max_user_rate": None, "repeat_window_s": 0, "keep_user_events": None}
    for position, log in enumerate(config.logs):
        for name, value in off.items():
            if log.columns.time is None and getattr(rules, name) != value:
                return (
                    f"pairs.{name} needs logs.{position}.columns.time, which is null: name the column or set"
                    f" pairs.{name}={'null' if value is None else value}"
                )
    return None


def _rare_items_have_one_rule(config: Config) -> str | None:
    rules = config.pairs
    if rules.rare_items == "hash" and rules.core_rounds:
        return (
            f"pairs.core_rounds={rules.core_rounds} drops the rare items that pairs.rare_items=hash keeps: set one of"
            f" them to its default"
        )
    if rules.rare_items == "hash" and rules.min_item_events == 1:
        return "pairs.rare_items=hash needs pairs.min_item_events of 2 or more, which says what is rare: raise it"
    if rules.rare_items == "hash" and not config.model.item_id:
        return "pairs.rare_items=hash shares embeddings of items, which model.item_id=false does without: drop one"
    return None


def _kind_has_its_rules(config: Config) -> str | None:
    rules = config.pairs
    bounds = {name: getattr(rules, name) for name in ("within_s", "session_gap_s")}
    given = [name for name, value in bounds.items() if value is not None]
    if rules.kind == "next_item":
        if not given:
            return None
        return f"pairs.{given[0]}={bounds[given[0]]} is of pairs.kind=item_to_item: set that, or leave it out"
    if rules.history != "before":
        return f"pairs.kind=item_to_item needs an order of events, and pairs.history={rules.history}: set it to before"
    if not given:
        return "pairs.kind=item_to_item pairs any two events of a user: set pairs.within_s or pairs.session_gap_s"
    if rules.max_history != 1:
        return f"pairs.kind=item_to_item has one earlier item, and pairs.max_history={rules.max_history}: set it to 1"
    return None


def _events_are_weighted(config: Config) -> str | None:
    for position, log in enumerate(config.logs):
        if log.columns.event is not None and not config.event_weights:
            return (
                f"logs.{position}.columns.event={log.columns.event} but event_weights is empty, so every row would be"
                f" quarantined: name the event types, for example event_weights.view=1"
            )
    num_types, num_negative = len(config.event_weights), len(config.pairs.negative_events)
    if num_types + num_negative > _MOST_EVENT_TYPES:
        negative = f" and pairs.negative_events={num_negative}" if num_negative else ""
        return (
            f"event_weights={num_types}{negative} event types: at most {_MOST_EVENT_TYPES} can be told apart;"
            f" give types that weigh the same one name in the log"
        )
    return None


def _negatives_can_be_told(config: Config) -> str | None:
    rules, columns = config.pairs, [log.columns for log in config.logs]
    for position, name in enumerate(rules.negative_events):
        field = f"pairs.negative_events.{position}={name}"
        if name in config.event_weights:
            return f"{field} has a weight in event_weights, and is a negative or not: take it out of one of them"
        if name in rules.negative_events[:position]:
            return f"{field} is there twice: take one of them out"
        if all(mapped.event is None for mapped in columns):
            return f"{field} needs logs.0.columns.event, which is null: name the column, or leave negative_events out"
    if rules.negative_below is not None and all(mapped.weight is None for mapped in columns):
        return (
            f"pairs.negative_below={rules.negative_below:g} needs logs.0.columns.weight, which is null: name the"
            f" column, or name event types in pairs.negative_events"
        )
    return None


def _context_is_common(config: Config) -> str | None:
    first = config.logs[0].columns.context
    for position, log in enumerate(config.logs):
        names = log.columns.context
        for place, name in enumerate(names):
            field = f"logs.{position}.columns.context.{place}={name}"
            if name in names[:place]:
                return f"{field} is there twice: take one of them out"
            if name in _QUARANTINE_COLUMNS:
                return f"{field} is a column that the quarantine has of its own: rename the column in the log"
        if sorted(names) != sorted(first):
            return (
                f"logs.{position}.columns.context={list(names)} and logs.0.columns.context={list(first)}: every event"
                f" carries the same columns, so name the same in both; what a log lacks its defaults may fill"
            )
    return None


def _ranges_can_be_read(config: Config) -> str | None:
    for position, log in enumerate(config.logs):
        given = [(name, value) for name in ("since", "until") if (value := getattr(log, name)) is not None]
        for name, value in given:
            if log.columns.time is None:
                return (
                    f"logs.{position}.{name}={value.isoformat()} needs logs.{position}.columns.time, which is null:"
                    f" name the column or leave {name} out"
                )
            if log.time_unit == "order":
                return (
                    f"logs.{position}.{name}={value.isoformat()} is a date, and logs.{position}.time_unit=order counts"
                    f" events: leave {name} out, or name the unit of a time"
                )
        if log.since is not None and log.until is not None and log.since >= log.until:
            return (
                f"logs.{position}.since={log.since.isoformat()} is not before logs.{position}.until="
                f"{log.until.isoformat()}: no event can be both, so move one of them"
            )
    return None


def _loss_has_what_it_needs(config: Config) -> str | None:
    asked: dict[str, list[str]] = {"loss.terms": [term.kind for term in config.loss.terms]}
    if config.train.pretrain is not None:
        asked["train.pretrain.terms"] = [term.kind for term in config.train.pretrain.terms]
    problems = (_terms_have_what_they_need(config, field, kinds) for field, kinds in asked.items())
    return next((problem for problem in problems if problem), None)


def _terms_have_what_they_need(config: Config, field: str, kinds: list[str]) -> str | None:
    features = config.items.features if config.items is not None else ()
    for position, kind in enumerate(kinds):
        place = f"{field}.{position}.kind={kind}"
        if kind in kinds[:position]:
            return f"{place} is that of {field}.{kinds.index(kind)} already: add up their weights in one"
        if kind == "corrected_softmax" and config.loss.log_q == "off":
            return (
                f"{place} is a correction by log_q, and loss.log_q=off: set it to static or streaming, or use softmax"
            )
        if kind == "views" and config.pairs.max_history < 2:
            return f"{place} changes the history, and pairs.max_history=1 leaves nothing to change: remove the term"
        if kind == "reconstruction" and not features:
            return f"{place} reads item features back, and items.features has none: name some or remove the term"
        if kind == "masked_features" and len(features) + config.model.item_id < 2:
            return (
                f"{place} hides half of an item's features, and items.features and model.item_id give"
                f" {len(features) + config.model.item_id}: name more or remove the term"
            )
    return None


def _negatives_are_carried(config: Config) -> str | None:
    explicit, rules = config.loss.negatives.explicit, config.pairs
    if explicit and not rules.has_negatives:
        return (
            f"loss.negatives.explicit={str(explicit).lower()} needs explicit negatives in the pairs: name event types"
            f" in pairs.negative_events, or set pairs.negative_below"
        )
    if config.loss.negatives.num_explicit(rules.max_negatives) > rules.max_negatives:
        return (
            f"loss.negatives.explicit={explicit} is more than pairs.max_negatives={rules.max_negatives}, which a pair"
            f" has beside it: lower the first or raise the second"
        )
    return None


def _loss_compares(config: Config) -> str | None:
    loss, contrasting, tempered = config.loss, config_loss.CONTRASTING, config_loss.TEMPERED
    if not loss.has(*contrasting, "rating"):
        first = loss.terms[0].kind
        return f"loss.terms.0.kind={first} does not bring users and items together: add a term such as softmax"
    if loss.learn_temperature and not loss.has(*tempered):
        return f"loss.learn_temperature=true needs a term with a temperature: add one of {', '.join(tempered)}"
    if loss.log_q == "off" and loss.log_q_strength != 1.0:
        return (
            f"loss.log_q_strength={loss.log_q_strength:g} is of a correction that loss.log_q=off leaves out: set"
            f" log_q to static or streaming, or remove log_q_strength"
        )
    if loss.user_balance and loss.has("rating"):
        return (
            f"loss.user_balance={loss.user_balance:g} changes the weights of pairs, which the term rating reads as"
            f" ratings: set it to 0 or remove the term"
        )
    for name, value in loss.negatives.model_dump(
        include={"explicit", "mined", "uniform", "bank", "hard", "random"}
    ).items():
        if value and not loss.has(*contrasting):
            shown = "" if isinstance(value, dict) else f"={str(value).lower()}"
            return f"loss.negatives.{name}{shown} needs a term with negatives: add one of {', '.join(contrasting)}"
    return None


def _validation_has_users(config: Config) -> str | None:
    train, split = config.train, config.pairs.split
    needed = config_validation.needed_by(train)
    if train.validation.users == 0:
        if needed is None and train.validation.steps is not None:
            needed = f"train.validation.steps={train.validation.steps}"
        if needed is not None:
            return f"{needed} needs validation, and train.validation.users=0 measures nothing: raise it or drop one"
    if needed is not None and (none := config_validation.without_part(split)):
        return f"{needed} needs a validation part, and {none} or drop one"
    return None


def _index_has_what_it_needs(config: Config) -> str | None:
    index, dim, wanted = config.index, config.model.dim, config.index.pq_bytes
    if wanted is not None and dim % wanted:
        divisors = [size for size in range(1, dim + 1) if dim % size == 0]
        near = sorted(divisors, key=lambda size: abs(size - wanted))[:2]
        return f"index.pq_bytes={wanted} must divide model.dim={dim}: use {' or '.join(map(str, sorted(near)))}"
    if index.rerank == "always" and index.kind not in ("auto", *config_index.COMPRESSED):
        return (
            f"index.rerank=always is of no use with index.kind={index.kind}, whose scores are exact already: leave it"
            f" out, or choose one of {', '.join(config_index.COMPRESSED)}"
        )
    if index.num_lists is not None and index.kind not in ("auto", *config_index.LISTED):
        return f"index.num_lists={index.num_lists} with index.kind={index.kind}, which has none: leave it out"
    return None


def _segments_have_a_table(config: Config) -> str | None:
    chosen = config.evaluation
    for side, names in (("users", chosen.user_columns), ("items", chosen.item_columns)):
        if names and getattr(config, side) is None:
            field = f"evaluation.{side.removesuffix('s')}_columns={list(names)}"
            return f"{field} needs the table {side}, which is null: describe it or leave the columns out"
    if chosen.calibration is not None and config.items is None:
        return f"evaluation.calibration={chosen.calibration} needs the table items, which is null: describe it"
    return None


def _gate_is_measured(config: Config) -> str | None:
    if config.gate.min_index_recall > 0.0 and config.index.kind not in _EXACT and config.gate.num_queries < 100:
        return (
            f"gate.num_queries={config.gate.num_queries} cannot tell a recall of {config.gate.min_index_recall:g}"
            f" from chance: use at least 100"
        )
    return None


def _replicas_ordered(config: Config) -> str | None:
    low, high = config.serving.min_replicas, config.serving.max_replicas
    if low <= high:
        return None
    return f"serving.min_replicas={low} is above serving.max_replicas={high}: raise the second or lower the first"


def _filters_have_columns(config: Config) -> str | None:
    filters, shown = config.serving.filters, config.items.display if config.items else ()
    named = [(f"columns.{place}", name) for place, name in enumerate(filters.columns or ())]
    for field, name in [*named, *([("available", filters.available)] if filters.available else [])]:
        if name not in shown:
            return f"serving.filters.{field}={name} is no column that a release has: name it in items.display too"
    return None


RULES = (
    _workers_divide_batch,
    _split_has_its_column,
    _rules_have_time,
    _rare_items_have_one_rule,
    _kind_has_its_rules,
    _events_are_weighted,
    _negatives_can_be_told,
    _context_is_common,
    _ranges_can_be_read,
    *config_checks_features.RULES,
    _loss_has_what_it_needs,
    _loss_compares,
    _negatives_are_carried,
    _validation_has_users,
    _index_has_what_it_needs,
    _segments_have_a_table,
    _gate_is_measured,
    _replicas_ordered,
    _filters_have_columns,
    *config_checks_search.RULES,
)
"""Each returns what is wrong, or None, in the order that a person would look."""
