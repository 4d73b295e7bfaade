"""What each recipe is measured by, beside which figures of others, and with which settings changed."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field


@dataclass(frozen=True)
class Peer:
    """A figure of somebody else on the same data and split, over the full catalogue."""

    name: str
    figures: Mapping[str, float]


@dataclass(frozen=True)
class Case:
    """One recipe under ``jobs/recipes``."""

    name: str
    data: str
    objective: str
    metrics: tuple[str, ...]
    peers: tuple[Peer, ...] = ()
    variants: Mapping[str, tuple[str, ...]] = field(default_factory=dict)
    """By what they are called: settings that are changed, measured in the same way and not published."""
    unlike: str = ""
    """Why the baselines of the recipe's own run are not those of its variants; empty where they are."""


_GOWALLA = (
    Peer("random walk RP3beta, best of 7 settings on the test part", {"recall_at_20": 0.1852, "ndcg_at_20": 0.1525}),
    Peer("plain two-tower, in-batch softmax with logQ, dim 64", {"recall_at_20": 0.1699, "ndcg_at_20": 0.1355}),
    Peer("LightGCN, published, tuned on the test part", {"recall_at_20": 0.1830, "ndcg_at_20": 0.1554}),
)
_BEAUTY = (
    Peer("SASRec as first reported", {"recall_at_10": 0.0605, "ndcg_at_10": 0.0318}),
    Peer("CL4SRec, published", {"recall_at_10": 0.0681, "ndcg_at_10": 0.0299}),
    Peer("HSTU, recomputed", {"recall_at_10": 0.0788, "ndcg_at_10": 0.0439}),
    Peer("eSASRec", {"recall_at_10": 0.0928, "ndcg_at_10": 0.0523}),
)
_MOVIES = (
    Peer("ALS of implicit, 128 factors", {"recall_at_10": 0.1051, "ndcg_at_10": 0.0532}),
    Peer("plain two-tower, in-batch softmax with logQ, dim 64", {"recall_at_10": 0.1005, "ndcg_at_10": 0.0510}),
)
_COLD_USERS = "pairs.split={kind: cold_users, val_share: 0.05, test_share: 0.1}"
_IDS_ALONE = ("model.item_id=true", "items.features=[]", "items.encode=[]")

CASES = {
    case.name: case
    for case in (
        Case(
            "movies",
            "MovieLens-1M, the item of the last moment out, no other order known",
            "softmax over the batch, logQ, cosine",
            ("recall_at_10", "ndcg_at_10"),
            _MOVIES,
        ),
        Case(
            "movies-100k",
            "MovieLens-100K, the last tenth by time",
            "softmax over the batch, logQ, cosine; title, genres, year",
            ("recall_at_20", "ndcg_at_20"),
        ),
        Case(
            "products",
            "Online Retail, the last 12 % by time; items bought for the first time",
            "softmax, purchases weighted by the logarithm of the quantity; title, price",
            ("recall_at_20", "ndcg_at_20"),
            variants={"all purchases, repeated ones too": ("evaluation.exclude_met=false",)},
            unlike="where purchases again count too, other users and more targets are measured",
        ),
        Case(
            "music",
            "Last.fm 2k, a tenth of each listener's artists out",
            "softmax with 512 even negatives, listens weighted by the logarithm of their number; artist names",
            ("recall_at_20", "ndcg_at_20"),
        ),
        Case(
            "embeddings",
            "Gowalla, the split of NGCF and LightGCN",
            "softmax over the batch, logQ; an embedding a user and an item",
            ("recall_at_20", "ndcg_at_20"),
            _GOWALLA,
        ),
        Case(
            "text",
            "Amazon Beauty, each user's last item out",
            "softmax with 512 even negatives over vectors of all-MiniLM-L6-v2, no embedding of an item",
            ("recall_at_10", "ndcg_at_10"),
            _BEAUTY,
            variants={
                "words hashed and projected in place of the language model": (
                    "items.encode.0.model=projection",
                    "items.encode.0.length=384",
                ),
                "with the last layer fine-tuned": ("items.encode.0.fine_tune={layers: 1, max_pairs: 10000}",),
            },
        ),
        Case(
            "autoencoder",
            "MovieLens-100K, each user's last film out",
            "reconstruction and masked features, then softmax on the codes",
            ("recall_at_10", "ndcg_at_10"),
            variants={"without pre-training": ("train.pretrain=null",)},
        ),
        Case(
            "ratings",
            "MovieLens-100K, the last tenth by time",
            "least squares of cosines on ratings",
            ("rmse", "recall_at_20", "ndcg_at_20"),
        ),
        Case(
            "sequence",
            "Amazon Beauty, each user's last item out",
            "softmax with 512 even negatives and two augmented views; a causal transformer",
            ("recall_at_10", "ndcg_at_10"),
            _BEAUTY,
        ),
        Case(
            "sequence-100k",
            "MovieLens-100K, each user's last film out",
            "softmax and two augmented views; a causal transformer that reads times",
            ("recall_at_10", "ndcg_at_10"),
        ),
        Case(
            "multimodal",
            "MovieLens-100K, each user's last film out; a quarter of the pictures missing",
            "softmax; words, tags, a language model and stand-ins for pictures, by gates",
            ("recall_at_10", "ndcg_at_10"),
            variants={
                "added up in place of gates": ("model.fusion=sum",),
                "gates, with one picture in a thousand": ("items.encode.1.missing=0.999",),
            },
        ),
        Case(
            "cold",
            "Amazon Beauty, a tenth of the items never trained on",
            "softmax with 512 even negatives over vectors of all-MiniLM-L6-v2",
            ("recall_at_10", "ndcg_at_10"),
            variants={
                "new items, by embeddings alone": _IDS_ALONE,
                "new users, by titles": (_COLD_USERS,),
                "new users, by embeddings alone": (_COLD_USERS, *_IDS_ALONE),
            },
            unlike="other users and items are held out, so the figures of new users stand beside each other alone",
        ),
    )
}

ABLATED = "movies-100k"
"""The recipe whose settings are changed one at a time."""
ABLATED_ON = ("evaluation.part=val", "logs.0.columns.split=split")
"""Measured on one film of every user, the last but one: by time there are too few users to tell settings apart."""
ABLATIONS: Mapping[str, Mapping[str, tuple[str, ...]]] = {
    "correction of sampling": {
        "logQ static (the recipe)": (),
        "logQ streaming": ("loss.log_q=streaming",),
        "logQ off": ("loss.log_q=off",),
    },
    "temperature": {
        "0.05": ("loss.temperature=0.05",),
        "0.1 (the recipe)": (),
        "0.2": ("loss.temperature=0.2",),
        "learned, from 0.1": ("loss.learn_temperature=true",),
    },
    "negatives": {
        "in-batch (the recipe)": (),
        "mixed, 512 even ones": ("loss.negatives.uniform=512",),
        "the 128 hardest and 128 others": ("loss.negatives.hard=128", "loss.negatives.random=128"),
        "bank of 4,096": ("loss.negatives.bank=4096", "loss.negatives.bank_after_steps=100"),
    },
    "words of the title": {
        "on (the recipe)": (),
        "off": ("items.features=[{column: genres, kind: multi}, {column: year, kind: numeric}]",),
    },
    "feature masking": {
        "off (the recipe)": (),
        "on, weight 0.1": ("loss.terms=[softmax, {kind: masked_features, weight: 0.1}]",),
    },
    "pooling of the history": {
        "mean (the recipe)": (),
        "recency": ("model.pooling=recency",),
        "attention": ("model.pooling=attention",),
        "transformer": ("model.pooling=transformer",),
    },
}
