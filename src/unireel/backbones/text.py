"""The pocket models' text side: a word tokenizer over the World's closed vocabulary and a small UMT5 encoder."""

# Modules of torch and of the model libraries are typed too loosely for these rules.
# pyright: reportArgumentType=false, reportCallIssue=false

from __future__ import annotations

from collections.abc import Sequence

import torch
from tokenizers import Regex, Tokenizer, decoders, models, normalizers, pre_tokenizers
from torch import Tensor, nn
from transformers import PreTrainedTokenizerBase, PreTrainedTokenizerFast, UMT5Config, UMT5EncoderModel

from unireel.errors import UserError

SPECIAL_TOKENS = ("<pad>", "<unk>", "<s>", "</s>", "<film>", "<ask>", "<answer>", "<caption>")
"""Padding, unknown, start, end, a visual token, and the marks before a question, an answer and a caption."""


def word_tokenizer(words: Sequence[str]) -> PreTrainedTokenizerFast:
    """One token a word or punctuation mark, lower case; the special tokens come first, then ``words`` in order.

    Tokenizers of models that share a vocabulary are the same, whoever makes them.
    """
    vocabulary = {token: number for number, token in enumerate((*SPECIAL_TOKENS, *words))}
    tokenizer = Tokenizer(models.WordLevel(vocabulary, unk_token="<unk>"))
    tokenizer.normalizer = normalizers.Lowercase()  # type: ignore[assignment]
    tokenizer.pre_tokenizer = pre_tokenizers.Split(Regex(r"\s+"), "removed")  # type: ignore[assignment]
    marks = pre_tokenizers.Split(Regex(r"[,.?]"), "isolated")
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence([tokenizer.pre_tokenizer, marks])  # type: ignore[assignment]
    tokenizer.decoder = decoders.WordPiece(prefix="##", cleanup=True)  # type: ignore[assignment]
    return PreTrainedTokenizerFast(
        tokenizer_object=tokenizer,
        pad_token="<pad>",
        unk_token="<unk>",
        bos_token="<s>",
        eos_token="</s>",
        additional_special_tokens=list(SPECIAL_TOKENS[4:]),
        padding_side="right",
        model_max_length=512,
    )


def pocket_text_encoder(vocabulary: int, width: int, layers: int, heads: int) -> UMT5EncoderModel:
    """A UMT5 encoder (as Wan's, arXiv 2503.20314) of the given width and depth, without dropout."""
    config = UMT5Config(
        vocab_size=vocabulary,
        d_model=width,
        d_kv=width // heads,
        d_ff=2 * width,
        num_layers=layers,
        num_heads=heads,
        dropout_rate=0.0,
        pad_token_id=SPECIAL_TOKENS.index("<pad>"),
        eos_token_id=SPECIAL_TOKENS.index("</s>"),
    )
    return UMT5EncoderModel(config)


def umt5_xxl() -> UMT5EncoderModel:
    """The text encoder of Wan's models (UMT5-XXL); build it under ``torch.device("meta")`` to count it."""
    return UMT5EncoderModel(
        UMT5Config(
            vocab_size=256384,
            d_model=4096,
            d_kv=64,
            d_ff=10240,
            num_layers=24,
            num_heads=64,
            feed_forward_proj="gated-gelu",
        )
    )


def tokenize(tokenizer: PreTrainedTokenizerBase, texts: Sequence[str], length: int) -> tuple[Tensor, Tensor]:
    """Token ids (B, ``length``) int64, ended by ``</s>`` and padded, and their mask (B, ``length``) int64.

    Raises:
        UserError: a text is longer than ``length`` tokens; nothing is ever cut.
    """
    ids = torch.full((len(texts), length), tokenizer.pad_token_id, dtype=torch.long)
    mask = torch.zeros_like(ids)
    for row, text in enumerate(texts):
        tokens = tokenizer(text, add_special_tokens=False)["input_ids"]
        if len(tokens) + 1 > length:
            raise UserError(
                f"the text has {len(tokens)} words and marks; the model takes at most {length - 1}: {text!r}"
            )
        ids[row, : len(tokens)] = torch.tensor(tokens, dtype=torch.long)
        ids[row, len(tokens)] = tokenizer.eos_token_id
        mask[row, : len(tokens) + 1] = 1
    return ids, mask


def encode_text(encoder: nn.Module, ids: Tensor, mask: Tensor) -> Tensor:
    """Text states (B, L, D) with padding set to zero, as Wan's decoder expects its context."""
    states = encoder(input_ids=ids, attention_mask=mask).last_hidden_state
    return states * mask[..., None].to(states.dtype)
