"""The stages: what their losses are zero for, what they train, that they learn, and what their recipes say."""

# Modules of torch and of the model libraries are typed too loosely for these rules.
# pyright: reportArgumentType=false, reportAttributeAccessIssue=false, reportOptionalMemberAccess=false
# pyright: reportGeneralTypeIssues=false, reportIndexIssue=false

from pathlib import Path

import pytest
import torch

import unireel
from unireel.config import from_dict
from unireel.data.cache import CacheConfig, build
from unireel.errors import UsageError, UserError
from unireel.systems.omnivideo.decoder import Drawn
from unireel.systems.omnivideo.speech import Request
from unireel.systems.omnivideo.stages import AlignmentStage, FlowStage, HeadsStage, flow
from unireel.systems.omnivideo.stages.alignment import stretched
from unireel.training import Recipe, load_recipe, run
from unireel.training.recipe import OptimizerConfig, ScheduleConfig, stage_class

RECIPES = sorted((Path(__file__).parents[2] / "recipes" / "omnivideo").glob("*.yaml"))


@pytest.fixture(scope="module")
def folders(tmp_path_factory, model) -> dict[str, Path]:
    folder: Path = tmp_path_factory.mktemp("stages")
    model.save_pretrained(folder / "model", dtype=torch.float32)
    build(folder / "films", CacheConfig(8, 48), progress=False)
    return {"model": folder / "model", "films": folder / "films"}


def stage_of(kind, folders, mixture=None, **settings):
    data = {
        "films": str(folders["films"]),
        "film_count": 8,
        "edit_count": 8,
        "batch_size": 6,
        "picture_batch": 6,
    }
    config = {"start_from": str(folders["model"]), "mixture": data | (mixture or {}), **settings}
    if kind is FlowStage:
        config = {"looking_blocks": [0]} | config
    torch.manual_seed(0)
    return kind(from_dict(kind.config_class, config))


@pytest.mark.parametrize("index", [0, 1])
def test_flow_has_no_loss_for_the_truth(folders, monkeypatch, index):
    stage = stage_of(FlowStage, folders)
    batch = stage.batch(index)
    assert batch["latents"].shape[2] == (5 if index == 0 else 1)
    velocity = stage.model.decoder.prediction == "velocity"
    seen = {}

    def interpolate(data, noise, time):
        seen["truth"] = noise - data if velocity else data
        return (1 - time) * data + time * noise

    monkeypatch.setattr(flow, "interpolate", interpolate)
    monkeypatch.setattr(stage.model.decoder, "draw", lambda *_: Drawn(seen["truth"]))
    stage._watched = []
    _, logs = stage.loss(batch)
    assert all(float(each) == 0 for each in logs.values())
    assert set(logs) == ({"t2v", "v2v"} if index == 0 else {"t2i", "i2i"})


def test_flow_trains_what_it_is_told_to(folders):
    stage = stage_of(
        FlowStage, folders, train=["vision_head", "visual_context"], drop_source=0.0, drop_visual=0.0
    )
    loss, _ = stage.loss(stage.batch(0))
    loss.backward()
    for name in ("vision_head", "visual_context"):
        assert all(each.grad is not None for each in getattr(stage.model, name).parameters()), name
    for name in ("adapter", "transformer", "text_encoder", "vlm"):
        assert all(each.grad is None for each in getattr(stage.model, name).parameters()), name


def test_edits_are_told_where_to_look(folders):
    with pytest.raises(UsageError, match="looking_blocks: the decoder has blocks 0 to"):
        stage_of(FlowStage, folders, looking_blocks=[99])
    stage = stage_of(FlowStage, folders, {"shares": {"v2v": 1.0}, "pictures": 0.0}, drop_source=0.0)
    stage.loss(stage.batch(0))
    seen = stage._watched[0].seen
    tokens = stage.film_latents[0, 0].size // 4
    assert seen.shape[1] == tokens <= seen.shape[2]
    torch.testing.assert_close(seen.sum(-1), torch.ones(seen.shape[:2]))
    given = torch.ones(len(seen), dtype=torch.bool)
    places = torch.eye(tokens, seen.shape[2]).expand_as(seen)
    assert float(flow._looked(places, given)) == pytest.approx(0, abs=1e-3)
    assert float(flow._looked(places.flip(1), given)) > 5
    assert float(flow._looked(seen, given)) > 1


def test_drops_are_independent_and_leave_the_empty_prompt(folders):
    stage = stage_of(FlowStage, folders, {"batch_size": 64, "pictures": 0.0}, drop_text=0.5, drop_visual=0.5,
                     drop_source=0.5)  # fmt: skip
    batch = stage.batch(0)
    rows = stage._rows(batch, "video")
    dropped = torch.stack([batch["text_mask"][:-1].sum(1) == 1, ~batch["visual"], ~batch["given"]])[
        :, batch["edits"]
    ]
    assert len(set(map(tuple, dropped.T.tolist()))) == 8
    for row, visual, given in zip(rows, batch["visual"], batch["given"], strict=True):
        assert (row.visual is not None) == bool(visual)
        assert (row.source is not None) == bool(given)
        assert len(row.text) >= 1


def test_a_batch_that_cannot_fit_is_refused_before_training(folders):
    with pytest.raises(UserError, match="the source needs 252 tokens of context and may have 180"):
        stage_of(FlowStage, folders, {"fps": 12})
    stage = stage_of(FlowStage, folders, {"fps": 12}, settings={"budgets": {"source": 252, "text": 75}})
    batch = stage.batch(0)
    assert batch["latents"].shape[2] == 7
    assert torch.isfinite(stage.loss(batch)[0])
    assert "source 252 of 252, visual 20 of 20, text 75 of 75" in stage.report()[0]


def test_ablations_are_settings(folders):
    for settings in (
        {"segments": ["source", "text"]},
        {"segments": ["source", "visual"]},
        {"route": "frames"},
        {"route": "channels"},
    ):
        stage = stage_of(
            FlowStage, folders, settings=settings, train=["transformer", "visual_context", "adapter"]
        )
        loss, _ = stage.loss(stage.batch(0))
        loss.backward()
        trained = {
            name for name in stage.module if any(p.grad is not None for p in stage.module[name].parameters())
        }
        wanted = {"transformer", "visual_context", "adapter", "uncertainty"}
        wanted -= {"adapter"} if settings.get("segments") == ["source", "text"] else set()
        wanted -= {"visual_context"} if settings.get("route") else set()
        assert trained == wanted
    with pytest.raises(UsageError, match=r"stage_config\.settings"):
        stage_of(FlowStage, folders, settings={"rout": "frames"})


EDITOR = {"route": "channels", "copies": True, "editor": True, "words_only": True}
EDITS_ONLY = {"shares": {"v2v": 1.0}, "pictures": 0.0}


def test_the_gate_is_told_what_stays(folders, monkeypatch):
    stage = stage_of(
        FlowStage, folders, EDITS_ONLY, train=["editor"], settings=EDITOR, drop_source=0.0, clean_first=0.0
    )
    stage.model.decoder.prediction = "data"
    batch = stage.batch(0)
    alike = (batch["latents"] - batch["source"]).abs().amax(1, keepdim=True) < stage.config.alike
    assert 0 < alike.float().mean() < 1
    truth = torch.where(alike, 9.0, -9.0)
    monkeypatch.setattr(
        stage.model.decoder, "draw", lambda *_: Drawn(batch["latents"], truth, batch["latents"])
    )
    _, logs = stage.loss(batch)
    assert float(logs["copying"]) < 1e-3 and float(logs["copied_right"]) == 1 and float(logs["v2v"]) == 0
    monkeypatch.setattr(
        stage.model.decoder, "draw", lambda *_: Drawn(batch["latents"], -truth, batch["latents"])
    )
    _, logs = stage.loss(batch)
    assert float(logs["copying"]) > 5 and float(logs["copied_right"]) == 0


def test_what_changes_weighs_more_than_what_stays(folders, monkeypatch):
    stage = stage_of(
        FlowStage,
        folders,
        EDITS_ONLY,
        train=["editor"],
        settings=EDITOR,
        drop_source=0.0,
        clean_first=0.0,
        kept=0.0,
    )
    stage.model.decoder.prediction = "data"
    batch = stage.batch(0)
    alike = (batch["latents"] - batch["source"]).abs().amax(1, keepdim=True) < stage.config.alike
    wrong = batch["latents"] + alike.float()
    monkeypatch.setattr(stage.model.decoder, "draw", lambda *_: Drawn(wrong))
    assert float(stage.loss(batch)[1]["v2v"]) == 0
    monkeypatch.setattr(stage.model.decoder, "draw", lambda *_: Drawn(batch["latents"] + (~alike).float()))
    changed = (~alike).flatten(1).any(1).float().mean()
    assert float(stage.loss(batch)[1]["v2v"]) == pytest.approx(float(changed), abs=1e-4)


def test_the_editor_alone_learns_and_only_where_it_is_told(folders, tmp_path):
    stage = stage_of(
        FlowStage,
        folders,
        EDITS_ONLY,
        train=["adapter", "editor"],
        settings=EDITOR,
        tensors=["adapter.*", "editor.blocks.*", "editor.proj_out.*"],
        low_rank={"editor.blocks.*.attn?.to_?": 2},
        drop_visual=0.0,
    )
    loss, _ = stage.loss(stage.batch(0))
    loss.backward()
    learnt = {name for name, each in stage.module.named_parameters() if each.grad is not None}
    assert any(name.startswith("adapter.") for name in learnt)
    assert "editor.blocks.0.attn1.to_q.up" in learnt and "editor.blocks.0.attn1.to_q.weight" not in learnt
    assert "editor.blocks.0.ffn.net.2.weight" in learnt
    assert "editor.proj_out.weight" in learnt and "editor.patch_embedding.weight" not in learnt
    assert all(each.grad is None for each in stage.model.transformer.parameters())
    stage.export(tmp_path / "export")
    model = unireel.load(tmp_path / "export")
    assert model.settings.editor and not any(".up" in name for name in model.editor.state_dict())
    assert any(".up" in name for name in stage.model.editor.state_dict()), "training goes on with factors"
    with pytest.raises(UsageError, match="no trained part has parameters like 'nothing"):
        stage_of(FlowStage, folders, tensors=["nothing.*"])


def test_ranks_of_several_trainings_do_not_add_up(folders, tmp_path):
    options = {
        "train": ["editor"],
        "tensors": ["editor.blocks.*"],
        "low_rank": {"editor.blocks.*": 2},
    }
    first = stage_of(FlowStage, folders, EDITS_ONLY, settings=EDITOR, **options)
    with torch.no_grad():
        for name, each in first.module.named_parameters():
            if name.endswith(".up"):
                each.normal_()
    first.export(tmp_path / "one")
    start = {**options, "start_from": str(tmp_path / "one")}
    again = stage_of(FlowStage, folders, EDITS_ONLY, low_rank_of={"editor": "transformer"}, **start)
    added = stage_of(FlowStage, folders, EDITS_ONLY, **start)
    name = "blocks.0.attn1.to_q"
    base = again.model.transformer.get_submodule(name).weight
    one, two, three = (each.module["editor"].get_submodule(name) for each in (first, again, added))
    assert torch.equal(two.weight, base) and not torch.allclose(three.weight, base)
    torch.testing.assert_close(two.whole(), one.whole(), rtol=0.02, atol=0.02)  # it was written in bfloat16


def test_a_part_of_another_training_takes_the_place_of_the_model_s(folders, tmp_path):
    other = stage_of(FlowStage, folders, EDITS_ONLY, settings=EDITOR)
    with torch.no_grad():
        other.model.editor.proj_out.bias.add_(1.0)
    other.export(tmp_path / "other")
    parts = {"editor": str(tmp_path / "other")}
    stage = stage_of(FlowStage, folders, EDITS_ONLY, settings=EDITOR, parts=parts)
    difference = stage.model.editor.proj_out.bias - stage.model.transformer.proj_out.bias.mean()
    assert difference.mean() > 0.5
    with pytest.raises(UsageError, match=r"stage_config\.parts: editor: the model or '.*' has no such part"):
        stage_of(FlowStage, folders, EDITS_ONLY, parts=parts)


def test_films_from_words_have_no_visual_tokens_if_words_are_all(folders):
    mixture = {"shares": {"t2v": 1.0, "v2v": 1.0}, "pictures": 0.0}
    stage = stage_of(FlowStage, folders, mixture, settings={"words_only": True}, drop_visual=0.0)
    batch = stage.batch(0)
    assert torch.equal(batch["visual"], batch["edits"]) and 0 < batch["edits"].float().mean() < 1


def test_alignment_is_the_error_against_stretched_states(folders):
    states = torch.tensor([[0.0, 3.0], [2.0, 5.0]])
    torch.testing.assert_close(stretched(states, 3), torch.tensor([[0.0, 3.0], [1.0, 4.0], [2.0, 5.0]]))
    stage = stage_of(AlignmentStage, folders)
    optimizer = torch.optim.Adam(stage.module.parameters(), 3e-3)
    batch = stage.batch(0)
    losses = []
    for _ in range(25):
        loss, _ = stage.loss(batch)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        losses.append(float(loss.detach()))
    assert losses[-1] < 0.6 * losses[0]
    assert all(each.grad is None for each in stage.model.vision_head.parameters())


def test_the_paper_trains_heads_only(folders):
    stage = stage_of(HeadsStage, folders)
    stage.loss(stage.batch(0))[0].backward()
    trained = {name for name, each in stage.model.vlm.named_parameters() if each.grad is not None}
    assert trained == {"lm_head.weight"}


def test_routing_is_learned_and_exported(folders, tmp_path):
    """Films are asked about, edited and made; after some steps the model says what each request is."""
    mixture = {"films": str(folders["films"]), "film_count": 8, "edit_count": 8, "batch_size": 8, "picture_batch": 8,
               "pictures": 0.0, "shares": {"question": 1.0, "v2v": 1.0, "t2v": 1.0}}  # fmt: skip
    recipe = Recipe(
        stage="unireel.systems.omnivideo.stages:HeadsStage",
        stage_config={
            "start_from": str(folders["model"]),
            "train": "language",
            "vision": 0.1,
            "mixture": mixture,
        },
        output=tmp_path / "run",
        steps=200,
        precision="fp32",
        optimizer=OptimizerConfig(lr=5e-3),
        schedule=ScheduleConfig(warmup=5),
        tensorboard=False,
        log_every=40,
    )
    assert run(recipe)
    lines = (tmp_path / "run" / "metrics.jsonl").read_text().splitlines()
    assert len(lines) == 5
    model = unireel.load(tmp_path / "run" / "export")
    stage = stage_of(HeadsStage, folders, {"pictures": 0.0, "shares": mixture["shares"], "batch_size": 8})
    for sample in stage.mixture.batch(70):
        reply = model.mllm.reply(Request(sample.text, sample.source))
        assert (reply.makes is None) == (sample.task == "question"), sample.text


@pytest.mark.parametrize("path", RECIPES, ids=lambda path: path.stem)
def test_recipes_are_whole(path):
    recipe = load_recipe(path)
    kind = stage_class(recipe)
    from_dict(kind.config_class, recipe.stage_config)
    assert recipe.steps > 0
