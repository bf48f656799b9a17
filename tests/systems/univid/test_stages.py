"""UniVid's stages: what is frozen and what learns, what the losses are, and that an export can be gone on with."""

# Modules of torch and of the model libraries are typed too loosely for these rules.
# pyright: reportArgumentType=false, reportAttributeAccessIssue=false, reportOptionalMemberAccess=false
# pyright: reportOptionalSubscript=false

import math
import re
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor

import unireel
from unireel import training
from unireel.backbones.understanding import Request
from unireel.backbones.vlm import pack, question_turn, visual_patches
from unireel.config import to_dict
from unireel.data.cache import CacheConfig, build
from unireel.systems.univid.connector import Conditions, Mix
from unireel.systems.univid.pipeline import UniVid
from unireel.systems.univid.settings import Settings, Sizes
from unireel.systems.univid.stages import FullAlignment, PocketAdaptation, PocketAlignment, PocketJoint
from unireel.systems.univid.stages.common import FilmTask, UniVidStage, film_loss
from unireel.systems.univid.stages.curriculum import Curriculum
from unireel.systems.univid.stages.pocket import PocketConfig, PocketJointConfig
from unireel.training.recipe import from_dict

RECIPES = Path(__file__).parents[3] / "recipes" / "univid"
ADAPTER = r"(connector\.|combiner\.gate)"
LORA = r"transformer\..*\.attn[12]\.(to_q|to_k|to_v|to_out\.0)\.lora_[AB]\."
VIT = r"vlm\.model\.visual\.blocks\.(LAST)\."
MERGER = r"vlm\.model\.visual\.merger\."


@pytest.fixture(scope="module")
def settings(untrained, tmp_path_factory) -> dict:
    films = tmp_path_factory.mktemp("univid") / "films"
    build(films, CacheConfig(8, 48), progress=False)
    return {
        "start_from": str(untrained),
        "films": str(films),
        "film_count": 8,
        "used_films": 8,
        "sizes": Sizes(hidden=16, layers=1),
        "settings": Settings("gate", context_length=172),
        "lora_rank": 2,
        "batch_size": 4,
        "picture_batch": 4,
        "question_films": 2,
        "referring": 0.5,
    }


@pytest.fixture(scope="module")
def joint(settings) -> PocketJoint:
    """In three phases of one batch each."""
    torch.manual_seed(0)
    stage = PocketJoint(PocketJointConfig(**settings, curriculum=Curriculum(3, 0.3, 0.3)))
    stage.material.model.combiner.gate.data.fill_(0.5)  # so that the connector matters from the first step
    for name, each in stage.material.transformer.named_parameters():
        if ".lora_B." in name:
            torch.nn.init.normal_(each, std=0.1)
    return stage


def weights(stage: UniVidStage) -> dict[str, Tensor]:
    """All of a system's weights by name."""
    model = stage.material.model
    parts = {**model.components, "combiner": model.combiner}
    return {
        f"{part}.{name}": value
        for part, module in parts.items()
        if isinstance(module, torch.nn.Module)
        for name, value in module.named_parameters()
    }


def pattern(stage: UniVidStage, *parts: str) -> re.Pattern[str]:
    depth = len(stage.material.model.vlm.model.visual.blocks)
    last = "|".join(map(str, range(max(depth - 2, 0), depth)))
    return re.compile("|".join(parts).replace("LAST", last))


def check(stage: UniVidStage, loss: Tensor, *parts: str) -> None:
    """After a step on ``loss``, only ``parts`` have changed, and all of them."""
    before = {name: value.detach().clone() for name, value in weights(stage).items()}
    stage.module.zero_grad(set_to_none=True)
    loss.backward()
    with torch.no_grad():
        for each in weights(stage).values():
            if each.grad is not None:
                each -= 1e-2 * each.grad.sign()
    changed = {name for name, value in weights(stage).items() if not torch.equal(value, before[name])}
    assert all(pattern(stage, *parts).match(name) for name in changed), sorted(changed)
    for part in parts:
        assert any(pattern(stage, part).match(name) for name in changed), part


def test_stage_one_trains_connector_and_adapters_alone(settings):
    stage = PocketAlignment(PocketConfig(**settings))
    stage.material.model.combiner.gate.data.fill_(0.5)
    expected = pattern(stage, ADAPTER, LORA)
    trained = {name for name, each in weights(stage).items() if each.requires_grad}
    assert trained == {name for name in weights(stage) if expected.match(name)}
    assert any(".attn1." in name for name in trained) and any(".attn2." in name for name in trained)
    check(stage, stage.loss(stage.batch(0))[0], ADAPTER, LORA)


def test_without_adapters_the_connector_learns_alone(settings, tmp_path):
    stage = PocketAlignment(PocketConfig(**settings | {"lora_rank": 0}))
    stage.material.model.combiner.gate.data.fill_(0.5)
    check(stage, stage.loss(stage.batch(0))[0], ADAPTER)
    stage.export(tmp_path)
    assert not (tmp_path / "adapters").exists()


def test_stage_two_trains_the_last_vit_blocks_and_the_merger_alone(settings):
    stage = PocketAdaptation(PocketConfig(**settings))
    expected = pattern(stage, VIT, MERGER)
    trained = {name for name, each in weights(stage).items() if each.requires_grad}
    assert trained == {name for name in weights(stage) if expected.match(name)}
    check(stage, stage.loss(stage.batch(0))[0], VIT, MERGER)


@pytest.mark.parametrize(
    ("index", "phase", "parts"),
    [
        (0, "semantic", (VIT, MERGER)),
        (1, "mixing", (ADAPTER, LORA)),
        (2, "joint", (ADAPTER, LORA, VIT, MERGER)),
    ],
)
def test_stage_three_trains_what_its_phase_says(joint, index, phase, parts):
    batch = joint.batch(index)
    assert joint.curriculum.phase(index) == phase
    loss, logs = joint.loss(batch)
    assert ("answer_loss" in logs) == (phase != "mixing")
    check(joint, loss, *parts)


def test_batches_are_a_pure_function_of_their_number(joint):
    one, two = joint.batch(5), joint.batch(5)
    assert one.films.prompts == two.films.prompts and one.mix == two.mix
    assert torch.equal(one.films.data, two.films.data) and torch.equal(one.films.clean, two.films.clean)
    for a, b in zip(one.films.pictures, two.films.pictures, strict=True):
        assert (a is None and b is None) or np.array_equal(a, b)
    assert joint.batch(6).films.prompts != one.films.prompts


def test_guidance_dropout(settings):
    """A dropped prompt is dropped for both readers; more are dropped for the decoder's own text encoder alone."""
    counts = {"pictures": 1.0, "picture_batch": 64, "empty": 0.25, "unread": 0.25}
    material = PocketConfig(**(settings | counts)).material()
    tasks = [material.films(index) for index in range(6)]
    pairs = [pair for task in tasks for pair in zip(task.prompts, task.texts, strict=True)]
    neither = sum(not prompt and not text for prompt, text in pairs) / len(pairs)
    understood = sum(bool(prompt) and not text for prompt, text in pairs) / len(pairs)
    assert abs(neither - 0.25) < 0.09 and abs(understood - 0.25) < 0.09
    assert not any(text and not prompt for prompt, text in pairs)
    assert any("in the picture" in prompt for prompt, _ in pairs)


def test_the_text_s_own_states_are_as_alike_as_can_be(settings):
    """The auxiliary loss of C_t is 0 for the text encoder's own states, 1 for their mean, whatever the lengths."""
    material = PocketConfig(**(settings | {"likeness": 1.0, "empty": 0.0})).material()
    task = material.films(0)
    condition = material.conditioner.encode(task.prompts, task.pictures, task.texts)
    conditions = material.conditioner.context(condition).conditions(torch.full((4,), 0.5))
    own, mean = torch.zeros_like(conditions.tokens), torch.zeros_like(conditions.tokens)
    every = condition.text[condition.text_mask.bool()]
    for row, count in enumerate(condition.text_mask.sum(1).tolist()):
        end = int(conditions.mask[row].sum())
        own[row, end - count : end] = condition.text[row, :count]
        mean[row, end - count : end] = every.mean(0)
    for tokens, most in ((own, 1e-9), (mean, 1.0)):
        found = material.likeness(Conditions(tokens, conditions.mask), condition, is_made=False)
        assert float(found) <= most + 1e-4
    assert float(found) > 0.3
    wrong = material.likeness(Conditions(own.roll(1, 1), conditions.mask), condition, is_made=False)
    assert float(wrong) > 0.3
    alone = PocketConfig(**(settings | {"likeness_batches": 1})).material()
    loss, logs = film_loss(alone, alone.films(0))
    assert set(logs) == {"likeness"} and math.isfinite(float(loss))
    assert alone.films(1).is_made


def test_a_given_first_frame_costs_nothing_and_is_seen(joint):
    """The loss is over what is not given: with a film of one latent frame that is given, nothing is left to learn."""
    material = joint.material
    task = material.films(0)
    data = torch.from_numpy(material.encoded[:2].astype(np.float32))
    film = FilmTask(task.prompts[:2], task.texts[:2], (None, None), data, torch.tensor([True, True]))
    torch.manual_seed(0)
    loss, _ = film_loss(material, film)
    output = {}

    def spy(module, args, kwargs, result):
        output["time"] = kwargs["timestep"]

    handle = material.transformer.register_forward_hook(spy, with_kwargs=True)
    film_loss(material, film)
    handle.remove()
    tokens = (data.shape[3] // 2) * (data.shape[4] // 2)
    assert output["time"].shape == (2, data.shape[2] * tokens)
    assert output["time"][:, :tokens].abs().max() == 0 and output["time"][:, tokens:].min() > 0
    assert math.isfinite(loss.item())


def test_the_mix_reaches_the_decoder(joint):
    material = joint.material
    picture = np.asarray(material.cache.frames[0, 0])
    data = torch.from_numpy(material.encoded[:1, :, :1].astype(np.float32))
    task = FilmTask(("a red star",), ("",), (picture,), data, torch.tensor([False]))
    losses = []
    for mix in (Mix(1, 1), Mix(1, 0), Mix(0, 1)):
        torch.manual_seed(0)
        losses.append(film_loss(material, task, mix)[0].item())
    assert len({round(each, 7) for each in losses}) == 3


def test_cross_entropy_is_on_the_answer_alone(joint):
    """It is the mean of minus the logarithms of the probabilities with which the model says the same words."""
    material = joint.material
    vlm = material.model.understanding
    frames = np.asarray(material.cache.frames[0])
    spoken = vlm.chat([Request("what is the background?", frames)], max_new_tokens=3)[0]
    turn = question_turn(vlm.tokenizer, "what is the background?", None)
    full = type(turn)([*turn.ids, *spoken.ids], [*turn.weights, *[1.0] * len(spoken.ids)])
    patches, grid = visual_patches(frames[None], vlm.layout)
    batch = pack([[full]], grid[0], vlm.tokenizer, merge=vlm.layout.merge) | {
        "patches": patches,
        "grid": grid,
    }
    with torch.no_grad():
        loss, _ = material.answer_loss(batch)
    expected = -sum(math.log(p) for p in spoken.probabilities[: len(spoken.ids)]) / max(len(spoken.ids), 1)
    assert spoken.ids and loss.item() == pytest.approx(expected, rel=1e-3)


def test_a_run_is_exported_as_a_model_that_the_next_stage_starts_from(settings, tmp_path):
    plain = {**settings, "sizes": vars(settings["sizes"]), "settings": to_dict(settings["settings"])}
    recipe = from_dict(
        training.Recipe,
        {
            "stage": "unireel.systems.univid.stages:PocketAlignment",
            "output": str(tmp_path / "one"),
            "steps": 2,
            "stage_config": plain,
            "precision": "fp32",
            "tensorboard": False,
            "prefetch": 0,
        },
    )
    assert training.run(recipe)
    model = unireel.load(tmp_path / "one" / "export")
    assert isinstance(model, UniVid) and model.combiner.gate.item() != 0
    second = PocketAdaptation(PocketConfig(**(settings | {"start_from": str(tmp_path / "one" / "export")})))
    assert second.material.model.combiner.gate.item() == pytest.approx(model.combiner.gate.item())
    names = set(second.module.state_dict())
    assert names and all(name.startswith(("vit.", "merger.")) for name in names)


@pytest.mark.parametrize("stage", [1, 2, 3])
def test_pocket_recipes_are_what_their_stages_take(stage):
    recipe = training.load_recipe(RECIPES / f"pocket-stage{stage}.yaml")
    config_class = (PocketConfig, PocketConfig, PocketJointConfig)[stage - 1]
    config = from_dict(config_class, recipe.stage_config, "stage_config")
    if isinstance(config, PocketJointConfig):
        assert config.curriculum.batches == recipe.steps * recipe.accumulate
    assert FullAlignment.plans_on_meta and not PocketAlignment.plans_on_meta
