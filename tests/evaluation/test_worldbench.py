"""The benchmark against models whose right scores are known: they prove the metric without any weights."""

from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from skimage.metrics import peak_signal_noise_ratio

from unireel.clip import Clip
from unireel.errors import UsageError, UserError
from unireel.evaluation.intervals import Score
from unireel.evaluation.quality import psnr
from unireel.evaluation.worldbench import Ledger, Plan, Setting, all_tasks, chosen_parts, runner
from unireel.evaluation.worldbench.images import TAGS
from unireel.evaluation.worldbench.reference import Reference, Said
from unireel.evaluation.worldbench.runner import add_up, checker_scores, evaluate
from unireel.evaluation.worldbench.task import Model
from unireel.evaluation.worldbench.understanding import same_answer
from unireel.world import agreement
from unireel.world.checker import observe
from unireel.world.edits import OPERATIONS
from unireel.world.language import QUESTION_TYPES
from unireel.world.render import render
from unireel.world.sampling import CATEGORIES
from unireel.world.scene import COLOURS, DIRECTIONS, SHAPES, TURNS

MakePlan = Callable[..., Plan]


def scores_of(model: Model, plan: Plan, folder: Path) -> dict[str, Score]:
    """The scores of ``model``, without the checker's own."""
    ledger = Ledger(folder, {})
    for task, part in plan.parts:
        ledger.append(
            task.run(model, [task.item(part, i, plan.setting) for i in range(plan.n)], plan.setting), 1.0
        )
    return add_up(plan, ledger)


@pytest.mark.parametrize("split", ["test", "compositional"])
def test_the_renderer_itself_is_right_in_every_category(plan: MakePlan, tmp_path: Path, split: str) -> None:
    everything = plan("t2v,t2i,i2v,edit,joint,qa,caption", 2, split)
    found = scores_of(Reference(everything, 0), everything, tmp_path / "run")
    keys = {
        "t2v/overall",
        *(f"t2v/{each}" for each in CATEGORIES),
        *(f"t2i/{each}" for each in ("overall", *TAGS)),
        *("i2v/overall", "i2v/first_frame", "i2v/motion"),
        *("joint/agreement", "joint/prompt", "joint/both", "joint/facts/count"),
        *(f"edit/{each}" for each in ("overall", "compliance", "kept", *OPERATIONS)),
    }
    keys |= {"qa/static", "qa/dynamic", *(f"qa/{each}" for each in QUESTION_TYPES)}
    keys |= {"caption/precision", "caption/recall", "caption/f1", "t2v/facts/count", "t2v/facts/object"}
    assert keys <= set(found)
    controls = {key for key in found if "/control/" in key or "/drop/" in key or key == "edit/preserve_psnr"}
    assert {key: str(found[key]) for key in set(found) - controls if found[key].value < 1} == {}
    assert found["edit/overall"].n == 2 * len(OPERATIONS)
    assert found["edit/preserve_psnr"].value == found["edit/preserve_psnr"].low == 99
    assert found["qa/static"].n == 18
    assert found["qa/control/intact"].value == 1
    assert found["qa/control/blank"].value == 0  # it knows no film that is black
    assert found["qa/drop/blank"].value == 1
    assert found["caption/control/intact"].value == found["caption/drop/blank"].value == 1
    assert found["caption/control/blank"].value == 0


def test_another_scene_is_at_the_level_of_chance(plan: MakePlan, tmp_path: Path) -> None:
    some = plan("t2v/overall,motion,t2i,i2v,qa/background,qa/existence,caption", 16)
    found = scores_of(Reference(some, 1), some, tmp_path / "run")
    for key in ("t2v/overall", "t2v/motion", "t2i/overall", "i2v/overall", "i2v/first_frame"):
        assert found[key].value <= 0.1, key
    assert found["qa/background"].low < 1 / 5 < found["qa/background"].high
    assert found["qa/existence"].low < 1 / 2 < found["qa/existence"].high
    assert found["caption/f1"].value < 0.5


def test_films_and_descriptions_are_judged_apart(plan: MakePlan, tmp_path: Path) -> None:
    """Another scene agrees with its own description, and not with the prompt; films are those of t2v."""
    some = plan("joint", 16)
    found = scores_of(Reference(some, 1), some, tmp_path / "shuffled")
    assert found["joint/agreement"].value == 1.0 and found["joint/prompt"].value <= 0.1
    task, _ = some.parts[0]
    films = plan("t2v/overall", 1).parts[0][0]
    assert task.item("joint", 3, some.setting) == films.item("t2v/overall", 3, some.setting)

    class Terse(Reference):
        said = "there is one object."

        def imagine_many(self, prompts, **options):
            made = super().imagine_many(prompts, **options)
            return [replace(each, caption=Said(self.said, 1.0)) for each in made]

    class Wrong(Terse):
        """States everything, as of a film that none of these is."""

        said = (
            "there is one object. a large red star jumps five times. the background is navy. the camera stays still. "
            "the style is outline."
        )

    for model in (Terse, Wrong):
        found = scores_of(model(some, 0), some, tmp_path / model.__name__)
        assert found["joint/agreement"].value == 0.0 and found["joint/prompt"].value == 1.0
        assert found["joint/both"].value == 0.0


class Spoiler(Reference):
    """Makes the right film and spoils its first frame, or all that follows it."""

    def __init__(self, plan: Plan, frames: slice) -> None:
        super().__init__(plan, 0)
        self.frames = frames

    def generate_many(self, prompts: Sequence[str], *args, **kwargs) -> list[Clip]:
        clips = super().generate_many(prompts, *args, **kwargs)
        for clip in clips:
            still = np.repeat(clip.frames[:1], len(clip), axis=0)
            clip.frames[self.frames] = still[self.frames] if self.frames.start else 255 - still[self.frames]
        return clips


def test_first_frame_and_motion_are_told_apart(plan: MakePlan, tmp_path: Path) -> None:
    some = plan("i2v", 12)
    inverted = scores_of(Spoiler(some, slice(0, 1)), some, tmp_path / "inverted")
    assert inverted["i2v/first_frame"].value == inverted["i2v/overall"].value == 0
    frozen = scores_of(Spoiler(some, slice(1, None)), some, tmp_path / "frozen")
    assert frozen["i2v/first_frame"].value == 1
    assert frozen["i2v/motion"].value < 0.5
    assert frozen["i2v/overall"].value <= frozen["i2v/facts"].value < 0.5


class Idle(Reference):
    """Hands every film back as it came, in batches."""

    def edit_many(self, pairs: Sequence[tuple[Clip, str]], **kwargs) -> list[Clip]:
        return [clip for clip, _ in pairs]


class Darkener(Reference):
    """Does every edit, and darkens the film a little."""

    def edit(self, clip: Clip, instruction: str, **kwargs) -> Clip:
        film = super().edit(clip, instruction)
        return Clip(np.maximum(film.frames, 3) - 3, film.fps)


def test_edits_are_told_from_doing_nothing_and_from_doing_something_else(
    plan: MakePlan, tmp_path: Path
) -> None:
    some = plan("edit", 3)
    idle = scores_of(Idle(some, 0), some, tmp_path / "idle")
    assert idle["edit/compliance"].value == idle["edit/control/unchanged"].value <= 0.05
    assert idle["edit/kept"].value == 1
    assert idle["edit/preserve_psnr"].value == 99
    other = scores_of(Reference(some, 1), some, tmp_path / "other")
    assert other["edit/overall"].value <= 0.05
    assert other["edit/kept"].value <= 0.2
    assert other["edit/preserve_psnr"].high < 40
    dark = scores_of(Darkener(some, 0), some, tmp_path / "dark")
    assert dark["edit/overall"].value >= 0.9
    assert 38 < dark["edit/preserve_psnr"].value < 40  # 20 log10(255 / 3) = 38.6 dB, less where black clips


class Watcher(Reference):
    """Answers questions of direction from pixels alone, as an honest model would."""

    def ask_many(self, pairs: Sequence[tuple[Clip, str]], batch_size: int = 32) -> list[Said]:
        return [Said(self._direction(clip, question.rstrip("?").split()), 1.0) for clip, question in pairs]

    def _direction(self, clip: Clip, words: list[str]) -> str:
        shape = next(each for each in SHAPES if each in words)
        colour = next((each for each in COLOURS if each in words), None)
        for each in observe(clip).objects:
            if each.shape == shape and colour in (None, each.colour):
                said = [motion.split()[-1] for motion in each.motions]
                return next((word for word in said if word in (*DIRECTIONS, *TURNS)), "")
        return ""


def test_reversed_films_turn_the_answers_of_a_model_that_watches(plan: MakePlan, tmp_path: Path) -> None:
    some = plan("qa/direction", 24)
    found = scores_of(Watcher(some, 0), some, tmp_path / "run")
    assert found["qa/direction"].value == 1
    assert found["qa/control/reversed/flips"].value == 1
    assert found["qa/control/reversed/flips"].n == 6


class FirstFrame(Reference):
    """Knows every answer from the first frame: what a question set that leaks its answers would allow."""

    def __init__(self, plan: Plan) -> None:
        super().__init__(plan, 0)
        self.known = {}
        for task, part in plan.parts:
            for index in range(plan.n):
                item = task.item(part, index, plan.setting)
                frame = Clip.from_array(render(item.scene).frame(0), 8)
                self.known[item.text, frame.frames.tobytes()] = item.question.answer

    def ask_many(self, pairs: Sequence[tuple[Clip, str]], batch_size: int = 32) -> list[Said]:
        return [Said(self.known.get((text, clip.frames[:1].tobytes()), ""), 1.0) for clip, text in pairs]


def test_answers_from_one_frame_survive_the_frozen_control_only(plan: MakePlan, tmp_path: Path) -> None:
    some = plan("qa/dynamic", 8)
    found = scores_of(FirstFrame(some), some, tmp_path / "run")
    assert found["qa/dynamic"].value == 1
    assert found["qa/control/frozen/dynamic"].value == 1
    assert found["qa/drop/frozen/dynamic"].value == 0
    assert found["qa/control/reversed/dynamic"].value < 0.5
    assert found["qa/control/blank/dynamic"].value == 0
    assert found["qa/control/blank/dynamic"].n == 12
    assert "qa/static" not in found
    assert "qa/control/blank" not in found


def test_scores_come_from_the_first_n_records(
    plan: MakePlan, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(runner, "CHECKER_FILMS", 4)
    many, few = plan("t2v/colour", 6), plan("t2v/colour", 2)
    model = Reference(many, 0)
    whole = evaluate(model, "oracle", many, Ledger(tmp_path / "run", {}))
    assert whole.scores["t2v/colour"].n == 6
    seen: list[tuple] = []
    ledger = Ledger(tmp_path / "run", {})
    part = evaluate(model, "oracle", few, ledger, lambda *news: seen.append(news))
    assert part.scores["t2v/colour"].n == 2
    assert seen == []  # nothing was left to do
    assert set(whole.to_dict()) == {"model", "split", "seed", "scores", "checker"}
    assert set(whole.to_dict()["scores"]["t2v/colour"]) == {"value", "low", "high", "n"}
    assert whole.checker["agreement"].value > 0.9 < whole.checker["rejection"].value


def test_the_checkers_figures_are_those_of_the_world(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(runner, "CHECKER_FILMS", 40)
    found = checker_scores(Setting("compositional", 1, 48))
    again = agreement.quick_figures(40, 48, 1, "all")  # of the test split
    assert found["agreement"].n > 400 < found["rejection"].n
    assert found["agreement"].value >= 0.98 <= found["rejection"].value
    assert found["agreement"].value == pytest.approx(again["agreement"], abs=0.02)


def test_a_film_of_another_size_is_an_error(plan: MakePlan, tmp_path: Path) -> None:
    class Large(Reference):
        def generate_many(self, prompts: Sequence[str], *args, **kwargs) -> list[Clip]:
            return [each.resized(96, 96) for each in super().generate_many(prompts, *args, **kwargs)]

    some = plan("t2v/colour", 1)
    with pytest.raises(UserError, match=r"WorldBench needs \(17, 48, 48, 3\)"):
        scores_of(Large(some, 0), some, tmp_path / "run")


def test_pictures_are_one_frame_and_their_mean_needs_all_six(plan: MakePlan, tmp_path: Path) -> None:
    class Watched(Reference):
        lengths: set[int] = set()  # noqa: RUF012

        def generate_many(self, prompts: Sequence[str], *args, **kwargs) -> list[Clip]:
            clips = super().generate_many(prompts, *args, **kwargs)
            self.lengths.update(map(len, clips))
            return clips

    whole = plan("t2i", 2)
    model = Watched(whole, 0)
    found = scores_of(model, whole, tmp_path / "whole")
    assert model.lengths == {1}
    assert (found["t2i/overall"].value, found["t2i/overall"].n) == (1, 12)
    some = plan("t2i/counting,t2i/colour", 2)
    assert set(scores_of(Watched(some, 0), some, tmp_path / "some")) == {"t2i/counting", "t2i/colour"}

    class Films(Reference):
        def generate_many(self, prompts: Sequence[str], *args, **kwargs) -> list[Clip]:
            return super().generate_many(prompts)

    with pytest.raises(UserError, match=r"WorldBench needs \(1, 48, 48, 3\)"):
        scores_of(Films(some, 0), some, tmp_path / "films")


def test_a_ledger_of_another_world_is_refused(plan: MakePlan, tmp_path: Path) -> None:
    some = plan("t2v/colour", 1)
    ledger = Ledger(tmp_path / "run", {})
    task, part = some.parts[0]
    outcomes = task.run(Reference(some, 0), [task.item(part, 0, some.setting)], some.setting)
    outcomes[0].record["prompt"] = "a red star jumps eight times"
    ledger.append(outcomes, 1.0)
    with pytest.raises(UserError, match="another version of the World"):
        evaluate(Reference(some, 0), "oracle", some, ledger)


def test_items_of_parts_and_seeds_differ_and_repeat() -> None:
    tasks, again = all_tasks(), all_tasks()
    setting = Setting("test", 0, 48)
    for task, other in zip(tasks, again, strict=True):
        for part in task.parts[:3]:
            items = [task.item(part, index, setting) for index in range(3)]
            assert len({item.scene.to_json() for item in items}) == 3
            assert [item.index for item in items] == [0, 1, 2]
            assert items[0].scene.signature() == other.item(part, 0, setting).scene.signature()
            assert items[0].scene != task.item(part, 0, Setting("test", 1, 48)).scene
    by_name = {task.name: task for task in tasks}
    overall = by_name["t2v"].item("t2v/overall", 0, setting).scene
    assert overall != by_name["i2v"].item("i2v/overall", 0, setting).scene


def test_names_of_categories() -> None:
    tasks = all_tasks()

    def parts(*names: str) -> list[str]:
        return [part for _, part in chosen_parts(names, tasks)]

    assert parts("single-object", "overall") == ["t2v/overall", "t2v/single object"]
    assert parts("order") == ["t2v/order"]
    assert parts("qa/order", "qa/state_change", "qa/order") == ["qa/order", "qa/state change"]
    assert len(parts("qa/static")) == 9
    assert len(parts("t2v")) == 12
    assert len(parts("t2v", "i2v", "qa", "caption")) == 12 + 1 + 15 + 1
    assert parts("edit/add") == ["edit/add"]
    assert len(parts("t2i")) == 6
    assert parts("t2i/two-objects", "two-objects") == ["t2i/two objects", "t2v/two objects"]
    assert len(parts("edit")) == 8
    for name in ("teleport", "", "qa/teleport"):
        with pytest.raises(UsageError, match=r"accepted: .*single-object"):
            parts(name)


def test_answers_are_compared_by_their_words() -> None:
    assert same_answer("The Red  star.", "red star")
    assert same_answer("counterclockwise", "counter-clockwise")
    assert same_answer("color", "colour")
    assert not same_answer("red", "red star")
    assert not same_answer("", "red")
    assert not same_answer("left right", "right left")


def test_psnr_is_that_of_scikit_image() -> None:
    random = np.random.default_rng(0)
    one = random.integers(0, 256, (48, 48, 3), dtype=np.uint8)
    two = np.clip(one.astype(int) + random.integers(-9, 10, one.shape), 0, 255).astype(np.uint8)
    assert psnr(one, two) == pytest.approx(peak_signal_noise_ratio(one, two), abs=1e-9)
    assert psnr(one, one) == 99.0
