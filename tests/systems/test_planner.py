"""The planner: sampling like the library's, film by film; the stage learns; the pipeline uses and keeps plans."""

# Modules of torch and of the model libraries are typed too loosely for these rules.
# pyright: reportArgumentType=false, reportAttributeAccessIssue=false, reportCallIssue=false, reportIndexIssue=false

import numpy as np
import pytest
import torch

import unireel
from unireel.backbones.planner import planning_ids, pocket_planner, write_plans
from unireel.backbones.text import word_tokenizer
from unireel.data.cache import CacheConfig, build
from unireel.systems.base import pipeline as base
from unireel.systems.base.stages.planner import PlannerConfig, PlannerStage
from unireel.world.language import read_plan, vocabulary

PROMPTS = ["a red star jumps twice", "a blue ring", "on a sand background, three small crosses stay still"]
TOKENIZER = word_tokenizer(vocabulary())


@pytest.fixture(scope="module")
def planner():
    torch.manual_seed(0)
    return pocket_planner(len(TOKENIZER), 32, 2, 2, 64).eval()


def generators(count: int = len(PROMPTS)) -> list[torch.Generator]:
    return [torch.Generator().manual_seed(number) for number in range(count)]


def test_the_likeliest_plan_is_the_one_that_the_library_generates(planner):
    for prompt in PROMPTS:
        ids = torch.tensor([planning_ids(TOKENIZER, prompt)])
        found = planner.generate(ids, do_sample=False, max_new_tokens=75, attention_mask=torch.ones_like(ids))
        words = TOKENIZER.convert_ids_to_tokens(found[0, ids.shape[1] :].tolist())
        if "</s>" in words:
            words = words[: words.index("</s>")]
        wanted = " ".join(words).replace(" .", ".").replace(" ,", ",")
        assert write_plans(planner, TOKENIZER, [prompt], generators(1), temperature=0) == [wanted]


def test_a_plan_depends_on_its_own_generator_only(planner):
    together = write_plans(planner, TOKENIZER, PROMPTS, generators())
    alone = [
        write_plans(planner, TOKENIZER, [prompt], [each])[0]
        for prompt, each in zip(PROMPTS, generators(), strict=True)
    ]
    assert together == alone and len(set(together)) == len(PROMPTS)
    other = write_plans(planner, TOKENIZER, PROMPTS[:1], [torch.Generator().manual_seed(9)])
    assert other != together[:1]


def test_a_narrow_nucleus_takes_the_likeliest_word(planner):
    greedy = write_plans(planner, TOKENIZER, PROMPTS, generators(), temperature=0)
    assert write_plans(planner, TOKENIZER, PROMPTS, generators(), nucleus=1e-6) == greedy


@pytest.fixture(scope="module")
def stage(tmp_path_factory):
    folder = tmp_path_factory.mktemp("planner")
    build(folder / "films", CacheConfig(16, 32), progress=False)
    torch.manual_seed(0)
    config = PlannerConfig(films=str(folder / "films"), film_count=16, size=32, width=48, layers=2, heads=2,
                           ffn=96, batch_size=4)  # fmt: skip
    return PlannerStage(config)


def test_batches_hold_prompts_and_teach_plans(stage):
    batch = stage.batch(3)
    assert torch.equal(stage.batch(3)["ids"], batch["ids"])
    for ids, wanted in zip(batch["ids"].tolist(), batch["wanted"].tolist(), strict=True):
        taught = [each for each in wanted if each >= 0]
        assert taught[-1] == TOKENIZER.eos_token_id and ids[wanted.index(taught[0]) - 1] == 6
        assert read_plan(" ".join(TOKENIZER.convert_ids_to_tokens(taught[:-1])), size=32) is not None


@pytest.fixture(scope="module")
def trained(stage):
    optimizer = torch.optim.AdamW(stage.module.parameters(), lr=4e-3)
    for step in range(160):
        loss, logs = stage.loss(stage.batch(step % 24))
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    assert float(loss.detach()) < 1.2 and float(logs["words_right"]) > 0.6
    return stage


def test_a_small_planner_learns_the_form_of_plans(trained):
    plans = write_plans(trained.module, TOKENIZER, PROMPTS, generators(), temperature=0)
    assert all(read_plan(plan) is not None for plan in plans)
    assert trained.evaluate()["plan/read"] > 0.5


def test_export_and_start_from(trained, tmp_path):
    trained.export(tmp_path)
    again = PlannerStage(PlannerConfig(**{**vars(trained.config), "start_from": str(tmp_path)}))
    before = write_plans(trained.module, TOKENIZER, PROMPTS, generators())
    assert write_plans(again.module.eval(), TOKENIZER, PROMPTS, generators()) == before


@pytest.fixture
def model(untrained, trained):
    model = unireel.load(untrained, device="cpu")
    model.register_modules(planner=trained.module.eval())
    return model


def test_the_pipeline_extends_prompts_but_not_plans(model):
    plans = model.extend(PROMPTS, generators())
    assert plans == model.extend(PROMPTS, generators()) and plans != PROMPTS
    assert model.extend(plans, generators()) == plans
    assert not any(" at " in each for each in model.extend(PROMPTS, generators(), placed=False))


def test_of_several_plans_the_one_that_holds_most_is_taken(model, monkeypatch):
    right = "plain style, sand background, camera still. small red star at two two stays still."
    wrong, half = right.replace("red", "blue"), right.replace("sand", "navy")
    drawn = iter(["no plan", wrong, half, right, wrong])
    monkeypatch.setattr(base, "write_plans", lambda *_: [next(drawn)])
    assert model.extend(["a red star, the background is sand"]) == [right]
    assert next(drawn) == wrong  # nothing is drawn after the right one
    never = iter(["no plan"] * 20)
    monkeypatch.setattr(base, "write_plans", lambda *_: [next(never)])
    assert model.extend(["a red star"]) == ["a red star"]


def test_a_film_is_made_from_the_plan_that_its_seed_draws(model, untrained):
    prompt = PROMPTS[0]
    generator = torch.Generator().manual_seed(3)
    torch.randn((4, 5, 12, 12), generator=generator)  # the noise comes first
    plan = model.extend([prompt], generator)[0]
    film = model.generate(prompt, seed=3, steps=2)
    assert np.array_equal(film.frames, model.generate(plan, seed=3, steps=2).frames)
    plain = model.generate(prompt, seed=3, steps=2, extend=False)
    assert np.array_equal(
        plain.frames, unireel.load(untrained, device="cpu").generate(prompt, seed=3, steps=2).frames
    )
    assert not np.array_equal(film.frames, plain.frames)


def test_the_planner_is_saved_with_the_model(model, tmp_path):
    model.save_pretrained(tmp_path / "copy", dtype=torch.float32)
    copy = unireel.load(tmp_path / "copy", device="cpu")
    assert copy.extend(PROMPTS, generators()) == model.extend(PROMPTS, generators())
