"""What the server knows of the model that it serves, and the few calls that it makes to it."""

from __future__ import annotations

import tempfile
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from unireel.clip import Clip
from unireel.errors import UserError
from unireel.serving.errors import ApiError
from unireel.serving.jobs import Job

if TYPE_CHECKING:
    from unireel.systems.univigu.pipeline import Imagined

Progress = Callable[[int, int], None]
"""Called with (steps done, steps in all); what it raises ends the work."""

SMALL_SIDE = 384
"""Films of small models are enlarged by default, by the largest whole factor that keeps them within this."""


VERBS = {
    "generate": "generate_many",
    "edit": "edit_many",
    "ask": "ask_many",
    "caption": "caption_many",
    "imagine": "imagine_many",
}
"""What a model can do, and the method by which it does it; whatever has the method can do it."""


class ServedModel:
    """A loaded pipeline behind one face, whatever system it is of.

    Attributes:
        name: what clients call it.
        size: (height, width) of its films in pixels.
        fps: frames per second of its films.
        lengths: numbers of frames that it can make, rising; 1 is a picture.
        steps: of its sampler, by default.
        abilities: of "generate", "edit", "ask", "caption", "imagine", "reflect".
    """

    def __init__(self, pipeline: Any, name: str, folder: Path | None = None) -> None:
        from unireel.world.scene import CLIP_FRAMES, FPS

        self.pipeline, self.name, self.folder = pipeline, name, folder
        self.size: tuple[int, int] = (pipeline.size, pipeline.size)
        self.fps = float(FPS)
        self.lengths = tuple(range(1, CLIP_FRAMES + 1, 4))
        self.steps = int(pipeline.config["steps"])
        self.abilities = frozenset(verb for verb, method in VERBS.items() if hasattr(pipeline, method))
        if self.abilities >= {"ask", "caption"}:
            self.abilities |= {"reflect"}
        self._ranker: Any = None

    @classmethod
    def load(cls, name: str, device: str | None = None) -> ServedModel:
        """The model of that name, folder or hub id; a folder is served under its own name, not under its path.

        Raises:
            UserError: it cannot be loaded.
        """
        from unireel import hub

        folder = hub.find_model(name)
        public = folder.resolve().name if Path(name).expanduser().is_dir() else name
        return cls(hub.load(folder, device=device), public, folder)

    @property
    def default_scale(self) -> int:
        """Enlargement of films whose client does not ask for a size."""
        return max(1, SMALL_SIDE // max(self.size))

    def check_words(self, param: str, text: str) -> None:
        """Refuse words that the model does not know, before they wait in the queue.

        Raises:
            ApiError: ``unknown_words`` with the first few of them.
        """
        unknown = self._unknown_words(text)
        if unknown:
            listed = ", ".join(word[:40] for word in unknown[:5])
            raise ApiError("unknown_words", param=param, words=listed)

    def _unknown_words(self, text: str) -> list[str]:
        from unireel.systems.base.pipeline import BasePipeline
        from unireel.world.language import unknown_words

        return unknown_words(text) if isinstance(self.pipeline, BasePipeline) else []

    def first_frame(self, picture: Clip) -> Clip:
        """A picture as it is kept with a job: its first frame at the model's size."""
        return picture[:1].resized(*self.size)

    def films(self, jobs: Sequence[Job], progress: Progress) -> list[Clip] | list[Imagined]:
        """The films of jobs that go with each other, see :meth:`~unireel.serving.jobs.Job.goes_with`; with their
        descriptions if the jobs say ``imagine``."""
        requests = [job.request for job in jobs]
        head = requests[0]
        if head.edit:
            return self.pipeline.edit_many(
                [(job.source, job.request.prompt) for job in jobs],
                seeds=[request.seed for request in requests],
                steps=head.steps,
                guidance=head.guidance,
                batch_size=len(jobs),
                progress=progress,
            )
        make = self.pipeline.imagine_many if head.imagine else self.pipeline.generate_many
        return make(
            [request.prompt for request in requests],
            images=None if jobs[0].source is None else [_picture(job) for job in jobs],
            seeds=[request.seed for request in requests],
            frames=head.frames,
            steps=head.steps,
            guidance=head.guidance,
            batch_size=len(jobs),
            progress=progress,
        )

    def answers(self, pairs: Sequence[tuple[Clip, str]]) -> list[Any]:
        """For each (film, question) an ``Answer``, or the ``UserError`` that says why there is none.

        One question that cannot be answered does not spoil the others.
        """
        try:
            return self.pipeline.ask_many(pairs)
        except UserError as error:
            if len(pairs) == 1:
                return [error]
            return [each for pair in pairs for each in self.answers([pair])]

    def captions(self, clips: Sequence[Clip]) -> list[Any]:
        """A description of each film."""
        return self.pipeline.caption_many(clips)

    def reflect(self, clip: Clip, question: str, progress: Progress) -> Any:
        """An answer by Pyramid Reflection; ``progress`` hears of rounds. Nothing of the film is kept on disk."""
        from unireel.systems.univid.reflection.cache import FilmCache
        from unireel.systems.univid.reflection.loop import PyramidReflection, ReflectionConfig
        from unireel.systems.univid.reflection.roles import Roles

        ranker = self._own_ranker()
        config = ReflectionConfig(policy="even" if ranker is None else "similarity")
        with tempfile.TemporaryDirectory(prefix="unireel-reflection-") as folder:
            loop = PyramidReflection(Roles.of_model(self.pipeline), ranker, config, FilmCache(Path(folder)))
            return loop.ask(clip, question, progress=progress)

    def _own_ranker(self) -> Any:
        """The ranker in the model's folder, loaded once, or None."""
        from unireel.hub import component

        folder = None if self.folder is None else component(self.folder, "ranker")
        if self._ranker is None and folder is not None and folder.is_dir():
            from unireel.systems.univid.reflection.rankers import DualEncoder

            self._ranker = DualEncoder.load(folder, self.pipeline.device)
        return self._ranker

    def count_tokens(self, text: str) -> int:
        """Tokens of ``text`` without marks of beginning and end."""
        return len(self.pipeline.tokenizer(text, add_special_tokens=False)["input_ids"])


def _picture(job: Job) -> np.ndarray:
    assert job.source is not None
    return job.source.frames[0]
