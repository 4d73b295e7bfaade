"""What the gate asks, one task at a time: exact answers, the depth that finds enough of them, and the verdict."""

from __future__ import annotations

import time
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from raycl import lineage
from raycl.index import gate, nearest, previous, questions, release, tasks
from raycl.index.gate import Evidence
from raycl.index.nearest import Ids, Scores
from raycl.index.plan import Plan
from raycl.index.search import Depth, ShardedIndex
from raycl.index.tasks import STAGE, Embedded
from raycl.index.tuning import Space
from raycl.index.work import Job, get, put
from raycl.model import weights
from raycl.storage.versions import Version

_MULTIPLES = (1, 5, 20)
"""Of ``gate.index_recall_at``: what a search asks for is ``k`` and all that is left out of its answer."""
_LEAST_QUERIES = 100
_TIMED = 200


@dataclass(frozen=True)
class Truth:
    """That exact answers lie ready: for how many queries, and the numbers of items that recall is measured at."""

    num_queries: int
    ks: tuple[int, ...]

    def queries_at(self, place: int) -> int:
        """Queries that are measured at ``ks[place]``: fewer where each of them brings more items."""
        return min(self.num_queries, max(_LEAST_QUERIES, self.num_queries * self.ks[0] // self.ks[place]))


def truth_of(job: Job, embedded: Embedded, queries: dict[str, Any]) -> Truth:
    """What is to be found, at which numbers of items, by the queries that ``draw_queries`` left."""
    ks = {min(job.config.gate.index_recall_at * times, embedded.num_vectors) for times in _MULTIPLES}
    return Truth(int(queries["queries"]), tuple(sorted(ks)))


def exact_shard(job: Job, truth: Truth, shard: int) -> dict[str, Any]:
    """Leave the exact answers of one shard, with one block's part of it in memory."""
    task = f"exact-{shard:06d}"
    if (record := job.draft.task_done(task)) is not None:
        return record
    queries, metric = get(job, "queries"), job.config.index.metric
    best = [_nothing(truth.queries_at(place), k) for place, k in enumerate(truth.ks)]
    num_items = 0
    for rows, vectors in job.parts(shard):
        num_items += len(rows)
        for place, k in enumerate(truth.ks):
            places, scores = nearest.exact(vectors, queries[: truth.queries_at(place)], k, metric)
            ids = np.where(places < 0, -1, rows[places]) if len(rows) else places
            best[place] = nearest.merge(np.stack([best[place][0], ids]), np.stack([best[place][1], scores]), k)
    for place, (ids, scores) in enumerate(best):
        put(job, f"exact-{shard:06d}-{place}-ids", ids)
        put(job, f"exact-{shard:06d}-{place}-scores", scores)
    record = {"items": num_items}
    job.draft.finish_task(task, record)
    return record


def merge_truth(job: Job, truth: Truth) -> dict[str, Any]:
    """Leave the exact answers of all shards together, with the answers of two shards in memory at a time."""
    for place, k in enumerate(truth.ks):
        name = f"exact-{{:06d}}-{place}"
        found, _ = nearest.merge_in_turn(_answers(job, name), k)
        put(job, f"truth-{place}", found)
    return {"num_queries": truth.num_queries}


def measure_shard(job: Job, space: Space, truth: Truth, shard: int, effort: int) -> dict[str, Any]:
    """Leave what one shard answers by this effort, by its codes and by the stored vectors; for ``merge_answers``."""
    index = _load(job, space.plan, shard)
    queries = get(job, "queries")
    for place, k in enumerate(truth.ks):
        asked = queries[: truth.queries_at(place)]
        ((ids, scores),) = index.by_codes(asked, k * space.factors[-1], effort)
        put(job, f"found-{shard:06d}-{place}-ids", ids)
        put(job, f"found-{shard:06d}-{place}-scores", scores)
        if space.plan.rerank:
            put(job, f"found-{shard:06d}-{place}-exact", index.exact_scores(asked, ids))
    return {}


def merge_answers(job: Job, space: Space, truth: Truth) -> dict[str, Any]:
    """Recall of what the shards answered, at each of the truth's numbers of items, for each number of candidates."""
    recalls = []
    for place, k in enumerate(truth.ks):
        best = get(job, f"truth-{place}")
        ids, exact = _candidates(job, space, place, k * space.factors[-1])
        recalls.append(
            [
                nearest.recall(nearest.merge(ids[None, :, : k * factor], exact[None, :, : k * factor], k)[0], best)
                for factor in space.factors
            ]
        )
    return {"recalls": recalls}


def time_shard(job: Job, plan: Plan, truth: Truth, depth: Depth, shard: int) -> dict[str, Any]:
    """Milliseconds that each of some queries takes in one shard, alone."""
    index, queries = _load(job, plan, shard), get(job, "queries")[:_TIMED]
    taken = []
    for row in range(len(queries)):
        began = time.perf_counter()
        index.probe(queries[row : row + 1], truth.ks[0], depth.effort, depth.candidates)
        taken.append(1000 * (time.perf_counter() - began))
    return {"ms": taken}


def search_ms(shards: Sequence[dict[str, Any]]) -> float:
    """Milliseconds in which 95 of 100 queries are searched in all shards, one after another."""
    summed = np.sum([record["ms"] for record in shards], axis=0)
    return float(np.quantile(summed, 0.95)) if summed.size else 0.0


def conclude(job: Job, space: Space, depth: Depth, before: Version | None) -> dict[str, Any]:
    """What the answers by ``depth``, which ``measure_shard`` left last, are worth beside the exact ones.

    ``before`` is the release that is current now: how far its answers to the same users are the same.
    """
    candidates = depth.candidates or depth.k
    ids, exact = _candidates(job, space, 0, candidates)
    found, _ = nearest.merge(ids[None], exact[None], depth.k)
    best, targets = get(job, "truth-0"), questions.drawn(job).targets
    by_index, by_exact = (float(gate.ndcg(answer, targets).mean()) for answer in (found, best))
    covered = len(np.unique(found[found >= 0]))
    measured = {
        "ndcg": by_index,
        "exact_ndcg": by_exact,
        "coverage": covered / max(job.num_items, 1),
        "recall": nearest.recall(found, best),
    }
    return measured | ({"previous": asdict(previous.compare(job, before, found))} if before else {})


def finish(
    job: Job,
    plan: Plan,
    embedded: Embedded,
    shards: Sequence[dict[str, Any]],
    truth: Truth,
    depths: tuple[Depth, ...],
    measured: dict[str, Any],
    search_ms: float,
) -> Version:
    """Judge the release, bind index and towers, and commit; complete whatever the verdict.

    Raises CorruptRelease where a tower is not the one that the towers' manifest names, or a shard is not what
    its task wrote.
    """
    k, evaluated = max(job.config.evaluation.ks), job.evaluation.manifest.facts
    evidence = Evidence(
        index_recall=measured["recall"],
        num_queries=truth.num_queries,
        recall=evaluated["towers"][f"recall_at_{k}"],
        popularity_recall=evaluated["popularity"][f"recall_at_{k}"],
        recall_at=k,
        part=evaluated["part"],
        num_items=job.num_items,
        num_vectors=sum(record["items"] for record in shards),
        num_null=embedded.num_null,
        num_not_finite=embedded.num_not_finite,
        num_duplicates=sum(record["duplicates"] for record in shards),
        ndcg=measured["ndcg"],
        exact_ndcg=measured["exact_ndcg"],
        coverage=measured["coverage"],
        index_bytes=sum(record["bytes"] for record in shards),
        search_ms=search_ms,
        previous=gate.Previous(**measured["previous"]) if "previous" in measured else None,
    )
    verdict = gate.decide(evidence, job.config.gate)
    tasks.write_towers(job)
    made = job.towers.manifest.checksums
    origin = release.Lineage(
        job.pairs.name, job.towers.name, job.evaluation.name, made[weights.USER_FILE], made[weights.ITEM_FILE]
    )
    how = release.Search(
        kind=plan.kind,
        num_shards=job.num_shards,
        num_lists=plan.num_lists,
        depths=depths,
        dim=job.dim,
        item_tower=embedded.item_tower,
        metric=plan.metric,
        factory=plan.factory,
        rerank=plan.rerank,
    )
    release.write_facts(job.draft.store, how, origin, evidence, verdict)
    lost = {"null": embedded.num_null, "not_finite": embedded.num_not_finite}
    return job.draft.commit(
        inputs={"pairs": job.pairs.name, "towers": job.towers.name, "evaluation": job.evaluation.name},
        config=lineage.part(job.config, STAGE),
        counts={"items": job.num_items, "vectors": evidence.num_vectors, "index_bytes": evidence.index_bytes},
        dropped={reason: number for reason, number in lost.items() if number},
        facts={
            "index_recall": evidence.index_recall,
            "depths": [asdict(depth) for depth in depths],
            "plan": plan.reason,
            "publish": verdict.publish,
            "reason": verdict.reason,
        },
        written={path: digest for record in shards for path, digest in record["sha256"].items()},
    )


def _candidates(job: Job, space: Space, place: int, most: int) -> tuple[Ids, Scores]:
    """The best ``most`` of all shards by their codes, and the scores that put them in order at the end."""
    best: list[npt.NDArray[Any]] = []
    for shard in range(job.num_shards):
        name = f"found-{shard:06d}-{place}"
        more = [get(job, f"{name}-ids"), get(job, f"{name}-scores")]
        more.append(get(job, f"{name}-exact") if space.plan.rerank else more[1])
        both = [np.concatenate(pair, axis=1) for pair in zip(best, more, strict=True)] if best else more
        places = nearest.order(both[0], both[1], most)
        best = [np.take_along_axis(one, places, axis=1) for one in both]
    return best[0], best[2]


def _answers(job: Job, name: str) -> Iterator[tuple[Ids, Scores]]:
    for shard in range(job.num_shards):
        yield get(job, name.format(shard) + "-ids"), get(job, name.format(shard) + "-scores")


def _nothing(num_queries: int, k: int) -> tuple[Ids, Scores]:
    return np.full((num_queries, k), -1, dtype=np.int64), np.full((num_queries, k), -np.inf, dtype=np.float32)


def _load(job: Job, plan: Plan, shard: int) -> ShardedIndex:
    return release.read_shard(job.draft.store, shard, (), rerank=plan.rerank)
