"""The mixture of transformers against Qwen3 (which is Qwen2 with norms on queries and keys) and a float64 loop."""

# Modules of torch and of the model libraries are typed too loosely for these rules.
# pyright: reportOptionalMemberAccess=false

import pytest
import torch
from bagel_parts import tiny_bagel
from transformers import DynamicCache, Qwen3Config, Qwen3ForCausalLM

from unireel.backbones.bagel import PARAMETERS, BagelModel, bagel_7b_config
from unireel.backbones.mot import GENERATION, Routing
from unireel.backbones.packing import (
    VAE,
    TextSegment,
    VaeSegment,
    VitSegment,
    attention_mask,
    block_mask,
    pack,
)


@pytest.fixture(scope="module")
def bagel():
    return tiny_bagel()


def mixed(config):
    torch.manual_seed(1)
    text = TextSegment([0, 5, 6, 7, 1])
    vit, vae = VitSegment(torch.rand(3, 8, 12)), VaeSegment(torch.randn(4, 4, 6))
    noised = VaeSegment(torch.randn(4, 4, 4), time=0.3)
    return pack([[[vae, vit, text, noised]], [[text, vit, text]]], config.geometry)


def test_parameters_of_the_published_model():
    with torch.device("meta"):
        model = BagelModel(bagel_7b_config())
    count = lambda module: sum(each.numel() for each in module.parameters())  # noqa: E731
    assert count(model) == PARAMETERS == 14_607_260_128
    assert count(model.language_model) == 14_141_252_608
    assert count(model.vit_model) == 402_552_736
    assert count(model.connector) == 16_980_992


@torch.no_grad()
@pytest.mark.parametrize("expert", ["", GENERATION])
def test_each_expert_is_a_qwen(bagel, expert):
    config = bagel.config.text_config
    peer = Qwen3ForCausalLM(
        Qwen3Config(
            vocab_size=config.vocab_size,
            hidden_size=config.hidden_size,
            intermediate_size=config.intermediate_size,
            num_hidden_layers=config.num_hidden_layers,
            num_attention_heads=config.num_attention_heads,
            num_key_value_heads=config.num_key_value_heads,
            head_dim=8,
            rms_norm_eps=config.rms_norm_eps,
            rope_parameters=config.rope_parameters,
            attention_bias=True,  # also on the output, where it is zero
            tie_word_embeddings=False,
        )
    ).eval()
    weights = {}
    for name, value in bagel.language_model.state_dict().items():
        if (GENERATION in name) == bool(expert) or not any(each in name for each in ("layers", "model.norm")):
            weights[name.replace(GENERATION, "")] = value
    absent, unexpected = peer.load_state_dict(weights, strict=False)
    assert not unexpected
    assert all(name.endswith("o_proj.bias") for name in absent)
    for name in absent:
        peer.get_parameter(name).zero_()
    ids = torch.randint(0, config.vocab_size, (2, 9))
    positions = torch.arange(9).expand(2, -1)
    causal = torch.ones(9, 9, dtype=torch.bool).tril()[None, None]
    routed = torch.full((2, 9), bool(expert))
    states = bagel.language_model.model(bagel.get_input_embeddings()(ids), positions, causal, routed)
    assert torch.allclose(bagel.logits(states), peer(ids).logits, atol=1e-4)


@torch.no_grad()
def test_experts_share_one_attention(bagel):
    """One layer in float64, token by token, as the paper describes it."""
    model = tiny_bagel().double()
    packed = mixed(model.config).to("cpu", torch.float64)
    layer, config = model.language_model.model.layers[0], model.config.text_config
    states = model.embed(packed)
    mask = attention_mask(packed)
    rotation = model.language_model.model.rotary_emb(states, packed.positions)
    own = layer(states, rotation, mask, Routing.of(packed.kinds == VAE), None)
    weights = dict(layer.named_parameters())

    def norm(x, weight):
        return x / (x.square().mean() + config.rms_norm_eps).sqrt() * weight

    def turn(x, position):
        half = len(x) // 2
        angles = position * 1e6 ** -(torch.arange(half, dtype=torch.float64) / half)
        one, two = x[:half], x[half:]
        return torch.cat([one * angles.cos() - two * angles.sin(), two * angles.cos() + one * angles.sin()])

    for row in range(len(states)):
        count = int((packed.kinds[row] >= 0).sum())
        suffix = [GENERATION if packed.kinds[row, i] == VAE else "" for i in range(count)]

        def project(i, name, x, suffix=suffix):
            bias = weights.get(f"self_attn.{name}{suffix[i]}.bias", 0)
            return weights[f"self_attn.{name}{suffix[i]}.weight"] @ x + bias

        queries, keys, values = [], [], []
        for i in range(count):
            x = norm(states[row, i], weights[f"input_layernorm{suffix[i]}.weight"])
            position = packed.positions[row, i].double()
            for kept, name, normed in ((queries, "q_proj", "q_norm"), (keys, "k_proj", "k_norm")):
                heads = project(i, name, x).view(-1, 8)
                weight = weights[f"self_attn.{normed}{suffix[i]}.weight"]
                kept.append([turn(norm(head, weight), position) for head in heads])
            values.append(project(i, "v_proj", x).view(-1, 8))
        for i in range(count):
            seen = [j for j in range(count) if mask[row, 0, i, j]]
            heads = []
            for head in range(6):
                group = head // 3
                scores = torch.stack([queries[i][head] @ keys[j][group] for j in seen]) / 8**0.5
                heads.append(sum(p * values[j][group] for p, j in zip(scores.softmax(0), seen, strict=True)))
            x = states[row, i] + project(i, "o_proj", torch.cat(heads))
            inner = norm(x, weights[f"post_attention_layernorm{suffix[i]}.weight"])
            gate, up, down = (
                weights[f"mlp{suffix[i]}.{name}_proj.weight"] for name in ("gate", "up", "down")
            )
            x = x + down @ (torch.nn.functional.silu(gate @ inner) * (up @ inner))
            # Cosines and sines are those of the library, which computes angles in float32.
            assert torch.allclose(own[row, i], x, atol=1e-4), (row, i)


@torch.no_grad()
def test_flex_attention_is_the_same(bagel):
    packed = mixed(bagel.config)
    states, generation = bagel.embed(packed), packed.kinds == VAE
    real = packed.kinds >= 0
    with torch.compiler.set_stance("force_eager"):
        flex = bagel.language_model.model(states, packed.positions, block_mask(packed), generation)
    dense = bagel.language_model.model(states, packed.positions, attention_mask(packed), generation)
    assert torch.allclose(flex[real], dense[real], atol=1e-4)


@torch.no_grad()
def test_cached_steps_are_the_whole(bagel):
    text = TextSegment([0, 5, 6, 7, 8, 9, 1])
    start = [VitSegment(torch.rand(3, 8, 12)), VaeSegment(torch.randn(4, 4, 6))]
    whole = pack([[[*start, text]]], bagel.config.geometry)
    states = bagel(whole)
    cache = DynamicCache()
    first = pack([[[*start, TextSegment(text.ids[:2])]]], bagel.config.geometry)
    assert torch.allclose(bagel(first, cache), states[:, : first.ids.shape[1]], atol=1e-5)
    for place in range(first.ids.shape[1], whole.ids.shape[1]):
        seen = torch.ones(1, place + 1, dtype=torch.bool)
        now = slice(place, place + 1)
        step = bagel.extend(whole.ids[:, now], whole.positions[:, now], seen, cache)
        assert torch.allclose(step, states[:, now], atol=1e-5)


@torch.no_grad()
def test_a_noised_block_is_seen_by_nobody_else(bagel):
    text, other = TextSegment([0, 5, 6, 1]), TextSegment([0, 7, 1])
    latent = torch.randn(4, 4, 6)
    with_noise = pack([[[text, VaeSegment(latent, time=0.7), other]]], bagel.config.geometry)
    without = pack([[[text, other]]], bagel.config.geometry)
    outside = ~with_noise.noised[0]
    assert torch.allclose(bagel(with_noise)[0, outside], bagel(without)[0], atol=1e-5)
    velocity = bagel.velocity(bagel(with_noise), with_noise)
    assert velocity.shape == with_noise.latents.shape
    changed = pack(
        [[[TextSegment([0, 9, 9, 1]), VaeSegment(latent, time=0.7), other]]], bagel.config.geometry
    )
    assert not torch.allclose(bagel.velocity(bagel(changed), changed), velocity, atol=1e-3)


def test_gradients_reach_every_expert_and_the_vit():
    bagel = tiny_bagel().train()
    packed = mixed(bagel.config)

    def gradients():
        bagel.zero_grad()
        states = bagel(packed)
        (
            states[packed.kinds >= 0].square().mean() + bagel.velocity(states, packed).square().mean()
        ).backward()
        return {name: each.grad for name, each in bagel.named_parameters() if each.grad is not None}

    plain = gradients()
    bagel.gradient_checkpointing_enable()
    assert bagel.language_model.model.layers[0].gradient_checkpointing
    saved = gradients()
    assert all(torch.allclose(saved[name], each, atol=1e-5) for name, each in plain.items())
    silent = [
        name
        for name, each in bagel.named_parameters()
        if each.requires_grad and (each.grad is None or not each.grad.abs().sum() > 0)
    ]
    assert silent == ["language_model.lm_head.weight"]
