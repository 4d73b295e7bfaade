"""A run to tell of, made from nothing."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Any

from raycl.tracking.events import Event
from raycl.tracking.story import Evaluated, Map, Part, Spot, Story, Trained

SPITEFUL = "<b>a & b</b>|`\x00"


def story(**changes: Any) -> Story:
    """Two epochs, two validations, and items with hostile names."""
    told: dict[str, Any] = {
        "towers": "20260102T000000000-0123456789ab",
        "fingerprint": "f" * 64,
        "made": "2026-01-02 00:05 UTC",
        "raycl": "0.1.0",
        "libraries": {"torch": "2.13.0"},
        "inputs": {"pairs": "20260101T000000000-ba9876543210"},
        "trained": Trained(
            pairs="20260101T000000000-ba9876543210",
            fingerprint="e" * 64,
            sources={"logs.0": "s3://bucket/events/*.parquet"},
            counts={"rows_in": 12_345, "events": 12_000},
            dropped={"null_user": 345},
            parts=(
                Part(
                    name="train",
                    users=900,
                    pairs=10_000,
                    first=datetime(2025, 3, 1, tzinfo=UTC),
                    last=datetime(2025, 9, 30, 12, tzinfo=UTC),
                ),
                Part(name="val", users=900, pairs=900, first=None, last=None),
            ),
        ),
        "config": {"seed": 3, "model": {"dim": 8, "item_id": True}, "loss": {"terms": [{"kind": "softmax"}]}},
        "steps": 120,
        "parameters": 4_321,
        "losses": (3.25, 2.5),
        "validation": (
            {"epoch": 0, "step": 60, "k": 20, "recall": 0.125, "ndcg": 0.0625, "users": 900},
            {"epoch": 1, "step": 120, "k": 20, "recall": 0.25, "ndcg": 0.125, "users": 900},
        ),
        "kept": "step 120, in epoch 2, the best recall@20 of 2",
        "map": Map(
            items=50,
            share=0.75,
            spots=tuple(
                Spot(x=float(place % 7), y=float(place % 5), name=f"{SPITEFUL} {place}", train_count=100 - place)
                for place in range(40)
            ),
        ),
    }
    return Story.model_validate(told | changes)


def track() -> list[Event]:
    """The events of that run."""
    steps = [
        {
            "kind": "step",
            "step": step,
            "time": 1e9 + step,
            "epoch": step // 61,
            "loss": 4.0 / step,
            "learning_rate": 1e-3,
            "pairs_per_s": 1e5 + step,
            "temperature": 0.1,
            "gradient_norm": None if step == 7 else 1.0 + step % 3,
            "embedding_norm": 0.5,
            "weight_norm": 9.0,
            "alignment": 1.0 / step,
            "user_uniformity": -2.0,
            "item_uniformity": -3.0,
        }
        for step in range(1, 121)
    ]
    return [*steps, {"kind": "validation", "time": 2e9, **story().validation[0]}]


def evaluated() -> Evaluated:
    """What was found of it."""
    return Evaluated(
        version="20260103T000000000-abcdefabcdef",
        users=900,
        models=(
            {"model": "towers", "recall_at_10": "0.3125", "ndcg_at_10": "0.1875"},
            {"model": "item_knn", "recall_at_10": "0.0625", "ndcg_at_10": ""},
        ),
        segments=({"segment": "items.popularity=head", "users": "900", "recall_at_10": 0.375, "95 %": "0.3 to 0.4"},),
        protocol=("protocol full-catalogue/time/test/00000000", "  ties: the lower row first"),
    )
