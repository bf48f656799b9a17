"""The planner: a small language model that extends prompts to plans before a film is made of them.

It is an ordinary Qwen2 language model over the pocket vocabulary that has learned to go on after
``<ask> prompt <answer>`` with a plan (:mod:`unireel.world.language.plans`) and ``</s>``. What a prompt leaves open it
draws at random, so that one prompt gives many films.
"""

# Modules of torch and of the model libraries are typed too loosely for these rules.
# pyright: reportArgumentType=false, reportCallIssue=false

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor
from transformers import PreTrainedTokenizerBase, Qwen2Config, Qwen2ForCausalLM

from unireel.backbones.text import SPECIAL_TOKENS
from unireel.world.language import PLAN_WORDS

_PAD, _END, _ASK, _ANSWER = (SPECIAL_TOKENS.index(each) for each in ("<pad>", "</s>", "<ask>", "<answer>"))


def pocket_planner(vocabulary: int, width: int, layers: int, heads: int, ffn: int) -> Qwen2ForCausalLM:
    """A Qwen2 language model (arXiv 2407.10671) of the given width and depth, with tied embeddings."""
    config = Qwen2Config(
        vocab_size=vocabulary,
        hidden_size=width,
        intermediate_size=ffn,
        num_hidden_layers=layers,
        num_attention_heads=heads,
        num_key_value_heads=heads,
        max_position_embeddings=512,
        rope_parameters={"rope_type": "default", "rope_theta": 1000.0},
        bos_token_id=_ASK,
        eos_token_id=_END,
        pad_token_id=_PAD,
        tie_word_embeddings=True,
    )
    return Qwen2ForCausalLM(config)


def planning_ids(tokenizer: PreTrainedTokenizerBase, prompt: str, plan: str | None = None) -> list[int]:
    """Token ids of a prompt up to where its plan begins; with ``plan``, up to its end."""
    asked = [_ASK, *_ids(tokenizer, prompt), _ANSWER]
    return asked if plan is None else [*asked, *_ids(tokenizer, plan), _END]


@torch.no_grad()
def write_plans(
    planner: Qwen2ForCausalLM,
    tokenizer: PreTrainedTokenizerBase,
    prompts: Sequence[str],
    generators: Sequence[torch.Generator],
    temperature: float = 1.0,
    nucleus: float = 0.95,
) -> list[str]:
    """A plan for each prompt, drawn with the generator (on the CPU) of its place.

    Args:
        planner, tokenizer: the model and its words.
        prompts: in the World's language.
        generators: one for each prompt, so that a film does not depend on the others of its batch.
        temperature: divides the logits; 0 takes the likeliest word.
        nucleus: only the likeliest words that together have this probability are drawn from (arXiv 1904.09751).
    """
    asked = [planning_ids(tokenizer, prompt) for prompt in prompts]
    longest = max(map(len, asked))
    ids = torch.tensor([[_PAD] * (longest - len(each)) + each for each in asked], device=planner.device)
    mask = (ids != _PAD).long()
    said: list[list[int]] = [[] for _ in prompts]
    past = None
    for _ in range(PLAN_WORDS + 1):
        places = (mask.cumsum(1) - 1).clamp(min=0)[:, -ids.shape[1] :]
        output = planner(
            input_ids=ids, attention_mask=mask, position_ids=places, past_key_values=past, use_cache=True
        )
        past = output.past_key_values
        chosen = _draw(output.logits[:, -1].float().cpu(), generators, temperature, nucleus)
        over = True
        for row, word in enumerate(chosen.tolist()):
            if not said[row] or said[row][-1] != _END:
                said[row].append(word)
            over &= said[row][-1] == _END
        if over:
            break
        ids = chosen.to(ids)[:, None]
        mask = torch.cat([mask, torch.ones_like(mask[:, :1])], dim=1)
    return [_text(tokenizer, each) for each in said]


def _draw(
    logits: Tensor, generators: Sequence[torch.Generator], temperature: float, nucleus: float
) -> Tensor:
    """One word for each row of (B, V): (B,)."""
    if temperature == 0:
        return logits.argmax(-1)
    shares, words = (logits / temperature).softmax(-1).sort(-1, descending=True)
    shares = shares * (shares.cumsum(-1) - shares < nucleus)
    drawn = [torch.multinomial(row, 1, generator=each) for row, each in zip(shares, generators, strict=True)]
    return words.gather(1, torch.stack(drawn))[:, 0]


def _ids(tokenizer: PreTrainedTokenizerBase, text: str) -> list[int]:
    return tokenizer(text, add_special_tokens=False)["input_ids"]


def _text(tokenizer: PreTrainedTokenizerBase, ids: list[int]) -> str:
    words = tokenizer.convert_ids_to_tokens([each for each in ids if each != _END])
    return " ".join(words).replace(" .", ".").replace(" ,", ",")
