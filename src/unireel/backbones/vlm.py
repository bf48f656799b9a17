"""The pocket video-language model: Qwen2-VL at a small size, and its layout of films, questions and answers.

A film becomes 9 visual tokens for every four frames; the sequence is ``<s>``, the film, then one of

- ``<ask>`` question ``<answer>`` answer ``</s>``
- ``<caption>`` caption ``</s>``
"""

# Modules of torch and of the model libraries are typed too loosely for these rules.
# pyright: reportArgumentType=false, reportAttributeAccessIssue=false, reportCallIssue=false, reportOptionalMemberAccess=false

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor
from transformers import PreTrainedTokenizerBase, Qwen2VLConfig, Qwen2VLForConditionalGeneration


@dataclass(frozen=True)
class PatchLayout:
    """How a film is cut: ``patch`` pixels a side, ``merge`` patches a side to a token, ``tube`` frames to a patch."""

    patch: int = 8
    merge: int = 2
    tube: int = 4

    @property
    def side(self) -> int:
        """Pixels along the side of a token."""
        return self.patch * self.merge


def layout_of(vlm: Qwen2VLForConditionalGeneration) -> PatchLayout:
    """The layout that a model was built for."""
    vision = vlm.config.vision_config
    return PatchLayout(vision.patch_size, vision.spatial_merge_size, vision.temporal_patch_size)


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
                "rope_theta": 10_000.0,
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
            "num_heads": max(vision // 64, 1),
            "mlp_ratio": 3,
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
        Patches (B * T * h * w, 3 * tube * patch * patch) float32 in [-1, 1], in the order of Qwen2-VL's processor
        (patches that will be merged lie together), and the grid (B, 3) int64 of T tubes, h and w patches.
    """
    patch, merge, tube = layout.patch, layout.merge, layout.tube
    missing = -frames.shape[1] % tube
    if missing:
        frames = np.concatenate([frames, np.repeat(frames[:, -1:], missing, axis=1)], axis=1)
    batch, count, height, width, _ = frames.shape
    tubes, rows, columns = count // tube, height // patch, width // patch
    pixels = torch.from_numpy(np.ascontiguousarray(frames)).float().div(127.5).sub(1)
    pixels = pixels.view(batch, tubes, tube, rows // merge, merge, patch, columns // merge, merge, patch, 3)
    patches = pixels.permute(0, 1, 3, 6, 4, 7, 9, 2, 5, 8).reshape(batch * tubes * rows * columns, -1)
    return patches, torch.tensor([[tubes, rows, columns]] * batch)


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
