"""Requests to answers in one process: limits, fresh events, batches across requests, deadlines.

What puts requests together into batches may be given.
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections import Counter
from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, TypeGuard

from raycl.config_serving import ServingConfig
from raycl.errors import InputError, RayclError
from raycl.serving import remote
from raycl.serving.api import Answer, Described, Event, Quality, Query
from raycl.serving.batches import Batches
from raycl.serving.checked import Checked
from raycl.serving.current import Current
from raycl.serving.filters import ItemId
from raycl.serving.meter import Meter, NoMeter
from raycl.serving.remote import NoShard
from raycl.serving.retriever import Retriever
from raycl.serving.sessions import Fresh, Sessions

log = logging.getLogger(__name__)

_LIGHT_K, _LIGHT_IDS = 100, 200


class NotReady(RayclError):
    """No release answers yet."""


class TooLate(RayclError):
    """The deadline passed before there was an answer."""


@dataclass(frozen=True)
class Similar:
    """An item, and what is known of it where the release does not know it."""

    item: ItemId
    features: Mapping[str, Any]


@dataclass(frozen=True)
class Work:
    """One request: its queries, what each user did since, and the moment after which nobody waits for it."""

    queries: Sequence[Query]
    fresh: Sequence[Sequence[Fresh]]
    deadline: float
    similar: Similar | None = None
    phases: dict[str, float] | None = None

    @property
    def light(self) -> int:
        """How many queries it has, where each is answered in little time whatever the release; else 0."""
        return len(self.queries) if self.similar is None and all(map(_is_light, self.queries)) else 0


Outcome = list[Answer] | Exception
Batch = Callable[[Work], Awaitable[Outcome]]


class Service:
    """Answers from the current release; one event loop calls it."""

    def __init__(
        self,
        current: Current,
        config: ServingConfig,
        batch: Batch | None = None,
        meter: Meter | None = None,
        clock: Callable[[], float] = time.monotonic,
        quality: Callable[[str], Mapping[str, float]] = lambda release: {},
    ) -> None:
        """``batch``: has ``answer_batch`` answer a request together with others; by default ``Batches``.

        ``quality``: what the gate measured of a release.
        """
        self._quality = quality
        self.current, self.config = current, config
        self.meter: Meter = meter or NoMeter()
        self.sessions = Sessions(config.sessions, clock)
        self._clock = clock
        self._batch: Batch = batch or Batches(
            self.answer_batch,
            config.max_batch_size,
            config.batch_wait_ms / 1000,
            # Calls to other processes would hold the event loop that is to carry them.
            lambda work: work.light if config.placement == "colocated" else 0,
        )

    async def retrieve(
        self, queries: Sequence[Query], within_s: float, phases: dict[str, float] | None = None
    ) -> list[Answer]:
        """One answer a query, all from one release; ``phases`` takes the seconds of each phase of their batch.

        Raises InputError for what cannot be answered, NotReady before the first release, TooLate after ``within_s``.
        """
        most = self.config.guard.max_queries
        if len(queries) > most:
            raise InputError(f"queries={len(queries)} is above serving.guard.max_queries={most}: send fewer at once")
        bounded = [self._bounded(query) for query in queries]
        fresh = [self.sessions.of(one.user_id) if one.user_id is not None else [] for one in bounded]
        return await self._answered(Work(bounded, fresh, self._clock() + within_s, phases=phases))

    async def similar(self, item: ItemId, features: Mapping[str, Any], k: int | None, within_s: float) -> Answer:
        """The items nearest to one; raises as ``retrieve`` does."""
        query = self._bounded(Query() if k is None else Query(k=k))
        (answer,) = await self._answered(Work([query], [[]], self._clock() + within_s, Similar(item, features)))
        return answer

    def remember(self, events: Sequence[Event]) -> int:
        """Take in fresh events, the newest last, and return how many."""
        for event in events:
            self.sessions.add(event.user_id, [event.item_id])
        self.meter.set("raycl_session_users", len(self.sessions))
        return len(events)

    def described(self) -> Described:
        """Which release answers, and why a newer one does not."""
        retriever = self._retriever()
        name, delta = (retriever.release, retriever.delta) if retriever else (None, 0)
        return Described(release=name, delta=delta, problem=self.current.problem)

    def quality(self) -> Quality:
        """What the gate measured of the release that answers."""
        retriever = self._retriever()
        name = retriever.release if retriever else None
        return Quality(release=name, measured=dict(self._quality(name)) if name else {})

    def ready(self) -> bool:
        """Whether there is a release to answer from."""
        return self._retriever() is not None

    def _retriever(self) -> Retriever | None:
        try:
            return self.current.retriever
        except RayclError:
            return None

    def _bounded(self, query: Query) -> Query:
        config = self.config
        for name, given in (("history", query.history), ("exclude", query.exclude)):
            if len(given) > config.guard.max_history:
                raise InputError(
                    f"{name}: {len(given)} ids are above serving.guard.max_history={config.guard.max_history}: send the"
                    f" newest"
                )
        if "k" not in query.model_fields_set:
            return query.model_copy(update={"k": min(query.k, config.max_k)})
        if query.k > config.max_k:
            raise InputError(f"k={query.k} is above serving.max_k={config.max_k}: ask for fewer")
        return query

    async def _answered(self, work: Work) -> list[Answer]:
        if not self.ready():
            raise NotReady(
                "no release answers yet: publish one, and ask again; GET /v1/release says what stands in the way"
            )
        outcome = await self._in_time(work)
        if isinstance(outcome, Exception):
            if isinstance(outcome, TooLate):
                self.meter.add("raycl_late_requests")
            raise outcome
        return outcome

    async def _in_time(self, work: Work) -> Outcome:
        """What the work comes to, or TooLate: ``asyncio.timeout`` without its three calls into the kernel."""
        outcome, late = asyncio.ensure_future(self._batch(work)), False

        def give_up() -> None:
            nonlocal late
            late = outcome.cancel()

        end = outcome.get_loop().call_later(max(work.deadline - self._clock(), 0.0), give_up)
        try:
            return await outcome
        except asyncio.CancelledError:
            task = asyncio.current_task()
            if not late or (task is not None and task.cancelling()):
                raise  # the caller went away
            return TooLate("there was no answer by the deadline: ask again, for less or with more time")
        finally:
            end.cancel()

    def answer_batch(self, works: Sequence[Work]) -> list[Outcome]:
        """What each request comes to, all by one release; what is wrong with one does not touch the others.

        Blocks for as long as it takes: for a thread.
        """
        retriever, now = self.current.retriever, self._clock()
        outcomes: list[Outcome] = [TooLate("the deadline passed while the request waited")] * len(works)
        live = [place for place, work in enumerate(works) if work.deadline > now]
        try:
            found = self._together(retriever, [works[place] for place in live])
        except NoShard:  # one that asks for nothing but what is lost must not take the others with it
            found = [self._or_error(retriever, works[place]) for place in live]
        except Exception:
            log.exception("a batch of %d requests cannot be answered together; each is tried alone", len(live))
            found = [self._or_error(retriever, works[place]) for place in live]
        for place, outcome in zip(live, found, strict=True):
            outcomes[place] = outcome
        return outcomes

    def _or_error(self, retriever: Retriever, work: Work) -> Outcome:
        try:
            return self._together(retriever, [work])[0]
        except Exception as error:
            return error

    def _together(self, retriever: Retriever, works: Sequence[Work]) -> list[Outcome]:
        """The answers of each request, or the first InputError of its queries."""
        with remote.noticed() as lost:
            found = self._noticing(retriever, works)
        if lost.parts:
            self.meter.add("raycl_lost_shards", len(lost.parts))
            for answer in (answer for outcome in found if not isinstance(outcome, Exception) for answer in outcome):
                if answer.basis != "popularity":
                    answer.degraded.append("shards")
                    self.meter.add("raycl_degraded_answers", what="shards")
        return found

    def _noticing(self, retriever: Retriever, works: Sequence[Work]) -> list[Outcome]:
        asked = [pair for work in works if not work.similar for pair in zip(work.queries, work.fresh, strict=True)]
        checked = iter(retriever.check_all(asked))
        mine = [_similar(retriever, work) if work.similar else [next(checked) for _ in work.queries] for work in works]
        phases: dict[str, float] = {}
        answers = iter(self._answers(retriever, [one for part in mine if _good(part) for one in part], phases))
        for work in works:
            if work.phases is not None:
                work.phases.update(phases)
        return [
            [next(answers) for _ in part] if _good(part) else next(one for one in part if isinstance(one, InputError))
            for part in mine
        ]

    def _answers(self, retriever: Retriever, checked: Sequence[Checked], phases: dict[str, float]) -> list[Answer]:
        if not checked:
            return []

        def observe(phase: str, seconds: float) -> None:
            phases[phase] = seconds
            self.meter.observe("raycl_phase_seconds", seconds, phase=phase)

        answers = retriever.answer(checked, observe)
        self.meter.observe("raycl_batch_queries", len(checked))
        for basis, count in Counter(answer.basis for answer in answers).items():
            self.meter.add("raycl_answers", count, basis=basis)
        for answer in answers:
            if answer.short:
                self.meter.add("raycl_short_answers")
            for what in answer.degraded:
                self.meter.add("raycl_degraded_answers", what=what)
        return answers


def _is_light(query: Query) -> bool:
    wishes = query.filter or query.diversity or query.explain or query.new_items
    return not wishes and query.k <= _LIGHT_K and len(query.history) + len(query.exclude) <= _LIGHT_IDS


def _good(part: list[Checked | InputError]) -> TypeGuard[list[Checked]]:
    return not any(isinstance(one, InputError) for one in part)


def _similar(retriever: Retriever, work: Work) -> list[Checked | InputError]:
    assert work.similar is not None
    return [retriever.check_similar(work.similar.item, work.similar.features, query) for query in work.queries]
