"""UniVid's connector: layout, budgets, time, masks; how its tokens meet the decoder's text; the released projector."""

# Modules of torch and of the model libraries are typed too loosely for these rules.
# pyright: reportArgumentType=false, reportAttributeAccessIssue=false, reportOptionalMemberAccess=false

import pytest
import torch
from diffusers import WanTransformer3DModel
from hypothesis import given, settings
from hypothesis import strategies as st
from safetensors.torch import save_file
from torch import nn

from unireel.backbones.understanding import Features, Kind, PocketUnderstanding
from unireel.errors import UsageError, UserError
from unireel.systems.univid.connector import Connector, Mix, pool
from unireel.systems.univid.context import Condition, ContextCombiner, TimedContext, encode_branches
from unireel.systems.univid.released import RELEASED_PARAMETERS, ReleasedProjector, load_released_projector


def features(*counts: tuple[int, int, int], width: int = 12, seed: int = 0) -> Features:
    """Random Z_u with so many ViT, VAE and text states in each row."""
    generator = torch.Generator().manual_seed(seed)
    rows = []
    for vit, vae, text in counts:
        kinds = torch.tensor([Kind.VIT] * vit + [Kind.VAE] * vae + [Kind.TEXT] * text)
        rows.append((torch.randn(len(kinds), width, generator=generator), kinds))
    return Features.of(rows)


def awake(connector: Connector) -> Connector:
    """The connector with its gates open, as after training."""
    torch.manual_seed(3)
    for block in connector.blocks:
        nn.init.normal_(block.modulation.weight, std=0.3)
    return connector.eval()


@pytest.fixture(scope="module")
def connector():
    torch.manual_seed(0)
    return awake(
        Connector(12, 20, hidden=16, layers=2, vit_tokens=4, vae_tokens=3, text_tokens=6, latent_width=5)
    )


HALF = torch.tensor([0.5])


@torch.no_grad()
def test_tokens_follow_what_there_is(connector):
    conditions = connector(features((3, 2, 5), (9, 9, 9), (0, 0, 2)), torch.tensor([0.1, 0.5, 0.9]))
    assert conditions.mask.sum(1).tolist() == [10, 4 + 3 + 6, 2]
    assert conditions.tokens.shape == (3, 13, 20)
    assert (conditions.tokens[~conditions.mask] == 0).all()
    assert (conditions.tokens[conditions.mask].abs().sum(-1) > 0).all()


@settings(max_examples=25)
@given(
    counts=st.lists(st.integers(0, 11), min_size=1, max_size=3),
    budget=st.integers(1, 7),
    seed=st.integers(0, 99),
)
def test_pooling_is_the_mean_of_neighbours(counts, budget, seed):
    generator = torch.Generator().manual_seed(seed)
    states = torch.randn(len(counts), 12, 2, generator=generator)
    mask = torch.zeros(len(counts), 12, dtype=torch.bool)
    for row, count in enumerate(counts):
        mask[row, torch.randperm(12, generator=generator)[:count]] = True
    tokens, inside = pool(states, mask, budget)
    for row, count in enumerate(counts):
        kept, size = states[row][mask[row]], min(count, budget)
        groups = [[kept[n] for n in range(count) if n * size // count == m] for m in range(size)]
        assert int(inside[row].sum()) == size
        for number, group in enumerate(groups):
            assert torch.allclose(tokens[row, number], torch.stack(group).mean(0), atol=1e-5)
        assert (tokens[row, size:] == 0).all()


@torch.no_grad()
def test_padding_and_neighbours_in_the_batch_change_nothing(connector):
    short, long = features((2, 1, 3)), features((2, 1, 3), (9, 2, 9))
    alone, together = connector(short, HALF), connector(long, HALF.expand(2))
    assert torch.allclose(together.tokens[0, :6], alone.tokens[0], atol=1e-5)
    # Whatever stands in the padding is not read.
    long.states[0, 6:] = 1e3
    assert torch.allclose(connector(long, HALF.expand(2)).tokens[0, :6], alone.tokens[0], atol=1e-5)


@torch.no_grad()
def test_time_counts_and_each_sample_has_its_own(connector):
    twice = features((2, 1, 3), (2, 1, 3))
    twice.states[1] = twice.states[0]
    early, late = connector(twice, torch.tensor([1.0, 0.1])).tokens
    assert not torch.allclose(early, late, atol=1e-3)
    fresh = Connector(12, 20, hidden=16).eval()
    early, late = fresh(twice, torch.tensor([1.0, 0.1])).tokens
    assert torch.equal(early, late)  # gates start closed


@torch.no_grad()
def test_tokens_depend_on_all_of_their_surroundings(connector):
    given = features((2, 1, 3))
    before = connector(given, HALF).tokens[0]
    for place in range(6):
        changed = Features(given.states.clone(), given.kinds)
        changed.states[0, place] += torch.randn(12, generator=torch.Generator().manual_seed(place))
        difference = (connector(changed, HALF).tokens[0] - before).abs().amax(-1)
        assert difference[place] > 1e-3
        reach = torch.arange(6).sub(place).abs() <= 4  # two layers of five
        assert (difference[reach] > 1e-6).all()
        assert (difference[~reach] == 0).all()


@torch.no_grad()
def test_shares_of_vit_and_vae(connector):
    given = features((2, 2, 3))
    none = connector(given, HALF, mix=Mix(vae=0.0))
    assert none.mask.sum() == 5
    without = features((2, 0, 3))
    without.states[:] = torch.cat([given.states[:, :2], given.states[:, 4:]], dim=1)
    assert torch.allclose(none.tokens, connector(without, HALF).tokens, atol=1e-5)
    sizes = []
    for share in (1.0, 0.5, 0.01):
        tokens = connector(given, HALF, mix=Mix(vae=share)).tokens[0]
        sizes.append(tokens[2:4].norm() / tokens[[0, 1, 4, 5, 6]].norm())
    assert 0.3 < sizes[1] / sizes[0] < 0.7
    assert sizes[2] < 0.03 * sizes[0]
    with pytest.raises(ValueError, match=r"lie in"):
        Mix(vit=1.5)


@torch.no_grad()
def test_latents_become_the_vae_block(connector):
    latents = torch.randn(1, 2, 5)
    conditions = connector(features((2, 0, 3)), HALF, latents)
    assert conditions.mask.sum() == 7
    moved = connector(features((2, 0, 3)), HALF, latents + 1).tokens
    assert not torch.allclose(moved, conditions.tokens, atol=1e-3)
    with pytest.raises(ValueError, match=r"takes no latents"):
        Connector(12, 20, hidden=16)(features((1, 0, 1)), HALF, latents)


def test_gradients_reach_everything(connector):
    connector.zero_grad()
    given = features((5, 2, 8))
    given.states.requires_grad_()
    connector(given, HALF, torch.randn(1, 2, 5)).tokens.square().sum().backward()
    assert all(each.grad is not None and each.grad.abs().sum() > 0 for each in connector.parameters())
    assert (given.states.grad.abs().sum(-1) > 0).all()


@torch.no_grad()
def test_an_ordinary_folder_keeps_it(connector, tmp_path):
    connector.save_pretrained(tmp_path)
    again = Connector.from_pretrained(tmp_path).eval()
    assert all(torch.equal(each, again.state_dict()[name]) for name, each in connector.state_dict().items())
    given = features((5, 2, 8))
    assert torch.allclose(again(given, HALF).tokens, connector(given, HALF).tokens, atol=1e-6)


def wan() -> WanTransformer3DModel:
    torch.manual_seed(0)
    return WanTransformer3DModel(
        num_attention_heads=2, attention_head_dim=12, in_channels=4, out_channels=4, text_dim=20,
        freq_dim=16, ffn_dim=32, num_layers=2,
    ).eval()  # fmt: skip


@torch.no_grad()
def test_combinations(connector):
    given, text = features((2, 1, 3), (0, 0, 2)), torch.randn(2, 7, 20)
    mask = torch.tensor([[1, 1, 1, 1, 1, 0, 0], [1, 1, 1, 0, 0, 0, 0]])
    conditions = connector(given, HALF.expand(2))
    replaced = ContextCombiner("replace", 16)(conditions, None, None)
    assert torch.equal(replaced[:, :6], conditions.tokens)
    assert (replaced[:, 6:] == 0).all()
    joined = ContextCombiner("concatenate", 16)(conditions, text, mask)
    assert torch.equal(joined[0, :5], text[0, :5])
    assert torch.equal(joined[0, 5:11], conditions.tokens[0])
    assert torch.equal(joined[1, 3:5], conditions.tokens[1, :2])
    assert (joined[1, 5:] == 0).all()
    with pytest.raises(UserError, match=r"longer than the context: with its images it needs 11 tokens of 10"):
        ContextCombiner("concatenate", 10)(conditions, text, mask)
    with pytest.raises(ValueError, match=r"to gate needs"):
        ContextCombiner("gate", 10)(conditions, None, None)


@torch.no_grad()
def test_a_closed_gate_is_the_decoder_alone(connector):
    model, text = wan(), torch.randn(1, 7, 20)
    combiner = ContextCombiner("gate", 16)
    context = combiner(connector(features((2, 1, 3)), HALF), text, torch.ones(1, 7))
    latents, time = torch.randn(1, 4, 2, 4, 4), torch.tensor([500.0])
    padded = nn.functional.pad(text, (0, 0, 0, 9))
    alone = model(latents, time, padded, return_dict=False)[0]
    assert torch.equal(model(latents, time, context, return_dict=False)[0], alone)
    combiner.gate.fill_(0.5)
    context = combiner(connector(features((2, 1, 3)), HALF), text, torch.ones(1, 7))
    assert not torch.allclose(model(latents, time, context, return_dict=False)[0], alone, atol=1e-4)


@torch.no_grad()
def test_branches_have_contexts_of_their_own(connector):
    combiner = ContextCombiner("replace", 16)
    wanted, avoided = (
        TimedContext(connector, combiner, Condition(each))
        for each in (features((2, 1, 3)), features((0, 0, 5), seed=9))
    )
    now, later = torch.tensor(0.9), torch.tensor(0.1)
    assert not torch.allclose(wanted(now), wanted(later), atol=1e-3)
    assert not torch.allclose(wanted(now), avoided(now), atol=1e-3)
    assert torch.equal(avoided(now)[0, :5], connector(features((0, 0, 5), seed=9), now[None]).tokens[0])


def test_the_whole_path_from_words_to_the_decoder(untrained):
    """Two branches through the pocket model's own parts; gradients come back to the understanding model."""
    import unireel

    model = unireel.load(untrained)
    understanding = PocketUnderstanding(model.vlm, model.tokenizer)
    wanted, avoided = encode_branches(understanding, ["a red star jumps twice"], [""])
    assert wanted.states.shape[2] == understanding.width
    own = Connector(understanding.width, 32, hidden=16)
    context = TimedContext(own, ContextCombiner("replace", 50), Condition(wanted))(torch.tensor(0.5))
    other = TimedContext(own, ContextCombiner("replace", 50), Condition(avoided))(torch.tensor(0.5))
    assert not torch.allclose(context, other, atol=1e-3)
    config = model.transformer.config
    latents = torch.randn(1, config["in_channels"], 2, 4, 4)
    model.transformer(latents, torch.tensor([500.0]), context, return_dict=False)[
        0
    ].square().mean().backward()
    assert model.vlm.model.language_model.embed_tokens.weight.grad.abs().sum() > 0
    assert own.read.weight.grad.abs().sum() > 0
    with pytest.raises(UsageError, match="1 prompts need as many"):
        encode_branches(understanding, ["a red star"], [])


def test_the_released_projector_is_read(tmp_path):
    with torch.device("meta"):
        whole = ReleasedProjector()
    assert sum(each.numel() for each in whole.parameters()) == RELEASED_PARAMETERS
    names = [
        f"bagel_to_t5_projector.{number}.{what}" for number in (0, 1, 4, 5) for what in ("weight", "bias")
    ]
    assert list(whole.state_dict()) == names
    torch.manual_seed(0)
    small = ReleasedProjector(12, 24, 20, length=7).eval()
    torch.save({"context_projector": small.state_dict(), "step": 3}, tmp_path / "training_state.pt")
    save_file(small.state_dict(), tmp_path / "projector.safetensors")
    given = features((2, 0, 3), (0, 0, 2))
    for name in ("training_state.pt", "projector.safetensors"):
        again = load_released_projector(tmp_path / name)
        again.length = 7
        assert torch.equal(again(given).tokens, small(given).tokens)
    # Each row is stretched by itself: linear interpolation between the centres of its tokens.
    row = small.bagel_to_t5_projector(given.states[1, :2])
    for number in range(7):
        place = min(max((number + 0.5) * 2 / 7 - 0.5, 0), 1)
        assert torch.allclose(
            small(given).tokens[1, number], (1 - place) * row[0] + place * row[1], atol=1e-5
        )


def test_other_files_are_no_projector(tmp_path):
    torch.save({"optimizer": {"lr": 1.0}}, tmp_path / "other.pt")
    with pytest.raises(UserError, match=r"holds no 'context_projector'"):
        load_released_projector(tmp_path / "other.pt")
    (tmp_path / "broken.pt").write_bytes(b"no weights")
    with pytest.raises(UserError, match=r"cannot be read as weights"):
        load_released_projector(tmp_path / "broken.pt")
    torch.save(
        {"context_projector": {"bagel_to_t5_projector.0.weight": torch.zeros(2, 2)}}, tmp_path / "part.pt"
    )
    with pytest.raises(UserError, match=r"lacks"):
        load_released_projector(tmp_path / "part.pt")
    with pytest.raises(UserError, match=r"there is no file"):
        load_released_projector(tmp_path / "absent.pt")


def test_a_pickle_that_runs_code_is_refused(tmp_path):
    import pickle

    class Trap:
        def __reduce__(self):
            return print, ("sprung",)

    (tmp_path / "trap.pt").write_bytes(pickle.dumps({"context_projector": Trap()}))
    with pytest.raises(UserError, match=r"cannot be read as weights"):
        load_released_projector(tmp_path / "trap.pt")


def test_the_flow_time_may_have_few_channels():
    few, many = Connector(12, 20, hidden=16, layers=2, time_width=4), Connector(12, 20, hidden=16, layers=2)
    assert few.blocks[0].modulation.weight.shape == (48, 4) and many.blocks[0].modulation.weight.shape == (
        48,
        16,
    )
    with torch.no_grad():
        for block in few.blocks:
            nn.init.normal_(block.modulation.weight)
        one, two = (few(features((1, 0, 1)), torch.tensor([time])).tokens for time in (0.2, 0.8))
    assert (one - two).abs().max() > 1e-3
