"""The DiT with two streams: against diffusers' own, against a loop over tokens in float64, row by row, by names."""

# Modules of torch and of the model libraries are typed too loosely for these rules.
# pyright: reportArgumentType=false, reportAttributeAccessIssue=false, reportIndexIssue=false
# pyright: reportOptionalMemberAccess=false, reportOptionalSubscript=false

import pytest
import torch
from diffusers import WanTransformer3DModel
from safetensors.torch import save_file

from unireel.backbones.uni_block import attend, turned
from unireel.backbones.uni_rows import Film, Words
from unireel.backbones.uni_wan import UniWanTransformer
from unireel.backbones.uni_wan_files import (
    from_released,
    load_released,
    released_transformer,
    with_narrower_text,
    with_text,
)
from unireel.backbones.wan import (
    COORDINATES,
    MatmulAttention,
    pocket_transformer,
    token_times,
    with_coordinates,
)
from unireel.errors import UserError

V, L, B = 11, 6, 2


def video_model() -> WanTransformer3DModel:
    torch.manual_seed(0)
    return pocket_transformer(48, 2, 2, 64, 4, 2, 24).eval()


def two_streams(**settings) -> UniWanTransformer:
    torch.manual_seed(1)
    model = with_text(video_model(), V, **({"text_mask": True, "text_slots": 16} | settings)).eval()
    # The head starts at zero and the film's halves are copied: noise tells everything apart.
    with torch.no_grad():
        for name, each in model.named_parameters():
            if name.startswith(("text", "slot")) or name.endswith("_t") or "ffn_t" in name:
                each.add_(0.3 * torch.randn_like(each))
    return model


def film(clean=(False, False), time=(300.0, 800.0)) -> Film:
    torch.manual_seed(2)
    latents = torch.randn(B, 4, 3, 4, 4)
    times = torch.where(torch.tensor(clean), torch.zeros(B), torch.tensor(time))
    return Film(latents, times, torch.tensor(clean))


def words(given: int = 0, length: int = L, padded: int = 0) -> Words:
    torch.manual_seed(3)
    state = torch.randint(V, (B, length))
    times = torch.full((B, length), 600.0)
    keep = torch.zeros(B, length, dtype=torch.bool)
    keep[:, :given] = True
    there = torch.ones(B, length, dtype=torch.bool)
    if padded:
        there[1, -padded:] = False
    return Words(state, torch.where(keep, 0.0, times), there, keep)


def part(each: Words, where: slice) -> Words:
    fields = (each.state, each.time, each.there, each.given)
    return Words(*(value[:, where] for value in fields), places=each.counted()[:, where])


def context() -> torch.Tensor:
    torch.manual_seed(4)
    return torch.randn(B, 5, 24)


@torch.no_grad()
@pytest.mark.parametrize("matmul", [False, True])
def test_without_text_it_is_diffusers_model_exactly(matmul):
    stock, model = video_model(), two_streams()
    if matmul:
        stock.set_attn_processor(MatmulAttention())
        model.set_attn_processor(MatmulAttention())
    latents = torch.randn(B, 4 + COORDINATES, 3, 4, 4)
    per_token = token_times(torch.tensor([0.3, 0.8]), torch.tensor([True, False]), 3, 4)
    for time in (torch.tensor([300.0, 800.0]), per_token):
        arguments = {"hidden_states": latents, "timestep": time, "encoder_hidden_states": context()}
        assert torch.equal(model(**arguments).sample, stock(**arguments).sample)


@torch.no_grad()
def test_the_film_stream_alone_is_diffusers_model():
    stock, model, rows = video_model(), two_streams(), film()
    per_token = token_times(rows.time / 1000, torch.tensor([True, False]), 3, 4)
    for time in (rows.time, per_token):
        seen = model.streams(context(), Film(rows.latents, time))
        wanted = stock(with_coordinates(rows.latents, 4 + COORDINATES), time, context()).sample
        assert torch.allclose(seen.video, wanted, atol=1e-5)


def test_video_weights_keep_diffusers_names_and_text_starts_from_them():
    stock = video_model()
    model = with_text(stock, V)
    own = model.state_dict()
    assert all(torch.equal(own[name], value) for name, value in stock.state_dict().items())
    assert torch.equal(own["blocks.1.ffn_t.net.0.proj.weight"], own["blocks.1.ffn.net.0.proj.weight"])
    assert torch.equal(own["text_time_proj.weight"], own["condition_embedder.time_proj.weight"])
    fresh = with_text(stock, V, text_init="new").state_dict()
    assert not torch.equal(fresh["blocks.1.ffn_t.net.0.proj.weight"], own["blocks.1.ffn.net.0.proj.weight"])
    shared = with_text(stock, V, text_ffn="shared")
    assert not any("ffn_t" in name for name in shared.state_dict())


@torch.no_grad()
def test_narrowed_text_keeps_the_units_that_weigh_most():
    model = two_streams()
    for block in model.blocks:  # half of the units do nothing
        block.ffn_t.net[2].weight[:, ::2] = 0
    units = model.config["ffn_dim"]
    narrow = with_narrower_text(model, units // 2).eval()
    one, two = (each.streams(context(), film(), words()) for each in (model, narrow))
    assert torch.allclose(one.text, two.text, atol=1e-5) and torch.allclose(one.video, two.video, atol=1e-5)
    assert narrow.blocks[0].ffn_t.net[0].proj.weight.shape[0] == units // 2
    assert with_text(video_model(), V, text_ffn_dim=8).blocks[1].ffn_t.net[2].weight.shape[1] == 8
    for wrong in (0, units + 1):
        with pytest.raises(UserError, match="can be narrowed to between 1 and that"):
            with_narrower_text(model, wrong)
    with pytest.raises(UserError, match="without feed-forward layers of its own cannot be narrowed"):
        with_narrower_text(with_text(video_model(), V, text_ffn="shared"), 8)


def test_saved_and_loaded_it_is_the_same(tmp_path):
    model = two_streams()
    model.save_pretrained(tmp_path)
    again = UniWanTransformer.from_pretrained(tmp_path).eval()
    with torch.no_grad():
        one, two = (each.streams(context(), film(), words()) for each in (model, again))
    assert torch.equal(one.video, two.video) and torch.equal(one.text, two.text)
    assert again.config["num_layers"] == 2 and len(again.blocks) == 2


@torch.no_grad()
@pytest.mark.parametrize("positions", ["apart", "released"])
@pytest.mark.parametrize("clean, given", [((False, False), 0), ((True, False), 2), ((False, True), 6)])
def test_both_streams_against_a_loop_over_tokens_in_float64(clean, given, positions):
    model = two_streams(positions=positions).double()
    rows, text = film(clean), words(given, padded=1 if given < L else 0)
    rows = Film(rows.latents.double(), rows.time, rows.clean)
    seen = model.streams(context().double(), rows, text)
    for row in range(B):
        video, logits = by_hand(model, rows, text, context().double()[row], row)
        assert torch.allclose(seen.video[row], video, atol=1e-5)
        there = text.there[row]
        assert torch.allclose(seen.text[row][there], logits[there], atol=1e-5)


def by_hand(model, rows, text, states, row):
    """One sample, token by token, from the equations, with rotations as products of complex numbers."""
    heads, d = model.config["num_attention_heads"], model.config["attention_head_dim"]
    grid = [(t, y, x) for t in range(3) for y in range(2) for x in range(2)]
    latents = with_coordinates(rows.latents, 4 + COORDINATES)[row]
    pixels = [latents[:, t, 2 * y : 2 * y + 2, 2 * x : 2 * x + 2].reshape(-1) for t, y, x in grid]
    kernel, bias = model.patch_embedding.weight.flatten(1), model.patch_embedding.bias
    tokens = [("film", kernel @ each + bias, place) for each, place in zip(pixels, grid, strict=True)]
    for i, word in enumerate(text.state[row]):
        tokens.append(("word", model.text_embedding.weight[word] + model.slot_embedding.weight[i], i))
    wide = 2 * (d // 6)
    axes = [d - 2 * wide, wide, wide]
    frequencies = [10_000.0 ** (-torch.arange(0, n, 2).double() / n) for n in axes]

    def turn(kind, place, vector):
        if kind == "word" and model.config["positions"] == "released":
            one, two = vector.view(heads, 2, d // 2).unbind(1)
            angle = place * 10_000.0 ** (-torch.arange(0, d, 2).double() / d)
            rotated = torch.complex(one, two) * torch.polar(torch.ones_like(angle), angle)
            return torch.cat([rotated.real, rotated.imag], -1)
        at = place if kind == "film" else (-1 - place,) * 3
        angle = torch.cat([p * f for p, f in zip(at, frequencies, strict=True)])
        rotated = torch.view_as_complex(vector.view(heads, d // 2, 2).contiguous()) * torch.polar(
            torch.ones_like(angle), angle
        )
        return torch.view_as_real(rotated).flatten(-2)

    def reads(i, j):
        film_clean, n = bool(rows.clean[row]), len(grid)
        if j >= n and not text.there[row, j - n]:
            return False
        if i < n:
            return j < n or not film_clean
        if text.given[row, i - n]:
            return film_clean if j < n else bool(text.given[row, j - n])
        return True

    def embedded(kind, i):
        time = rows.time[row] if kind == "film" else text.time[row, i]
        waves = model.condition_embedder.timesteps_proj(time[None]).double()
        embedder, projection = (
            (model.condition_embedder.time_embedder, model.condition_embedder.time_proj)
            if kind == "film"
            else (model.text_time_embedder, model.text_time_proj)
        )
        out = embedder(waves)[0]
        return out, projection(torch.nn.functional.silu(out)).view(6, -1)

    times = [embedded(kind, i if kind == "film" else i - len(grid)) for i, (kind, *_) in enumerate(tokens)]
    prompt = model.condition_embedder.text_embedder(states[None])
    hidden = [vector for _, vector, _ in tokens]
    plain = torch.nn.functional.layer_norm
    for block in model.blocks:
        knobs, queries, keys, values = [], [], [], []
        for (kind, _, place), vector, (_, own) in zip(tokens, hidden, times, strict=True):
            table = block.scale_shift_table if kind == "film" else block.scale_shift_table_t
            knob = (table[0] + own).unbind(0)
            knobs.append(knob)
            normed = plain(vector, vector.shape, eps=1e-6) * (1 + knob[1]) + knob[0]
            queries.append(turn(kind, place, block.attn1.norm_q(block.attn1.to_q(normed))))
            keys.append(turn(kind, place, block.attn1.norm_k(block.attn1.to_k(normed))))
            values.append(block.attn1.to_v(normed).view(heads, d))
        moved = []
        for i, vector in enumerate(hidden):
            seen = [j for j in range(len(hidden)) if reads(i, j)]
            scores = torch.stack([(queries[i] * keys[j]).sum(-1) for j in seen]) / d**0.5
            weights = scores.softmax(0)[..., None]
            read = (weights * torch.stack([values[j] for j in seen])).sum(0).flatten()
            vector = vector + block.attn1.to_out[0](read) * knobs[i][2]
            vector = vector + block.attn2(block.norm2(vector)[None, None], prompt)[0, 0]
            ffn = block.ffn if tokens[i][0] == "film" else block.ffn_t
            normed = plain(vector, vector.shape, eps=1e-6) * (1 + knobs[i][4]) + knobs[i][3]
            moved.append(vector + ffn(normed) * knobs[i][5])
        hidden = moved
    video, logits = torch.zeros_like(rows.latents[row]), []
    for (kind, _, place), vector, (time, _) in zip(tokens, hidden, times, strict=True):
        table = model.scale_shift_table if kind == "film" else model.text_table
        shift, scale = (table[0] + time).unbind(0)
        if kind == "film":
            t, y, x = place
            out = model.proj_out(plain(vector, vector.shape, eps=1e-6) * (1 + scale) + shift)
            video[:, t, 2 * y : 2 * y + 2, 2 * x : 2 * x + 2] = out.view(2, 2, -1).permute(2, 0, 1)
        else:
            normed = plain(vector, vector.shape, eps=1e-5) * model.text_norm.weight
            logits.append(model.text_head(normed * (1 + scale) + shift))
    return video, torch.stack(logits)


@torch.no_grad()
def test_each_streams_feed_forward_sees_its_own_rows_only():
    model, rows = two_streams(), {}
    for name in ("ffn", "ffn_t"):
        getattr(model.blocks[0], name).register_forward_pre_hook(
            lambda module, inputs, name=name: rows.__setitem__(name, inputs[0].shape[1])
        )
    model.streams(context(), film(), words())
    assert rows == {"ffn": 12, "ffn_t": L}
    memory = model.streams(context(), film((True, True)), remember=True).memory
    rows.clear()
    queries = []
    model.blocks[0].attn1.to_q.register_forward_pre_hook(lambda _, inputs: queries.append(inputs[0].shape[1]))
    model.streams(context(), words=words(), memory=memory)
    assert rows == {"ffn_t": L} and queries == [L]


@torch.no_grad()
@pytest.mark.parametrize("padded", [0, 2])
def test_what_is_remembered_changes_nothing(padded):
    """A clean film, given words and noisy words in one call, or one after the other with memory."""
    model, rows, text = two_streams().double(), film((True, True)), words(2, padded=padded)
    rows = Film(rows.latents.double(), rows.time, rows.clean)
    states = context().double()
    together = model.streams(states, rows, text).text
    memory = model.streams(states, rows, remember=True).memory
    memory = model.streams(states, words=part(text, slice(0, 2)), memory=memory, remember=True).memory
    after = model.streams(states, words=part(text, slice(2, None)), memory=memory).text
    there = text.there[:, 2:]
    assert torch.allclose(after[there], together[:, 2:][there], atol=1e-6)


@torch.no_grad()
def test_remembered_text_changes_nothing_for_a_noisy_film():
    model, rows, text = two_streams().double(), film(), words(L)
    rows = Film(rows.latents.double(), rows.time)
    states = context().double()
    memory = model.streams(states, words=text, remember=True).memory
    alone = model.streams(states, rows, memory=memory).video
    assert torch.allclose(alone, model.streams(states, rows, text).video, atol=1e-6)
    many = memory.expanded(torch.tensor([1, 1]))
    assert torch.equal(many.blocks[0][0][0], memory.blocks[0][0][1])
    assert memory.repeated(2).there.shape == (2 * B, L)


@torch.no_grad()
def test_padding_changes_nothing():
    model = two_streams()
    long, short = words(), words()
    there = torch.tensor([[True] * 4 + [False] * 2] * B)
    long = Words(short.state, short.time, there, short.given)
    one = model.streams(context(), film(), long)
    two = model.streams(context(), film(), part(short, slice(0, 4)))
    assert torch.allclose(one.video, two.video, atol=1e-5)
    assert torch.allclose(one.text[:, :4], two.text, atol=1e-5)


@torch.no_grad()
def test_the_places_of_text_do_not_depend_on_the_films_size_and_collide_with_none():
    model = two_streams()
    angle = torch.complex(model.rope.freqs_cos, model.rope.freqs_sin)[:, 0::2]
    query = torch.randn(1, 20, 1, model.config["attention_head_dim"])
    moved = turned(query, *model._text_turn(torch.arange(20)[None]))
    back = torch.view_as_complex(moved.view(1, 20, 1, -1, 2))
    wanted = torch.view_as_complex(query.view(1, 20, 1, -1, 2)) * angle[1:21].conj()[None, :, None]
    assert torch.allclose(back, wanted.to(back.dtype), atol=1e-5)


def test_attention_is_pytorchs():
    torch.manual_seed(0)
    query, key, value = torch.randn(2, 5, 2, 8), torch.randn(2, 7, 2, 8), torch.randn(2, 7, 2, 8)
    mask = torch.rand(2, 1, 5, 7) > 0.4
    mask[..., 0] = True
    for each in (None, mask):
        assert torch.allclose(
            attend(query, key, value, each, False), attend(query, key, value, each, True), atol=1e-6
        )


def test_what_cannot_be_asked():
    model = two_streams()
    with pytest.raises(ValueError, match="only what is given"):
        model.streams(context(), film((True, False)), remember=True)
    with pytest.raises(ValueError, match="17 words; there are places for 16"):
        model.streams(context(), words=words(length=17))
    with pytest.raises(ValueError, match="neither a film nor words"):
        model.streams(context())


def test_the_size_of_the_released_model():
    """1,418,996,800 of Wan2.1-T2V-1.3B, and what text adds, layer by layer."""
    with torch.device("meta"):
        model = released_transformer()
    d, ffn, v = 1536, 8960, 256_384
    per_block = d * ffn + ffn + ffn * d + d + 6 * d
    time = 256 * d + d + d * d + d + 6 * d * d + 6 * d
    added = v * d + 30 * per_block + time + d + 2 * d + d * v + v
    assert sum(each.numel() for each in model.parameters()) == 1_418_996_800 + added
    with torch.device("meta"):
        wan = WanTransformer3DModel(num_attention_heads=12, ffn_dim=8960, num_layers=30)
    assert len(with_text(wan, 256_384).state_dict()) == len(model.state_dict())
    assert wan.state_dict().keys() <= model.state_dict().keys()


def released_names(layers: int) -> dict[str, tuple[int, ...]]:
    """Names and shapes of the release at width 48, from its constructor: both streams share one table a block."""
    d, ffn, wide = 48, 64, (48, 48)
    names: dict[str, tuple[int, ...]] = {"vocab_embed.weight": (V, d), "rotary_emb_text.inv_freq": (12,)}

    def linear(name, rows, columns):
        names.update({f"{name}.weight": (rows, columns), f"{name}.bias": (rows,)})

    for i in range(layers):
        for attention in ("attn1", "attn2"):
            for projection in ("to_q", "to_k", "to_v", "to_out.0"):
                linear(f"blocks.{i}.{attention}.{projection}", *wide)
            for norm in ("norm_q", "norm_k"):
                names[f"blocks.{i}.{attention}.{norm}.weight"] = (d,)
        names |= {f"blocks.{i}.norm2.weight": (d,), f"blocks.{i}.norm2.bias": (d,)}
        for each in ("ffn", "ffn_t"):
            linear(f"blocks.{i}.{each}.net.0.proj", ffn, d)
            linear(f"blocks.{i}.{each}.net.2", d, ffn)
        names[f"blocks.{i}.scale_shift_table"] = (1, 6, d)
    for each in ("time_embedding_v", "time_embedding_t"):
        linear(f"{each}.time_embedder.linear_1", d, 128)
        linear(f"{each}.time_embedder.linear_2", *wide)
        linear(f"{each}.time_proj", 6 * d, d)
    linear("cond_text_embedder.linear_1", d, 24)
    linear("cond_text_embedder.linear_2", *wide)
    names |= {"scale_shift_table_v": (1, 2, d), "scale_shift_table_t": (1, 2, d)}
    names |= {"patch_embedding.weight": (d, 4, 1, 2, 2), "patch_embedding.bias": (d,)}
    names["text_head.norm_final.weight"] = (d,)
    linear("text_head.linear", V, d)
    linear("video_head.proj_out", 16, d)
    return names


SMALL = {
    "num_attention_heads": 2,
    "attention_head_dim": 24,
    "in_channels": 4,
    "out_channels": 4,
    "text_dim": 24,
    "freq_dim": 128,
    "ffn_dim": 64,
    "num_layers": 2,
}


@pytest.fixture(scope="module")
def released():
    torch.manual_seed(5)
    return {name: torch.randn(shape) for name, shape in released_names(2).items()}


@torch.no_grad()
@pytest.mark.parametrize("prefix", ["", "_fsdp_wrapped_module."])
def test_released_weights_load_under_their_names(released, tmp_path, prefix):
    path = tmp_path / "step.pth"
    torch.save({"model": {prefix + name: value for name, value in released.items()}}, path)
    model, report = load_released(path, **SMALL)
    assert report.clean
    own = model.state_dict()
    assert torch.equal(own["text_head.weight"], released["text_head.linear.weight"])
    table = released["blocks.1.scale_shift_table"]
    assert torch.equal(own["blocks.1.scale_shift_table"], table)
    assert torch.equal(own["blocks.1.scale_shift_table_t"], table)
    used = sum(value.numel() for name, value in released.items() if "rotary" not in name)
    assert sum(value.numel() for value in from_released(released).values()) == used + 2 * table.numel()
    seen = model.streams(context(), film(), words())
    assert seen.text.shape == (B, L, V) and bool(seen.video.isfinite().all())


def test_weights_that_are_not_the_release(released, tmp_path):
    path = tmp_path / "step.safetensors"
    save_file({name: value for name, value in released.items() if "ffn_t" not in name}, path)
    with pytest.raises(UserError, match=r"8 missing \(blocks.0.ffn_t.net.0.proj.bias"):
        load_released(path, **SMALL)
    save_file(released | {"more": torch.zeros(1)}, path)
    with pytest.raises(UserError, match=r"1 unexpected \(more\)"):
        load_released(path, **SMALL)
    save_file({"a": torch.zeros(1)}, path)
    with pytest.raises(UserError, match="it lacks vocab_embed"):
        load_released(path, **SMALL)
    path.write_bytes(b"nothing")
    with pytest.raises(UserError, match="cannot be read as weights"):
        load_released(path, **SMALL)
    with pytest.raises(UserError, match="there is no file"):
        load_released(tmp_path / "absent.pth")
