"""The pocket video-language model: Qwen2-VL at a small size, and its layout of films, questions and answers.

A film becomes 9 visual tokens for every four frames; the sequence is ``<s>``, the film, then one of

- ``<ask>`` question ``<answer>`` answer ``</s>``
- ``<caption>`` caption ``</s>``
"""

# Modules of torch and of the model libraries are typed too loosely for these rules.
# pyright: reportArgumentType=false, reportAttributeAccessIssue=false, reportCallIssue=false, reportOptionalMemberAccess=false
# pyright: reportOperatorIssue=false

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn
from transformers import PreTrainedTokenizerBase, Qwen2VLConfig, Qwen2VLForConditionalGeneration
from transformers.models.qwen2_vl.modeling_qwen2_vl import rotate_half
from transformers.vision_utils import get_vision_position_ids

VIEW_FRAMES = 16
"""Frames of a view that have a tube each, see :func:`view_slots`."""


@dataclass(frozen=True)
class PatchLayout:
    """How a film is cut: ``patch`` pixels a side, ``merge`` patches a side to a token, ``tube`` frames to a patch.

    With ``channels`` 6 a pixel's place (x, y) and its tube's time follow its colour, as in CoordConv
    (arXiv 1807.03247): rotary positions are relative, so nothing else tells the ViT *where* and *when* a patch lies.
    """

    patch: int = 8
    merge: int = 2
    tube: int = 4
    channels: int = 6

    @property
    def side(self) -> int:
        """Pixels along the side of a token."""
        return self.patch * self.merge


def layout_of(vlm: Qwen2VLForConditionalGeneration) -> PatchLayout:
    """The layout that a model was built for."""
    vision = vlm.config.vision_config
    return PatchLayout(
        vision.patch_size, vision.spatial_merge_size, vision.temporal_patch_size, vision.in_channels
    )


def pocket_vlm(
    vocabulary: PreTrainedTokenizerBase,
    width: int,
    layers: int,
    heads: int,
    ffn: int,
    vision: int,
    depth: int,
    layout: PatchLayout = PatchLayout(),
) -> Qwen2VLForConditionalGeneration:
    """Qwen2-VL (arXiv 2409.12191): a language model of ``width`` x ``layers``, a ViT of ``vision`` x ``depth``."""
    ids = {name: vocabulary.convert_tokens_to_ids(name) for name in ("<s>", "</s>", "<pad>", "<film>")}
    quarter = width // heads // 8
    config = Qwen2VLConfig(
        text_config={
            "vocab_size": len(vocabulary),
            "hidden_size": width,
            "intermediate_size": ffn,
            "num_hidden_layers": layers,
            "num_attention_heads": heads,
            "num_key_value_heads": heads,
            "max_position_embeddings": 4096,
            "rope_parameters": {
                "rope_type": "default",
                # Of 10,000, the usual base, the columns would turn by 0.003 a step at most: three columns look alike.
                "rope_theta": 100.0,
                "mrope_section": [4 * quarter - 2 * (3 * quarter // 2), 3 * quarter // 2, 3 * quarter // 2],
            },
            "bos_token_id": ids["<s>"],
            "eos_token_id": ids["</s>"],
            "pad_token_id": ids["<pad>"],
            "use_sliding_window": False,
        },
        vision_config={
            "depth": depth,
            "embed_dim": vision,
            "hidden_size": width,
            "num_heads": max(vision // 48, 1),
            "mlp_ratio": 3,
            "in_channels": layout.channels,
            "patch_size": layout.patch,
            "spatial_merge_size": layout.merge,
            "temporal_patch_size": layout.tube,
        },
        image_token_id=len(vocabulary)
        + 1,  # the pocket model has films only; a picture is a film of one tube
        video_token_id=ids["<film>"],
        vision_start_token_id=len(vocabulary) + 2,
        vision_end_token_id=len(vocabulary) + 3,
        tie_word_embeddings=True,
    )
    return Qwen2VLForConditionalGeneration(config)


def visual_patches(frames: np.ndarray, layout: PatchLayout = PatchLayout()) -> tuple[Tensor, Tensor]:
    """Films as Qwen2-VL takes them.

    Args:
        frames: (B, F, H, W, 3) uint8, H and W multiples of a token's side; frames are completed to whole tubes with
            the last.
        layout: how they are cut.

    Returns:
        Patches (B * T * h * w, channels * tube * patch * patch) float32 in [-1, 1], in the order of Qwen2-VL's
        processor (patches that will be merged lie together), and the grid (B, 3) int64 of T tubes, h and w patches.
    """
    patch, tube = layout.patch, layout.tube
    missing = -frames.shape[1] % tube
    if missing:
        frames = np.concatenate([frames, np.repeat(frames[:, -1:], missing, axis=1)], axis=1)
    batch, count, height, width, _ = frames.shape
    tubes, rows, columns = count // tube, height // patch, width // patch
    pixels = _cut(torch.from_numpy(np.ascontiguousarray(frames)), layout)
    patches = pixels.float().div_(127.5).sub_(1)
    if layout.channels == 6:
        axes = (torch.linspace(-1, 1, each) for each in (tubes, height, width))
        t, y, x = torch.meshgrid(*axes, indexing="ij")
        where = torch.stack([x, y, t], dim=-1).repeat_interleave(tube, 0)
        patches = torch.cat([patches, _cut(where[None], layout).repeat(batch, 1)], dim=1)
    return patches, torch.tensor([[tubes, rows, columns]] * batch)


def view_slots(count: int, tube: int = 4) -> np.ndarray:
    """How ``count`` chosen frames of a long film are laid into whole tubes: numbers of frames, rising.

    Up to :data:`VIEW_FRAMES` frames have a tube each, so that moments that lie far apart are not mixed; more are laid
    next to each other, the last held to the end of its tube.
    """
    if count <= VIEW_FRAMES:
        return np.repeat(np.arange(count), tube)
    return np.minimum(np.arange(-(-count // tube) * tube), count - 1)


def _cut(frames: Tensor, layout: PatchLayout) -> Tensor:
    """Frames (B, F, H, W, C) as patches (B * T * h * w, C * tube * patch * patch)."""
    patch, merge, tube = layout.patch, layout.merge, layout.tube
    batch, count, height, width, _ = frames.shape
    rows, columns = height // layout.side, width // layout.side
    frames = frames.view(batch, count // tube, tube, rows, merge, patch, columns, merge, patch, -1)
    return frames.permute(0, 1, 3, 6, 4, 7, 9, 2, 5, 8).flatten(6).flatten(0, 5)


def _vision_block(block: nn.Module, x: Tensor, cos: Tensor, sin: Tensor) -> Tensor:
    """One block of the ViT on tubes (B, n, D) of equal size; ``cos``, ``sin`` (n, D / heads) turn keys and queries."""
    batch, count, width = x.shape
    heads = block.attn.num_heads
    query, key, value = (
        block.attn.qkv(block.norm1(x)).view(batch, count, 3, heads, -1).permute(2, 0, 3, 1, 4).unbind(0)
    )
    query, key = ((each * cos + rotate_half(each) * sin).to(value.dtype) for each in (query, key))
    # Products and a softmax: on short sequences of a processor up to twice as fast as the fused kernel.
    likeness = (query @ key.mT) * block.attn.scaling
    seen = likeness.softmax(-1).to(value.dtype) @ value
    x = x + block.attn.proj(seen.transpose(1, 2).reshape(batch, count, width))
    return x + block.mlp(block.norm2(x))


def visual_tokens(
    vlm: Qwen2VLForConditionalGeneration, patches: Tensor, grid: Tensor
) -> tuple[Tensor, Tensor]:
    """What ``get_video_features`` computes, for films of equal size, all tubes at once.

    The model's own forward attends to one tube after another, as films of unequal size need.

    Args:
        patches, grid: from :func:`visual_patches`.

    Returns:
        Visual tokens (B, N, D), and the patches' states before merging (B * T, n, vision width).
    """
    vision = vlm.model.visual
    _, rows, columns = (int(each) for each in grid[0])
    weight = vision.patch_embed.proj.weight
    x = F.linear(patches.to(weight.dtype), weight.flatten(1)).view(
        -1, rows * columns, vision.config.embed_dim
    )
    single = torch.tensor([[1, rows, columns]], device=x.device)
    cos, sin = vision.rotary_pos_emb(x, get_vision_position_ids(single, vision.spatial_merge_size))
    for block in vision.blocks:
        x = _vision_block(block, x, cos, sin)
    merged = vision.merger(x.reshape(-1, x.shape[-1]))
    return merged.view(len(grid), -1, merged.shape[-1]), x


def language_states(
    vlm: Qwen2VLForConditionalGeneration, embeds: Tensor, position_ids: Tensor, mask: Tensor
) -> list[Tensor]:
    """States (B, L, D) of the language model: its input, then after each layer, the last one normalised.

    Args:
        embeds: (B, L, D).
        position_ids, mask: from :func:`pack`; layers of ``eager`` attention are meant, which add what they are given.
    """
    model = vlm.model.language_model
    added = torch.zeros(mask.shape, device=mask.device).masked_fill_(~mask, -1e9)
    turns = model.rotary_emb(embeds, position_ids)
    states = [embeds]
    for layer in model.layers:
        states.append(layer(states[-1], attention_mask=added, position_embeddings=turns))
    return [*states[:-1], model.norm(states[-1])]


def film_attention(
    vlm: Qwen2VLForConditionalGeneration,
    layer: int,
    states: Tensor,
    position_ids: Tensor,
    rows: Tensor,
    places: Tensor,
    count: int,
) -> Tensor:
    """What a layer's heads think of the first tokens of a sequence, before the softmax: (Q, heads, ``count``).

    Args:
        layer: its number.
        states: (B, L, D) its input, see :func:`language_states`.
        position_ids: (3, B, L).
        rows, places: (Q,) the tokens that look.
        count: of tokens from the start that are looked at.
    """
    model = vlm.model.language_model
    attention = model.layers[layer].self_attn
    cos, sin = (each[:, :, None] for each in model.rotary_emb(states, position_ids))  # (B, L, 1, D / heads)
    normal = model.layers[layer].input_layernorm(states)
    query = attention.q_proj(normal[rows, places]).unflatten(-1, (-1, attention.head_dim))
    key = attention.k_proj(normal[:, :count]).unflatten(-1, (-1, attention.head_dim))
    query = query * cos[rows, places] + rotate_half(query) * sin[rows, places]
    key = key * cos[:, :count] + rotate_half(key) * sin[:, :count]
    return torch.einsum("qhd,qnhd->qhn", query.float(), key[rows].float()) * attention.scaling


def film_positions(grid: Tensor, merge: int = 2) -> Tensor:
    """Multimodal rotary positions of ``<s>`` and one film's tokens: (3, 1 + n) int64, as Qwen2-VL lays them out."""
    tubes, rows, columns = (int(grid[0]), int(grid[1]) // merge, int(grid[2]) // merge)
    axes = torch.meshgrid(torch.arange(tubes), torch.arange(rows), torch.arange(columns), indexing="ij")
    return torch.cat([torch.zeros(3, 1, dtype=torch.long), torch.stack(axes).flatten(1) + 1], dim=1)


def text_position(grid: Tensor, merge: int = 2) -> int:
    """The rotary position of the first token after a film: past its rows and columns, but not its tubes.

    This is transformers' rule (5.x), so that a model trained here works with its own ``generate``.
    """
    return 1 + max(int(grid[1]), int(grid[2])) // merge


@dataclass(frozen=True)
class Turn:
    """One thing said after a film: token ids, and the weight in the loss of predicting each of them (0: given)."""

    ids: list[int]
    weights: list[float]


def pack(
    turns: list[list[Turn]],
    grid: Tensor,
    tokenizer: PreTrainedTokenizerBase,
    multiple: int = 16,
    merge: int = 2,
) -> dict[str, Tensor]:
    """Lay several independent turns behind each film; none sees another, each follows the film directly.

    Sequences are as long as the longest, completed to a ``multiple``.

    Returns:
        ``input_ids`` (B, L), ``position_ids`` (3, B, L), ``attention_mask`` (B, 1, L, L) bool, ``weights`` (B, L):
        the weight of predicting the token at each place from the one before it.
    """
    prefix = film_positions(grid, merge)
    count = prefix.shape[1]
    after = text_position(grid, merge)
    length = count + max(sum(len(turn.ids) for turn in each) for each in turns)
    length = -(-length // multiple) * multiple
    batch = len(turns)
    ids = torch.full((batch, length), tokenizer.pad_token_id, dtype=torch.long)
    ids[:, 0] = tokenizer.bos_token_id
    ids[:, 1:count] = tokenizer.convert_tokens_to_ids("<film>")
    positions = torch.zeros(3, batch, length, dtype=torch.long)
    positions[:, :, :count] = prefix[:, None]
    segment = torch.full((batch, length), -1)
    segment[:, :count] = 0
    weights = torch.zeros(batch, length)
    for row, each in enumerate(turns):
        start = count
        for number, turn in enumerate(each):
            end = start + len(turn.ids)
            ids[row, start:end] = torch.tensor(turn.ids)
            positions[:, row, start:end] = after + torch.arange(len(turn.ids))
            segment[row, start:end] = number + 1
            weights[row, start:end] = torch.tensor(turn.weights)
            start = end
    same = segment[:, :, None] == segment[:, None, :]
    seen = same | (segment[:, None, :] == 0)
    mask = (seen & torch.ones(length, length, dtype=torch.bool).tril())[:, None]
    return {"input_ids": ids, "position_ids": positions, "attention_mask": mask, "weights": weights}


def question_turn(tokenizer: PreTrainedTokenizerBase, question: str, answer: str | None) -> Turn:
    """A question and, in training, its answer."""
    start = [
        tokenizer.convert_tokens_to_ids("<ask>"),
        *tokenizer(question, add_special_tokens=False)["input_ids"],
        tokenizer.convert_tokens_to_ids("<answer>"),
    ]
    if answer is None:
        return Turn(start, [0.0] * len(start))
    target = [*tokenizer(answer, add_special_tokens=False)["input_ids"], tokenizer.eos_token_id]
    return Turn(start + target, [0.0] * len(start) + [1.0] * len(target))


def caption_turn(tokenizer: PreTrainedTokenizerBase, caption: str | None, weight: float = 1.0) -> Turn:
    """The request for a caption and, in training, the caption with each token weighing ``weight``."""
    start = [tokenizer.convert_tokens_to_ids("<caption>")]
    if caption is None:
        return Turn(start, [0.0])
    target = [*tokenizer(caption, add_special_tokens=False)["input_ids"], tokenizer.eos_token_id]
    return Turn(start + target, [0.0] + [weight] * len(target))
