"""Hybrid mixed batches: films made and films edited in one pass, pictures made and pictures edited in another.

Within a batch everything has one resolution and one number of frames, so that tasks share a forward and a backward pass
(the paper's "hybrid mixed-batching"). Which task a sample has is a pure function of batch and place.
"""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Literal

import numpy as np
from torch import nn

from unireel.data.cache import CacheConfig, FilmCache, build, epoch_order
from unireel.data.edit_pairs import EditPairs, retimed_cache
from unireel.data.indirect import indirect_for
from unireel.data.latents import latents_of
from unireel.systems.omnivideo.pocket_mllm import NO_INFERENCE
from unireel.systems.omnivideo.speech import Kind, Thought
from unireel.world.language import (
    STATIC_TYPES,
    caption_for,
    clauses_after,
    plan_after,
    plan_for,
    prompt_for,
    questions_for,
)
from unireel.world.language.order import caption_order
from unireel.world.scene import CLIP_FRAMES, FPS, Camera, Scene

Task = Literal["t2v", "v2v", "t2i", "i2i", "question", "caption", "think", "plan"]
GROUPS: dict[Kind, tuple[Task, ...]] = {
    "video": ("t2v", "v2v", "question", "caption", "think", "plan"),
    "image": ("t2i", "i2i", "question", "caption", "think", "plan"),
}
"""Tasks that share a batch."""
EDITS = ("v2v", "i2i")
MAKING = ("t2v", "t2i", *EDITS)


@dataclass(frozen=True)
class MixtureConfig:
    """What is seen, and how often.

    Attributes:
        films, film_count: cache of films; it is made if it is missing.
        used_films: how many of them, from the first on, are seen and edited.
        edit_count: edits of its films.
        fps: frame rate of the films that are made; the language model always sees them at the World's.
        batch_size, picture_batch: samples in a batch of films and of pictures.
        pictures: share of the batches that are pictures.
        shares: of each task within its group; tasks that are not named have none.
        mixed: whether the tasks of a group share its batches; else each batch has one task, as the ablation has it.
        plans: share of prompts for new pictures and films that are plans (:mod:`unireel.world.language.plans`), as the
            planner extends them.
        films_from: the batch from which films take part: before, all are pictures, which cost a fifth.
        editing_from: the batch from which edits take part: the first sub-stage makes only.
        indirect: share of prompts and instructions of "think" that are said indirectly; the others need no inference.
        captions: share of edits whose text is the plan of the edited film instead of the instruction, see ``told`` of
            :class:`~unireel.systems.omnivideo.settings.Settings`. In a picture's plan nothing moves, or all that the
            film does whose first frame it is.
        thought_edits: share of "think" that is about edits.
        data_seed: of everything random.
    """

    films: str = "cache/films-48"
    film_count: int = 60_000
    used_films: int = 40_000
    size: int = 48
    edit_count: int = 40_000
    fps: int = FPS
    batch_size: int = 24
    picture_batch: int = 72
    pictures: float = 0.5
    shares: dict[str, float] = field(default_factory=lambda: {"t2v": 1.0, "v2v": 1.0, "t2i": 1.0, "i2i": 1.0})
    mixed: bool = True
    plans: float = 0.8
    films_from: int = 0
    editing_from: int = 0
    indirect: float = 0.8
    captions: float = 0.3
    thought_edits: float = 0.5
    data_seed: int = 7

    def __post_init__(self) -> None:
        known = {task for tasks in GROUPS.values() for task in tasks}
        unknown = set(self.shares) - known
        if unknown:
            raise ValueError(
                f"shares: there is no task {', '.join(sorted(unknown))}; accepted: {', '.join(known)}"
            )
        if not any(self.share(group) > 0 for group in GROUPS):
            raise ValueError("shares: batches of this kind have no task with a share above 0")

    def share(self, group: Kind) -> float:
        """Of the batches that are of ``group``."""
        share = self.pictures if group == "image" else 1 - self.pictures
        return share if any(self.shares.get(task, 0) > 0 for task in GROUPS[group]) else 0.0


@dataclass(frozen=True)
class Sample:
    """One thing to learn.

    Attributes:
        task: what it is.
        text: prompt, instruction or question; empty for captions.
        source: frames that the language model sees, (F, H, W, 3) uint8, or None.
        answer: of a question or a caption.
        thought: of "think".
        description: a caption of the film that a plan is an edit of.
        plan: of what an edit leads to; empty if it is not told.
        about: of each of the plan's objects its number in the source film, -1 if it is new.
        described: of each of them its clause in the description, -1 if it is new.
        changes: whether the first of them is what the edit changes or adds.
        place: number of the film (of the edit, for edits) that is to be made, -1 if nothing is.
        shown: number of the film that the language model sees, -1 if there is none.
    """

    task: Task
    text: str
    source: np.ndarray | None = None
    answer: str = ""
    thought: Thought | None = None
    description: str = ""
    plan: str = ""
    about: tuple[int, ...] = ()
    described: tuple[int, ...] = ()
    changes: bool = False
    place: int = -1
    shown: int = -1


class Mixture:
    """The batches of a training."""

    def __init__(self, config: MixtureConfig) -> None:
        self.config = config
        self.groups: tuple[Kind, ...] = tuple(group for group in GROUPS if config.share(group) > 0)
        build(Path(config.films), CacheConfig(config.film_count, config.size))
        self.seen = FilmCache(config.films)
        self.count = min(config.used_films, len(self.seen))
        self.films = retimed_cache(self.seen, config.fps, self.count)
        edits = any(config.shares.get(task, 0) for task in (*EDITS, "think", "plan"))
        self.edits = EditPairs(self.seen, config.edit_count, self.count, config.fps) if edits else None

    def latents(self, vae: nn.Module) -> tuple[np.ndarray, np.ndarray]:
        """Latents (N, C, T, h, w) of the films and of the edited films, memory-mapped, made where they are missing."""
        films = latents_of(self.films, vae, self.count)
        edits = films[:0] if self.edits is None else latents_of(self.edits, vae, len(self.edits))
        return films, edits

    def group(self, index: int) -> Kind:
        """Whether batch ``index`` is of films or of pictures."""
        if len(self.groups) == 1:
            return self.groups[0]
        if index < self.config.films_from:
            return "image"
        share = self.config.pictures
        return "image" if int((index + 1) * share) > int(index * share) else "video"

    def size(self, group: Kind) -> int:
        """Samples in a batch."""
        return self.config.picture_batch if group == "image" else self.config.batch_size

    def tasks(self, group: Kind, index: int) -> dict[Task, float]:
        """Tasks of batch ``index`` with their shares, which sum to 1."""
        chosen: dict[Task, float] = {
            task: self.config.shares.get(task, 0.0)
            for task in GROUPS[group]
            if task not in EDITS or index >= self.config.editing_from
        }
        total = sum(chosen.values())
        return {task: share / total for task, share in chosen.items() if share > 0}

    def batch(self, index: int) -> list[Sample]:
        """The samples of batch ``index``."""
        own, group = self.config, self.group(index)
        random = np.random.default_rng([own.data_seed, index])
        tasks = self.tasks(group, index)
        chosen = random.choice(list(tasks), self.size(group) if own.mixed else 1, p=list(tasks.values()))
        chosen = np.resize(chosen, self.size(group))
        return [
            self.sample(str(task), group, index * len(chosen) + number, random)  # type: ignore[arg-type]
            for number, task in enumerate(chosen)
        ]

    def sample(self, task: Task, group: Kind, position: int, random: np.random.Generator) -> Sample:
        """A sample of ``task`` from an endless shuffled sequence."""
        seed = int(random.integers(2**31))
        about_edits = task in (*EDITS, "plan")
        if about_edits or (task == "think" and random.random() < self.config.thought_edits):
            return self._edit(task, group, position, seed, random)
        place = epoch_order(self.config.data_seed, self.count, position)
        scene = self.seen.scene(place)
        frames = self._shown(place, group)
        if task == "caption":
            shown = _stilled(scene) if group == "image" else scene
            return Sample(task, "", frames, caption_for(shown), shown=place)
        if task == "question":
            asked = questions_for(scene, seed)
            asked = [each for each in asked if group == "video" or each.type in STATIC_TYPES] or asked
            question = asked[int(random.integers(len(asked)))]
            return Sample(task, question.text, frames, question.answer, shown=place)
        prompt = prompt_for(scene, seed).text
        if task == "think":
            found = indirect_for(prompt, scene, seed) if random.random() < self.config.indirect else None
            said, why = (found.text, found.reasoning) if found else (prompt, NO_INFERENCE)
            return Sample(task, said, None, thought=Thought(why, prompt))
        if random.random() < self.config.plans:
            prompt = plan_for(scene, random.permutation(len(scene.objects)).tolist())
        return Sample(task, prompt, place=place)

    def _edit(self, task: Task, group: Kind, position: int, seed: int, random: np.random.Generator) -> Sample:
        assert self.edits is not None
        place = epoch_order(self.config.data_seed + 1, len(self.edits), position)
        pair = self.edits.pairs[place]
        source = self.seen.scene(pair.source)
        frames = self._shown(pair.source, group)
        if task == "think":
            wanted = random.random() < self.config.indirect
            found = indirect_for(pair.instruction, source, seed) if wanted else None
            said, why = (found.text, found.reasoning) if found else (pair.instruction, NO_INFERENCE)
            return Sample(task, said, frames, thought=Thought(why, pair.instruction), shown=pair.source)
        about, described, changes, plan, description = (), (), False, "", ""
        if task == "plan" or random.random() < self.config.captions:
            target = self.edits.scene(place)
            if group == "image" and (task == "plan" or random.random() < 0.5):
                # Nothing tells of a single picture that anything moves in it.
                source, target = _stilled(source), _stilled(target)
            clauses = clauses_after(source, target)
            about = tuple(clause.source for clause in clauses)
            groups = caption_order(source)
            clause_of = {number: place for place, group in enumerate(groups) for number in group.indices}
            described = tuple(clause_of.get(each, -1) for each in about)
            changes = bool(clauses) and not clauses[0].kept
            plan, description = plan_after(source, target), caption_for(source)
        return Sample(
            task,
            pair.instruction,
            frames,
            description=description,
            plan=plan,
            about=about,
            described=described,
            changes=changes,
            place=place,
            shown=pair.source,
        )

    def _shown(self, place: int, group: Kind) -> np.ndarray:
        frames = self.seen.frames[place]
        return frames[:1] if group == "image" else frames

    def wanted_frames(self, sample: Sample, group: Kind) -> np.ndarray:
        """What is to be made, as the language model's own eye sees it: (F, H, W, 3) at the World's frame rate."""
        cache = self.edits if sample.task in EDITS else self.films
        assert cache is not None
        frames = cache.frames[sample.place]
        if group == "image":
            return frames[:1]
        return frames[np.linspace(0, len(frames) - 1, CLIP_FRAMES).round().astype(int)]

    def report(self) -> list[str]:
        """What each bucket holds, a line each, in the order of :attr:`groups`."""
        lines = []
        for group in self.groups:
            frames = 1 if group == "image" else self.films.frames.shape[1]
            side = self.films.frames.shape[2]
            edits = 0 if self.edits is None else len(self.edits)
            numbers = ", ".join(
                f"{task} {share:.0%} of {edits if task in EDITS else self.count:,}"
                for task, share in self.tasks(group, self.config.editing_from).items()
            )
            start = f", edits from batch {self.config.editing_from}" if self.config.editing_from else ""
            way = "" if self.config.mixed else ", one task a batch"
            lines.append(
                f"bucket {group}: {self.config.share(group):.0%} of the batches, {self.size(group)} samples of "
                f"{frames} x {side}x{side} at {self.config.fps} fps: {numbers}{start}{way}"
            )
        return lines


def _stilled(scene: Scene) -> Scene:
    """What the first frame of ``scene`` shows, if nothing moves."""
    figures = tuple(replace(figure, events=()) for figure in scene.objects)
    return replace(scene, objects=figures, camera=Camera())
