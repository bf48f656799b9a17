"""What the video-language model learns besides answers: what its tokens hold, and where its answers look.

From answers alone a small model learns for very long: it must find out what shapes are, where and when its tokens are,
which of them a name means, and what to do with them, all from one word a question. The World knows all of that. Each
part has a loss of its own, whose heads are thrown away after the training:

- *sight*, *names*, *camera*: what lies in each patch and token, in the ViT;
- *motion*: what its object does, halfway through the language model;
- *attention*: in the layer after that, answers look at whom they are asked about (supervised attention,
  arXiv 1609.04186), and in the last layer at the name in the question that they say;
- *reading*: what they have read there.
"""

# Modules of torch and of the model libraries are typed too loosely for these rules.
# pyright: reportArgumentType=false, reportAttributeAccessIssue=false, reportIndexIssue=false
# pyright: reportOptionalMemberAccess=false

from __future__ import annotations

from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from transformers import Qwen2VLForConditionalGeneration

from unireel.backbones.vlm import film_attention, layout_of
from unireel.data.sights import SIGHT_TARGETS, begun, place_centres, place_objects, sight_loss, words_seen
from unireel.data.subjects import ANY_TIME, END, MOST_NAMES, START
from unireel.data.targets import FILM_TARGETS, MOTION_TARGETS
from unireel.world.scene import BACKGROUNDS, CAMERAS, MAX_OBJECTS

_ONLY = torch.tensor(
    [number.bit_length() - 1 if number.bit_count() == 1 else -1 for number in range(1 << MAX_OBJECTS)]
)
"""The one object of a mask, -1 for none or several."""


def meant(owner: Tensor, mask: Tensor) -> Tensor:
    """Which tokens of a film show whom a name means: (Q, T * n) bool.

    Args:
        owner: which object each token shows, (Q, T, n), -1 for none.
        mask: of each name (Q,), see :func:`unireel.data.turns.names_asked`.
    """
    last = owner.shape[1] - 1
    time = torch.arange(last + 1, device=owner.device)[None, :, None]
    found = torch.zeros_like(owner, dtype=torch.bool)
    for when, then in ((ANY_TIME, time >= 0), (START, time == 0), (END, time == last)):
        bits = (mask >> MAX_OBJECTS * when)[:, None, None] >> owner.clamp(min=0)
        found |= (bits & 1 == 1) & (owner >= 0) & then
    return found.flatten(1)


def looked_elsewhere(likeness: Tensor, wanted: Tensor) -> Tensor:
    """How far a softmax over ``likeness`` (..., K) is from looking at what is ``wanted`` (..., K) alone, all of it
    alike: nats above the least possible (...), 0 where nothing is wanted."""
    count = wanted.sum(-1).clamp(min=1)
    surprise = -likeness.float().log_softmax(-1)
    return (surprise * wanted).sum(-1) / count - count.log() * wanted.any(-1)


class Grounding(nn.Module):
    """The auxiliary heads of a video-language model and their losses.

    Args:
        vlm: what they are for; it is not part of this module.
        words: ids of :data:`~unireel.data.sights.SIGHT_WORDS`.
        size: side of a film in pixels.
        caption_weight: of the attention of a caption's token, where an answer's is 1.

    Batches hold ``states`` (B, O, T, S, 5), ``shapes`` (B, O), ``motions`` (B, O, K) and ``film`` (B, K), as
    :class:`~unireel.data.lessons.Lessons` has them, and ``asked`` and ``copied`` from :mod:`~unireel.data.turns`.
    """

    def __init__(
        self, vlm: Qwen2VLForConditionalGeneration, words: list[int], size: int, caption_weight: float
    ) -> None:
        super().__init__()
        width, vision = vlm.config.text_config.hidden_size, vlm.config.vision_config.embed_dim
        self.patches = nn.Linear(vision, SIGHT_TARGETS)
        self.seen = nn.Linear(width, SIGHT_TARGETS)
        self.words = nn.Linear(1, 1)  # of the cosine between a token and a word's embedding
        self.moved = nn.Linear(width, MOTION_TARGETS + 1 + FILM_TARGETS)
        self.camera = nn.Linear(width, len(CAMERAS))
        self.read = nn.Linear(width, 3 * MOST_NAMES)
        nn.init.constant_(self.words.weight, 10.0)
        nn.init.constant_(self.words.bias, -3.0)
        self.size, self.caption_weight = size, caption_weight
        layout = layout_of(vlm)
        self.side = layout.side
        self._ids = words
        self.register_buffer("_patches_at", place_centres(size, layout.patch, layout.merge), persistent=False)
        self.register_buffer("_tokens_at", place_centres(size, layout.side), persistent=False)

    def sight(
        self, tokens: Tensor, patches: Tensor, learnt: Tensor, embeddings: Tensor, batch: Any
    ) -> tuple[Tensor, dict[str, Tensor]]:
        """Losses of the ViT and shares of right answers, in the tubes whose numbers are ``learnt`` (k,).

        Args:
            tokens: (B, k, n, D).
            patches: their states before merging, (B * k, n, vision width).
            embeddings: of all words, (V, D).
        """
        states = batch["states"].float()
        objects = states[:, :, learnt], batch["shapes"], batch["film"]
        fine, at_patches = sight_loss(
            self.patches(patches), place_objects(objects[0], self._patches_at), objects, self._patches_at
        )
        owner = place_objects(states, self._tokens_at, self.side)
        coarse, at_tokens = sight_loss(self.seen(tokens), owner[:, learnt], objects, self._tokens_at)
        named = self._names(tokens, owner, learnt, embeddings, batch)
        camera = self._camera(tokens, states.shape[2], learnt, batch)
        logs = {f"patch_{name}": value for name, value in at_patches.items()} | at_tokens
        logs |= {"named": named.detach(), "camera": camera.detach()}
        return fine + coarse + named + 2 * camera, logs

    def _names(self, tokens: Tensor, owner: Tensor, learnt: Tensor, embeddings: Tensor, batch: Any) -> Tensor:
        """Turn each token towards the embeddings of the words that are true of it.

        Questions find what they ask about by its name: a token that looks like the words is easily found.
        """
        states, shapes, film = batch["states"].float(), batch["shapes"], batch["film"]
        true, known = words_seen(states, shapes, film, owner, self._tokens_at, self.size)
        cosine = F.normalize(tokens.float(), dim=-1) @ F.normalize(embeddings[self._ids], dim=-1).T
        logits = self.words(cosine[..., None])[..., 0].float()
        wrong = F.binary_cross_entropy_with_logits(logits, true[:, learnt].float(), reduction="none")
        return (wrong * known[:, learnt]).sum(-1).mean()

    def _camera(self, tokens: Tensor, tubes: int, learnt: Tensor, batch: Any) -> Tensor:
        """How the camera moves; the last tube of a film, one frame held, does not show it."""
        logits = self.camera(tokens.mean(2)).float()  # (B, k, cameras)
        first = len(BACKGROUNDS)
        motion = batch["film"][:, first : first + len(CAMERAS)].int().argmax(1)
        wrong = F.cross_entropy(
            logits.flatten(0, 1), motion.repeat_interleave(len(learnt)), reduction="none"
        ).view(-1, len(learnt))
        shown = (learnt < max(tubes - 1, 1)).float().expand_as(wrong)
        return (wrong * shown).sum() / shown.sum().clamp(min=1)

    def motion(self, hidden: Tensor, batch: Any) -> Tensor:
        """Of each token's object whether its event has begun; in the last two tubes what it does, what the film is.

        Args:
            hidden: states of the visual tokens (B, N, D) in the middle, so that later layers can ask about it.
        """
        states = batch["states"].float()
        tubes = states.shape[2]
        owner = place_objects(states, self._tokens_at, self.side)  # (B, T, n)
        rows, own = torch.arange(len(owner))[:, None, None], owner.clamp(min=0)
        there = (owner >= 0).float()
        does, started, film = (
            self.moved(_normal(hidden))
            .float()
            .unflatten(1, (tubes, -1))
            .split([MOTION_TARGETS, 1, FILM_TARGETS], dim=-1)
        )
        done = begun(states)[rows, own, torch.arange(tubes)[:, None]]
        still = _still(batch)[:, None, None] * there
        begins = F.binary_cross_entropy_with_logits(started[..., 0], done, reduction="none") * still
        late = slice(tubes - 2, tubes)
        wrong = F.binary_cross_entropy_with_logits(
            does[:, late], batch["motions"].float()[rows, own[:, late]], reduction="none"
        ).sum(-1)
        whole = F.binary_cross_entropy_with_logits(
            film[:, late].mean((1, 2)), batch["film"].float(), reduction="none"
        )
        return (
            (wrong * there[:, late]).sum() / there[:, late].sum().clamp(min=1)
            + 3 * begins.sum() / still.sum().clamp(min=1)
            + whole.sum(-1).mean()
        )

    def attention(
        self, vlm: Qwen2VLForConditionalGeneration, layer: int, hidden: Tensor, batch: Any
    ) -> Tensor:
        """Whom answers and captions look at in ``layer``, whose input ``hidden`` is: nats above the least possible.

        The first head looks at the tokens of the first name's objects, in the tubes that the question asks about, the
        second head at the second's; both look at ``<s>`` for what is not there.
        """
        owner = place_objects(batch["states"].float(), self._tokens_at, self.side)  # (B, T, n)
        row, place, head, mask, caption, _ = batch["asked"].unbind(1)
        wanted = torch.cat([(mask == 0)[:, None], meant(owner[row], mask)], dim=1)
        likeness = film_attention(vlm, layer, hidden, batch["position_ids"], row, place, wanted.shape[1])
        excess = looked_elsewhere(likeness[torch.arange(len(row)), head], wanted)
        weight = torch.where(caption == 1, self.caption_weight, 1.0) * wanted.any(1)
        return (excess * weight).sum() / weight.sum().clamp(min=1)

    def evidence(
        self, vlm: Qwen2VLForConditionalGeneration, layer: int, hidden: Tensor, batch: Any
    ) -> Tensor:
        """How the third head of ``layer`` misses whom a needle question is about, when the answer shows; as above."""
        owner = place_objects(batch["states"].float(), self._tokens_at, self.side)  # (B, T, n)
        row, place, subject = batch["evidence"][:, :3].unbind(1)
        wanted = (owner[row] == subject[:, None, None]) & batch["evidence"][:, 3:, None].bool()
        wanted = F.pad(wanted.flatten(1), (1, 0))
        wanted[:, 0] = ~wanted.any(1)  # <s>, if the view does not show it
        count = wanted.sum(1)
        likeness = film_attention(vlm, layer, hidden, batch["position_ids"], row, place, wanted.shape[1])
        surprise = -likeness[:, 2].log_softmax(-1)
        return ((surprise * wanted).sum(1) / count - count.log()).mean()

    def copying(self, vlm: Qwen2VLForConditionalGeneration, layer: int, hidden: Tensor, batch: Any) -> Tensor:
        """Where the first head of ``layer`` looks before each word of a name that the question has."""
        row, place, target = batch["copied"].unbind(1)
        if not len(row):
            return hidden.new_zeros(())
        likeness = film_attention(vlm, layer, hidden, batch["position_ids"], row, place, hidden.shape[1])[
            :, 0
        ]
        likeness = likeness.masked_fill(~batch["attention_mask"][row, 0, place], -torch.inf)
        return F.cross_entropy(likeness, target)

    def reading(self, hidden: Tensor, batch: Any) -> Tensor:
        """What the states (B, L, D) after that attention say of a name's one object: x, y, and how soon it acts.

        In units of 8 pixels from the middle and of a quarter of the film. Where the question chooses between two names
        there is no place to ask for, and the first number says which it is: 2 or -2.
        """
        row, place, number, mask, _, chosen = batch["asked"].unbind(1)
        states = batch["states"].float()
        together = (mask | mask >> MAX_OBJECTS * START | mask >> MAX_OBJECTS * END) & (1 << MAX_OBJECTS) - 1
        one = _ONLY[together]
        own, choice = one.clamp(min=0), (chosen != 0)[:, None]
        first, last = states[row, own, 0, 0], states[row, own, -1, -1]  # (Q, 5)
        state = torch.where((mask >= 1 << MAX_OBJECTS * END)[:, None], last, first)
        where = torch.where(choice, 2.0 * chosen[:, None], (state[:, :2] - (self.size - 1) / 2) / 8)
        soon = 4 * begun(states).mean(-1)[row, own]
        placed = ((mask >= 1 << MAX_OBJECTS * START) & (state[:, 3] > 0))[:, None].expand(-1, 2)
        placed = torch.where(choice, torch.tensor([[True, False]]), placed)
        known = torch.cat([placed, _still(batch)[row, None]], dim=1) & (one >= 0)[:, None]
        weight = known * torch.where(choice, 3.0, 1.0)
        said = self.read(_normal(hidden[row, place])).float()
        said = said.unflatten(-1, (MOST_NAMES, 3))[torch.arange(len(row)), number]
        error = F.smooth_l1_loss(said, torch.cat([where, soon[:, None]], dim=1), reduction="none", beta=0.2)
        return (error * weight).sum() / weight.sum().clamp(min=1)


def _normal(hidden: Tensor) -> Tensor:
    return F.rms_norm(hidden.float(), hidden.shape[-1:])


def _still(batch: Any) -> Tensor:
    """Whether the camera of each film stands still: (B,) bool."""
    return batch["film"][:, len(BACKGROUNDS) + CAMERAS.index("still")]
