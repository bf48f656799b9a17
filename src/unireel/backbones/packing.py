"""BAGEL's sequences (arXiv 2505.14683): texts and images of any size as rows of tokens, and who may see whom.

A sample is a list of segments. A text is its token ids with the start and end marks. An image is a block: the mark
``<|vision_start|>``, its tokens in rows, ``<|vision_end|>``; all of it has *one* rotary position. An image is seen
by the ViT (pixels) or through the autoencoder (a latent, clean or noised).

Generalised causal attention: a token sees its own sample only, all that is earlier, and inside an image block also what
is later. Nobody outside a noised block sees it.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, fields, replace

import torch
from torch import Tensor
from torch.nn.attention.flex_attention import BlockMask, create_block_mask

from unireel.backbones.images import cut
from unireel.errors import UserError

PADDING, VIT, VAE, TEXT = -1, 0, 1, 2
"""Kinds of tokens. The marks around an image are text."""


def grid_places(rows: int, columns: int, side: int) -> Tensor:
    """Places (rows * columns,) of a grid's cells in a square table of ``side`` x ``side`` entries, row by row.

    Raises:
        UserError: the grid does not fit.
    """
    if max(rows, columns) > side:
        raise UserError(f"an image of {rows}x{columns} tokens is too large: a side has at most {side}")
    return (torch.arange(rows)[:, None] * side + torch.arange(columns)).flatten()


@dataclass(frozen=True)
class TextSegment:
    """Token ids, marks included."""

    ids: Sequence[int]


@dataclass(frozen=True)
class VitSegment:
    """Pixels (3, H, W) in [-1, 1], sides multiples of the ViT's patch."""

    pixels: Tensor


@dataclass(frozen=True)
class VaeSegment:
    """A normalised latent (C, h, w), sides even; ``time`` is its flow time in (0, 1] if it is noised."""

    latent: Tensor
    time: float | None = None


Segment = TextSegment | VitSegment | VaeSegment


@dataclass(frozen=True)
class Geometry:
    """What of a model's sizes and marks its sequences depend on."""

    vit_patch: int = 14
    vit_side: int = 70
    vae_patch: int = 2
    vae_side: int = 64
    vision_start: int = 151652
    vision_end: int = 151653


@dataclass(frozen=True)
class Packed:
    """Rows of tokens (B, L) with the visual content that belongs to them, in the order of the tokens.

    Attributes:
        ids: token ids (B, L), 0 where there is no text.
        kinds: :data:`PADDING`, :data:`TEXT`, :data:`VIT` or :data:`VAE`, (B, L).
        samples: number of the sample in its row (B, L), -1 for padding.
        splits: number of the segment in its row (B, L), -1 for padding.
        full: in an image block, (B, L) bool.
        noised: in a noised block, (B, L) bool.
        positions: rotary positions (B, L).
        patches, patch_places, patch_counts: the ViT's input (N, 3 p p), its places in the table (N,), tokens of each
            image.
        latents, latent_places, latent_counts, latent_times: the same of the autoencoder's tokens (M, C q q), and the
            flow time of each image.
    """

    ids: Tensor
    kinds: Tensor
    samples: Tensor
    splits: Tensor
    full: Tensor
    noised: Tensor
    positions: Tensor
    patches: Tensor | None
    patch_places: Tensor
    patch_counts: Tensor
    latents: Tensor | None
    latent_places: Tensor
    latent_counts: Tensor
    latent_times: Tensor

    def to(self, device: torch.device | str, dtype: torch.dtype | None = None) -> Packed:
        """The same on ``device``; pixels and latents in ``dtype``."""
        moved: dict[str, Tensor | None] = {each.name: getattr(self, each.name) for each in fields(self)}
        for name, value in moved.items():
            if value is not None:
                moved[name] = value.to(device, dtype if name in ("patches", "latents") else None)
        return replace(self, **moved)


def pack(rows: Sequence[Sequence[Sequence[Segment]]], geometry: Geometry = Geometry()) -> Packed:
    """Lay samples out in rows, padded on the right to the longest.

    Args:
        rows: for each row its samples, for each sample its segments.
        geometry: of the model.

    Raises:
        UserError: an image has more tokens on a side than the model has positions.
    """
    drawn = [_Row(samples, geometry) for samples in rows]
    length = max(len(row.ids) for row in drawn)

    def padded(name: str, fill: int | bool) -> Tensor:
        lists = [getattr(row, name) + [fill] * (length - len(row.ids)) for row in drawn]
        return torch.tensor(lists, dtype=torch.bool if isinstance(fill, bool) else torch.long)

    patches = [each for row in drawn for each in row.patches]
    latents = [each for row in drawn for each in row.latents]
    empty = torch.zeros(0, dtype=torch.long)
    return Packed(
        ids=padded("ids", 0),
        kinds=padded("kinds", PADDING),
        samples=padded("samples", -1),
        splits=padded("splits", -1),
        full=padded("full", False),
        noised=padded("noised", False),
        positions=padded("positions", 0),
        patches=torch.cat([each[0] for each in patches]) if patches else None,
        patch_places=torch.cat([each[1] for each in patches]) if patches else empty,
        patch_counts=torch.tensor([len(each[0]) for each in patches], dtype=torch.long),
        latents=torch.cat([each[0] for each in latents]) if latents else None,
        latent_places=torch.cat([each[1] for each in latents]) if latents else empty,
        latent_counts=torch.tensor([len(each[0]) for each in latents], dtype=torch.long),
        latent_times=torch.tensor([each[2] for each in latents]),
    )


class _Row:
    """The columns of one row, grown segment by segment."""

    def __init__(self, samples: Sequence[Sequence[Segment]], geometry: Geometry) -> None:
        self.geometry = geometry
        self.ids: list[int] = []
        self.kinds: list[int] = []
        self.samples: list[int] = []
        self.splits: list[int] = []
        self.full: list[bool] = []
        self.noised: list[bool] = []
        self.positions: list[int] = []
        self.patches: list[tuple[Tensor, Tensor]] = []
        self.latents: list[tuple[Tensor, Tensor, float]] = []
        split = 0
        for number, segments in enumerate(samples):
            position = 0
            for segment in segments:
                before = len(self.ids)
                position = self._add(segment, position)
                count = len(self.ids) - before
                self.samples += [number] * count
                self.splits += [split] * count
                split += 1

    def _add(self, segment: Segment, position: int) -> int:
        """Append one segment that starts at rotary position ``position``; returns the next position."""
        if isinstance(segment, TextSegment):
            count = len(segment.ids)
            self._columns(list(segment.ids), [TEXT] * count, range(position, position + count), False, False)
            return position + count
        own = self.geometry
        if isinstance(segment, VitSegment):
            tokens, kind, noised = cut(segment.pixels, own.vit_patch), VIT, False
            rows, columns = (side // own.vit_patch for side in segment.pixels.shape[1:])
            self.patches.append((tokens, grid_places(rows, columns, own.vit_side)))
        else:
            tokens, kind, noised = cut(segment.latent, own.vae_patch), VAE, segment.time is not None
            rows, columns = (side // own.vae_patch for side in segment.latent.shape[1:])
            self.latents.append((tokens, grid_places(rows, columns, own.vae_side), segment.time or 0.0))
        count = len(tokens)
        ids = [own.vision_start, *[0] * count, own.vision_end]
        self._columns(ids, [TEXT, *[kind] * count, TEXT], [position] * (count + 2), True, noised)
        return position if noised else position + 1

    def _columns(
        self, ids: list[int], kinds: list[int], positions: Sequence[int], full: bool, noised: bool
    ) -> None:
        self.ids += ids
        self.kinds += kinds
        self.positions += positions
        self.full += [full] * len(ids)
        self.noised += [noised] * len(ids)


def attention_mask(packed: Packed) -> Tensor:
    """Who sees whom: (B, 1, L, L) bool, queries by keys. Padding sees earlier padding, so that no row is empty."""
    order = torch.arange(packed.ids.shape[1], device=packed.ids.device)
    return _visible(
        packed.samples[:, :, None] == packed.samples[:, None],
        packed.splits[:, :, None] == packed.splits[:, None],
        order[:, None] >= order,
        packed.full[:, :, None],
        packed.noised[:, None],
    )[:, None]


def block_mask(packed: Packed) -> BlockMask:
    """The same for FlexAttention, which skips blocks of the mask that are empty."""

    def visible(batch: Tensor, head: Tensor, query: Tensor, key: Tensor) -> Tensor:
        return _visible(
            packed.samples[batch, query] == packed.samples[batch, key],
            packed.splits[batch, query] == packed.splits[batch, key],
            query >= key,
            packed.full[batch, query],
            packed.noised[batch, key],
        )

    batch, length = packed.ids.shape
    return create_block_mask(visible, batch, None, length, length, device=str(packed.ids.device))


def _visible(
    same_sample: Tensor, same_split: Tensor, earlier: Tensor, full: Tensor, noised_key: Tensor
) -> Tensor:
    return same_sample & ((same_split & (full | earlier)) | (earlier & ~same_split & ~noised_key))
