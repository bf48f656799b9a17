"""Where words look at a film: the model's own attention, whom the World says they mean, and that it is learned."""

# Modules of torch and of the model libraries are typed too loosely for these rules.
# pyright: reportArgumentType=false, reportAttributeAccessIssue=false, reportOptionalMemberAccess=false

from collections.abc import Callable
from math import log

import pytest
import torch

from unireel.backbones.uni_rows import Film, Words
from unireel.data.cache import CacheConfig, build, epoch_order
from unireel.errors import UsageError
from unireel.systems.base.stages.grounding import looked_elsewhere, meant
from unireel.systems.univigu.lessons import Mix
from unireel.systems.univigu.stages import UniConfig, UniStage
from unireel.world.scene import SHAPES

ABOUT = Mix(
    target="caption", questions=0.5, each=3, condition_dropout=1, understand=1, pair=0, film=0, text=0
)


@pytest.fixture(scope="module")
def make_stage(untrained, tmp_path_factory) -> Callable[..., UniStage]:
    films = tmp_path_factory.mktemp("films")
    build(films, CacheConfig(8), progress=False)
    sizes = {"film_count": 8, "used_films": 8, "batch_size": 8}

    def make(**settings) -> UniStage:
        torch.manual_seed(0)
        of_text = {"looking": 1.0, "train": "text", "mix": ABOUT}
        return UniStage(UniConfig(base=str(untrained), films=str(films), **sizes, **of_text, **settings))

    return make


@pytest.fixture(scope="module")
def stage(make_stage) -> UniStage:
    return make_stage(looking_blocks=(0,))


@torch.no_grad()
def test_looks_are_what_the_blocks_attention_computes(make):
    model = make(11)
    clean = Film(torch.randn(2, 4, 3, 4, 4), torch.zeros(2), torch.ones(2, dtype=torch.bool))
    context = torch.randn(2, 5, 24)
    memory = model.streams(context, clean, remember=True).memory
    open_words = Words(
        torch.randint(11, (2, 6)),
        torch.full((2, 6), 600.0),
        torch.ones(2, 6, dtype=torch.bool),
        torch.zeros(2, 6, dtype=torch.bool),
    )
    block = model.blocks[1]
    read = []
    hook = block.attn1.to_out[0].register_forward_hook(lambda module, args, output: read.append(args[0]))
    watched = model.streams(context, None, open_words, memory, watch=(1,)).watched
    hook.remove()
    keys, values = memory.blocks[1]
    weights = block.looks(watched[0], keys).softmax(-1)
    normed = block.norm1(watched[0].states)
    shift, scale = (block.scale_shift_table_t[:, None] + watched[0].modulation)[:, :, :2].unbind(2)
    own = block.attn1.to_v(normed * (1 + scale) + shift).unflatten(2, (values.shape[2], -1))
    expected = torch.einsum("bhlm,bmhd->blhd", weights, torch.cat([values, own], 1)).flatten(2)
    assert torch.allclose(read[0], expected, atol=1e-5)


def test_looking_at_all_that_is_meant_alike_costs_nothing():
    wanted = torch.tensor([[True, True, False, False], [False, False, False, True], [False] * 4])
    logits = torch.where(wanted, 0.0, -50.0)
    assert torch.allclose(looked_elsewhere(logits, wanted)[:2], torch.zeros(2), atol=1e-6)
    even = looked_elsewhere(torch.zeros(3, 4), wanted)
    assert torch.allclose(even, torch.tensor([log(2), log(4), 0.0]))


def test_a_name_means_its_objects_at_its_time():
    owner = torch.tensor([[[0, -1], [1, 0], [1, -1]]])  # one film, three latent frames of two tokens
    at_any_time, at_the_start, at_the_end = 1 << 1, 1 << 4, 1 << 9
    for mask, wanted in (
        (at_any_time, [0, 0, 1, 0, 1, 0]),
        (at_any_time | 1, [1, 0, 1, 1, 1, 0]),
        (at_the_start, [1, 0, 0, 0, 0, 0]),
        (at_the_end, [0, 0, 0, 0, 1, 0]),
        (0, [0] * 6),
    ):
        assert meant(owner, torch.tensor([mask])).int().tolist() == [wanted]


def test_words_are_told_to_look_at_the_object_that_their_clause_names(stage):
    seen = {"caption": 0, "question": 0}
    for index in range(4):
        batch = stage.batch(index)
        words = [stage.tokenizer.convert_ids_to_tokens(row.tolist()) for row in batch["words"]]
        films = [epoch_order(5, 8, index * 8 + i) for i in range(8)]  # the default data_seed
        for page, place, _, mask, caption, _ in batch["asked"].tolist():
            assert not batch["given"][page, place]
            objects = [each for each in range(4) if (mask | mask >> 4 | mask >> 8) >> each & 1]
            shapes = {
                SHAPES[stage.batches.lessons.shapes[films[batch["about"][page]], each]] for each in objects
            }
            text = words[page]
            if caption:
                start = max(i for i in range(place) if i == 0 or text[i] in (",", "."))
                end = next(i for i in range(place, len(text)) if text[i] in (",", "."))
                said = " ".join(text[start:end])
                assert "object" in said or all(shape in said for shape in shapes)
            else:
                assert text[place - 1] == "<answer>"
            seen["caption" if caption else "question"] += 1
    assert min(seen.values()) > 10


def test_words_learn_where_to_look(stage):
    transformer = stage.module["transformer"]
    trained = [each for each in transformer.parameters() if each.requires_grad]
    frozen = transformer.blocks[0].attn1.to_q.weight.clone()
    optimizer = torch.optim.AdamW(trained, 3e-3)
    torch.manual_seed(0)
    misses = []
    for index in range(40):
        loss, logs = stage.loss(stage.batch(index))
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        misses.append(float(logs["looks"]))
    assert sum(misses[-5:]) < 0.8 * sum(misses[:5])
    assert torch.equal(transformer.blocks[0].attn1.to_q.weight, frozen)


def test_a_block_that_the_model_does_not_have(make_stage):
    with pytest.raises(UsageError, match="looking_blocks: the model has blocks 0 to 0"):
        make_stage(looking_blocks=(0, 4))
