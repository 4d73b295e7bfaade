"""A transformer of small layers and random weights, saved as the real ones are; it needs the extra ``text``."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import pytest

LENGTH = 16


def save(folder: Path, words: Sequence[str], layers: int = 2, seed: int = 0, kind: str = "bert") -> Path:
    """Write a model of a ``kind`` under ``folder`` that knows these words, and return where it is.

    Skips without the extra.
    """
    pytest.importorskip("sentence_transformers", reason="needs the extra 'text'")
    import torch
    from sentence_transformers import SentenceTransformer
    from sentence_transformers.sentence_transformer import modules
    from tokenizers import Tokenizer, pre_tokenizers, processors
    from tokenizers.models import WordLevel
    from transformers import AutoConfig, AutoModel, PreTrainedTokenizerFast

    vocabulary = {word: place for place, word in enumerate(["[PAD]", "[UNK]", "[CLS]", "[SEP]", *words])}
    tokenizer = Tokenizer(WordLevel(vocabulary, unk_token="[UNK]"))
    tokenizer.pre_tokenizer = pre_tokenizers.Whitespace()
    tokenizer.post_processor = processors.TemplateProcessing(
        single="[CLS] $A [SEP]", special_tokens=[("[CLS]", 2), ("[SEP]", 3)]
    )
    special = {"pad_token": "[PAD]", "unk_token": "[UNK]", "cls_token": "[CLS]", "sep_token": "[SEP]"}
    fast = PreTrainedTokenizerFast(tokenizer_object=tokenizer, **special)  # type: ignore[no-untyped-call]
    fast.save_pretrained(folder / "bert")
    sizes = AutoConfig.for_model(
        kind,
        vocab_size=len(vocabulary),
        hidden_size=LENGTH,
        num_hidden_layers=layers,
        num_attention_heads=2,
        max_position_embeddings=16,
        pad_token_id=0,
        **{"hidden_dim" if kind == "distilbert" else "intermediate_size": 32},
    )
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        AutoModel.from_config(sizes).save_pretrained(folder / "bert")  # type: ignore[no-untyped-call]
    transformer = modules.Transformer(str(folder / "bert"))
    pooling = modules.Pooling(LENGTH, pooling_mode="mean")
    whole = folder / "whole"
    SentenceTransformer(modules=[transformer, pooling, modules.Normalize()], device="cpu").save(str(whole))
    return whole
