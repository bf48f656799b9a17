"""Training the video-language model: questions and a caption behind each film, needle questions behind stories."""

# Modules of torch and of the model libraries are typed too loosely for these rules.
# pyright: reportArgumentType=false, reportIndexIssue=false

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from safetensors.torch import load_file, save_file
from torch import Tensor, nn
from transformers import Qwen2VLForConditionalGeneration

from unireel.backbones.text import word_tokenizer
from unireel.backbones.vlm import (
    PatchLayout,
    language_states,
    pack,
    pocket_vlm,
    question_turn,
    view_slots,
    visual_patches,
    visual_tokens,
)
from unireel.data.cache import CacheConfig, FilmCache, build, epoch_order
from unireel.data.lessons import Lessons
from unireel.data.sights import SIGHT_WORDS
from unireel.data.stories import VIEWS, StoryPools, draw_view
from unireel.data.turns import draw_turns, names_asked, names_copied
from unireel.data.world import films, scenes
from unireel.systems.base.stages.grounding import Grounding
from unireel.training.stage import ParameterRule, Stage
from unireel.world.language import DYNAMIC_TYPES, QUESTION_TYPES, questions_for, vocabulary
from unireel.world.scene import BACKGROUNDS, CAMERAS, Scene

HEADS = "understanding-heads.safetensors"
EVALUATED_FILMS = 192


@dataclass(frozen=True)
class UnderstandingConfig:
    """Sizes of the model and what it sees.

    Questions and, with probability ``captions``, the caption fill the ``words`` places behind each film; the caption's
    tokens weigh ``caption_weight``. A share ``rare`` of the films is of rare kinds (an order to ask for, a moving
    camera). ``noise`` is the largest standard deviation, in 8-bit steps, of noise added to films. ``alignment`` weighs
    the auxiliary losses on what tokens hold, ``guidance`` those on where answers look. Of a film's tubes,
    ``vision_tubes`` drawn for each batch teach the ViT, most of the cost: all tubes show the same objects. The first
    ``vision_batches`` batches train the ViT alone, on one tube of each of ``vision_batch`` films: nothing can be
    answered before shapes are seen, and a tube costs a tenth of a film with its questions. A share ``stories`` of the
    batches are views of ``story_batch`` of ``story_count`` stories (:mod:`unireel.data.stories`).
    """

    films: str = "cache/films-48"
    film_count: int = 60_000
    size: int = 48
    width: int = 192
    layers: int = 5
    heads: int = 3
    ffn: int = 512
    vision: int = 96
    depth: int = 4
    patch: int = 4
    merge: int = 4
    tube: int = 4
    batch_size: int = 32
    words: int = 98
    captions: float = 0.35
    caption_weight: float = 0.3
    noise: float = 4.0
    alignment: float = 0.2
    guidance: float = 0.3
    rare: float = 0.5
    vision_tubes: int = 2
    vision_batches: int = 0
    vision_batch: int = 64
    stories: float = 0.0
    story_count: int = 6000
    story_batch: int = 16
    data_seed: int = 4
    start_from: str = ""


class UnderstandingStage(Stage):
    """Cross-entropy on answers and captions."""

    config_class = UnderstandingConfig
    config: UnderstandingConfig

    def __init__(self, config: UnderstandingConfig) -> None:
        super().__init__(config)
        build(Path(config.films), CacheConfig(config.film_count, config.size))
        self.films = FilmCache(config.films)
        self.lessons = Lessons(self.films)
        self.tokenizer = word_tokenizer(vocabulary())
        self.layout = PatchLayout(config.patch, config.merge, config.tube)
        if config.start_from:
            vlm = Qwen2VLForConditionalGeneration.from_pretrained(Path(config.start_from) / "vlm")
        else:
            vlm = pocket_vlm(
                self.tokenizer,
                config.width,
                config.layers,
                config.heads,
                config.ffn,
                config.vision,
                config.depth,
                self.layout,
            )
        vlm.model.language_model.set_attn_implementation("eager")  # twice as fast as the fused kernel here
        words = self.tokenizer.convert_tokens_to_ids(list(SIGHT_WORDS))
        self.grounding = Grounding(vlm, words, config.size, config.caption_weight)
        if config.start_from:
            self.grounding.load_state_dict(load_file(Path(config.start_from) / HEADS))
        self.module = nn.ModuleDict({"vlm": vlm, "grounding": self.grounding})
        self.samples_per_batch = config.batch_size
        self._noise = torch.randn(2**24, generator=torch.Generator().manual_seed(config.data_seed))
        order = np.flatnonzero(self.lessons.turns[:, 0] == QUESTION_TYPES.index("order"))
        still = self.lessons.films[:, len(BACKGROUNDS) + CAMERAS.index("still")]
        self._rare = (
            np.unique(np.searchsorted(self.lessons.first_turn, order, side="right") - 1),
            np.flatnonzero(~still),
        )
        self.stories = (
            StoryPools(Path(config.films), config.story_count, config.size) if config.stories else None
        )
        length = self.films.frames.shape[1]
        self._frames = np.minimum(np.arange(-(-length // config.tube) * config.tube), length - 1)

    def parameter_groups(self) -> list[ParameterRule]:
        """Embeddings and auxiliary heads are not hidden matrices; the merger's are too wide for Muon to be cheap."""
        return [
            ParameterRule(pattern, muon=False)
            for pattern in ("*embed_tokens*", "*patch_embed*", "*merger*", "grounding*")
        ]

    def compile(self) -> None:
        """Compile the layers of the language model."""
        for layer in self.module["vlm"].model.language_model.layers:
            layer.forward = torch.compile(layer.forward)

    def batch(self, index: int) -> dict[str, Tensor]:
        """Patches and grid, the objects' states and, after the ViT's own batches, packed turns (see ``pack``)."""
        own = self.config
        random = np.random.default_rng([own.data_seed, index])
        vision = index < own.vision_batches
        if not vision and int((index + 1) * own.stories) > int(index * own.stories):
            return self._story_batch(index, random)
        count = own.vision_batch if vision else own.batch_size
        places = self._films_of(index, count, random)
        frames = self._frames.reshape(-1, own.tube)  # (T, tube)
        if vision:
            frames = frames[random.integers(0, len(frames), (count, 1))]
        else:
            frames = np.broadcast_to(frames, (count, *frames.shape))  # (B, T, tube)
        rows = np.array(places)[:, None]
        pixels = self.films.frames[rows, frames.reshape(count, -1)]
        patches, grid = self._noisy_patches(pixels, random)
        states = self.lessons.states[rows[:, :, None], np.arange(4)[:, None], frames.reshape(count, 1, -1)]
        batch = {
            "patches": patches,
            "grid": grid,
            "states": torch.from_numpy(states).unflatten(2, (-1, own.tube)),
            "shapes": torch.from_numpy(self.lessons.shapes[places]).long(),
            "motions": torch.from_numpy(self.lessons.motions[places]),
            "film": torch.from_numpy(self.lessons.films[places]),
        }
        if vision:
            return batch
        before = 1 + int(grid[0].prod()) // own.merge**2
        turns = [
            draw_turns(self.lessons, place, own.words, own.captions, own.caption_weight, random)
            for place in places
        ]
        looks = {
            "asked": names_asked(self.lessons, places, turns, before),
            "copied": names_copied(turns, before),
        }
        return batch | looks | pack(turns, grid[0], self.tokenizer, before + own.words, own.merge)

    def _noisy_patches(self, pixels: np.ndarray, random: np.random.Generator) -> tuple[Tensor, Tensor]:
        """Patches of films (B, F, S, S, 3) and their grid, each film with noise of its own strength."""
        count = len(pixels)
        patches, grid = visual_patches(pixels, self.layout)
        start = random.integers(len(self._noise) - pixels.size)
        noise = self._noise[start : start + pixels.size].view(count, -1, pixels.size // len(patches))
        sigma = random.random((count, 1, 1), dtype=np.float32) * np.float32(self.config.noise / 127.5)
        patches.view(count, -1, patches.shape[-1])[..., : noise.shape[-1]].addcmul_(
            noise, torch.from_numpy(sigma)
        )
        return patches, grid

    def _story_batch(self, index: int, random: np.random.Generator) -> dict[str, Tensor]:
        """As :meth:`batch`, with ``evidence`` (Q, 3 + T): row and place of each "<answer>", whom, in which tubes."""
        own, stories = self.config, self.stories
        assert stories is not None
        count = own.story_batch
        places = [epoch_order(own.data_seed, len(stories), index * count + i) for i in range(count)]
        kind = random.choice(list(VIEWS), p=list(VIEWS.values()))
        few = int(random.choice((4, 8, 16)))
        views = np.stack([draw_view(kind, stories.needles[place], few, random) for place in places])
        slots = views[:, view_slots(views.shape[1], own.tube)]  # (B, T * tube)
        rows = np.array(places)[:, None]
        patches, grid = self._noisy_patches(stories.frames[rows, slots], random)
        states = stories.states[rows[:, :, None], np.arange(4)[:, None], slots[:, None]]
        tubes = slots.reshape(count, -1, own.tube)
        turns, evidence = [], []
        before = 1 + int(grid[0].prod()) // own.merge**2
        for row, place in enumerate(places):
            needles, said, room = stories.needles[place], [], own.words
            for number in random.permutation(len(needles)):
                each = needles[number]
                turn = question_turn(self.tokenizer, each.question, each.answer)
                if len(turn.ids) > room:
                    continue
                answered = before + own.words - room + turn.weights.count(0.0) - 1
                shows = ((tubes[row] >= each.first) & (tubes[row] <= each.last)).any(1)
                evidence.append([row, answered, each.subject, *shows.tolist()])
                said.append(turn)
                room -= len(turn.ids)
            turns.append(said)
        return {
            "patches": patches,
            "grid": grid,
            "states": torch.from_numpy(states).unflatten(2, (-1, own.tube)),
            "shapes": torch.from_numpy(stories.shapes[places]).long(),
            "film": torch.from_numpy(stories.films[places]),
            "evidence": torch.tensor(evidence, dtype=torch.long).view(-1, 3 + tubes.shape[1]),
            "asked": names_asked(stories, places, turns, before),
            "copied": names_copied(turns, before),
            **pack(turns, grid[0], self.tokenizer, before + own.words, own.merge),
        }

    def _films_of(self, index: int, count: int, random: np.random.Generator) -> list[int]:
        """Numbers of the films of a batch: the next of the epoch, and for a share of them films of a rare kind."""
        own = self.config
        places = [epoch_order(own.data_seed, len(self.films), index * count + i) for i in range(count)]
        kinds = np.stack([random.choice(each, count) for each in self._rare])
        rare = kinds[random.integers(len(kinds), size=count), np.arange(count)]
        return np.where(random.random(count) < own.rare, rare, places).tolist()

    def loss(self, batch: Any) -> tuple[Tensor, dict[str, Tensor | float]]:
        """Weighted cross-entropy of answers and captions, plus the auxiliary losses."""
        own, vlm, grounding = self.config, self.module["vlm"], self.module["grounding"]
        seen, patches, learnt = self._see(batch["patches"], batch["grid"])
        tokens = seen.unflatten(1, (batch["states"].shape[2], -1))[:, learnt]
        embeddings = vlm.get_input_embeddings().weight
        held, logs = grounding.sight(tokens, patches, learnt, embeddings, batch)
        if "input_ids" not in batch:
            return held, logs
        layers = self._states(seen, batch)
        hidden = layers[-1]
        weights = batch["weights"][:, 1:]
        chosen = weights > 0
        logits = vlm.lm_head(hidden[:, :-1][chosen]).float()
        targets = batch["input_ids"][:, 1:][chosen]
        entropy = F.cross_entropy(logits, targets, reduction="none")
        loss = (entropy * weights[chosen]).sum() / weights.sum()
        answers = weights[chosen] == 1
        right = (logits.argmax(-1) == targets).float()
        logs |= {
            "answer_loss": entropy.detach()[answers].mean(),
            "answer_tokens_right": right[answers].mean(),
            "caption_tokens_right": right[~answers].mean() if (~answers).any() else float("nan"),
        }
        middle, last = own.layers // 2 + 1, own.layers - 1
        if "evidence" in batch:
            found = grounding.evidence(vlm, middle, layers[middle], batch)
            guided = grounding.attention(vlm, middle, layers[middle], batch)
            story = {"story_loss": logs["answer_loss"], "story_tokens_right": logs["answer_tokens_right"]}
            logs = story | {"found": found.detach()}
            return loss + own.alignment * held + own.guidance * (found + guided), logs
        moved = grounding.motion(layers[middle][:, 1 : 1 + seen.shape[1]], batch)
        guided = grounding.attention(vlm, middle, layers[middle], batch)
        read = grounding.reading(layers[middle + 1], batch)
        copied = grounding.copying(vlm, last, layers[last], batch)
        parts = {"moved": moved, "guided": guided, "read": read, "copied": copied}
        logs |= {name: value.detach() for name, value in parts.items()}
        return loss + own.alignment * (held + moved) + own.guidance * (guided + read + 3 * copied), logs

    def _see(self, patches: Tensor, grid: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Visual tokens (B, N, D) of films; the patches' states (B * k, n, D) and numbers of the k tubes that teach."""
        vlm, tubes = self.module["vlm"], int(grid[0, 0])
        taught = min(self.config.vision_tubes, tubes)
        order = torch.randperm(tubes)
        by_tube = patches.view(len(grid), tubes, -1, patches.shape[-1])

        def look(which: Tensor) -> tuple[Tensor, Tensor]:
            part = torch.cat([torch.full_like(grid[:, :1], len(which)), grid[:, 1:]], dim=1)
            tokens, states = visual_tokens(vlm, by_tube[:, which].flatten(0, 2), part)
            return tokens.unflatten(1, (len(which), -1)), states

        tokens, states = look(order[:taught])
        if taught < tubes:
            with torch.no_grad():
                rest, _ = look(order[taught:])
            tokens = torch.cat([tokens, rest], dim=1)[:, order.argsort()]
        return tokens.flatten(1, 2), states, order[:taught]

    def _states(self, seen: Tensor, batch: Any) -> list[Tensor]:
        """The language model's states (B, L, D) by layer, with visual tokens in their places."""
        vlm = self.module["vlm"]
        embeds = vlm.get_input_embeddings()(batch["input_ids"])
        embeds = torch.cat([embeds[:, :1], seen.to(embeds.dtype), embeds[:, 1 + seen.shape[1] :]], dim=1)
        return language_states(vlm, embeds, batch["position_ids"], batch["attention_mask"])

    def evaluate(self) -> dict[str, float]:
        """Share of right answers on test films: every token, greedily given the ones before it."""
        batch_scenes = scenes(8, 0, EVALUATED_FILMS, self.config.size, "test")
        scores: dict[str, list[bool]] = {}
        for start in range(0, len(batch_scenes), self.config.batch_size):
            self._score(batch_scenes[start : start + self.config.batch_size], scores)
        return {f"qa/{name}": float(np.mean(values)) for name, values in sorted(scores.items())}

    def _score(self, batch_scenes: list[Scene], scores: dict[str, list[bool]]) -> None:
        """Add to each type, and to "static" or "dynamic", whether each answer is right."""
        patches, grid = visual_patches(films(batch_scenes), self.layout)
        questions = [questions_for(scene, 0) for scene in batch_scenes]
        turns = [[question_turn(self.tokenizer, q.text, q.answer) for q in each] for each in questions]
        packed = pack(turns, grid[0], self.tokenizer, 64, merge=self.layout.merge)
        seen, _ = visual_tokens(self.module["vlm"], patches, grid)
        hidden = self._states(seen, packed)[-1]
        right = self.module["vlm"].lm_head(hidden[:, :-1]).argmax(-1) == packed["input_ids"][:, 1:]
        wrong = ((~right) & (packed["weights"][:, 1:] > 0)).cumsum(1)
        for row, each in enumerate(questions):
            end, before = 1 + seen.shape[1], 0
            for question, turn in zip(each, turns[row], strict=True):
                end += len(turn.ids)
                now = int(wrong[row, end - 2])
                for name in (question.type, "dynamic" if question.type in DYNAMIC_TYPES else "static"):
                    scores.setdefault(name, []).append(now == before)
                before = now

    def export(self, folder: Path) -> None:
        """Write the ``vlm`` folder with its tokenizer, and the auxiliary heads for a training that starts from it."""
        self.module["vlm"].save_pretrained(folder / "vlm")
        self.tokenizer.save_pretrained(folder / "vlm")
        save_file(self.grounding.state_dict(), folder / HEADS)
