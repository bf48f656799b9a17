"""Understanding models behind their interface: BAGEL, the pocket model, and any model with a processor."""

# Modules of torch and of the model libraries are typed too loosely for these rules.
# pyright: reportArgumentType=false

import json

import numpy as np
import pytest
import torch
from bagel_parts import tiny_bagel, tiny_config, tiny_tokenizer
from diffusers import AutoencoderKL
from safetensors.torch import save_file
from tokenizers import Tokenizer, models, pre_tokenizers
from transformers import (
    CLIPImageProcessor,
    LlavaConfig,
    LlavaForConditionalGeneration,
    LlavaProcessor,
    PreTrainedTokenizerFast,
    Qwen2VLConfig,
    Qwen2VLForConditionalGeneration,
    Qwen2VLImageProcessor,
    Qwen2VLProcessor,
)

from unireel.backbones.bagel import BagelModel
from unireel.backbones.decoding import decode, film_features
from unireel.backbones.images import ImageRule, cut, to_pixels
from unireel.backbones.packing import TextSegment, VaeSegment, VitSegment, pack
from unireel.backbones.text import word_tokenizer
from unireel.backbones.understanding import (
    BagelUnderstanding,
    Features,
    Kind,
    PocketUnderstanding,
    ProcessorUnderstanding,
    Request,
    load_understanding,
)
from unireel.backbones.vlm import PatchLayout, pocket_vlm, question_turn, visual_patches
from unireel.errors import UserError
from unireel.world.language import vocabulary

PICTURE = np.random.default_rng(0).integers(0, 256, (24, 16, 3), dtype=np.uint8)
FILM = np.random.default_rng(1).integers(0, 256, (3, 16, 16, 3), dtype=np.uint8)


def test_features_are_laid_out_by_kind():
    states = torch.arange(5.0)[:, None]
    kinds = torch.tensor([Kind.TEXT, Kind.VAE, Kind.VIT, Kind.TEXT, Kind.VIT])
    features = Features.of([(states, kinds), (states[:2], kinds[:2])])
    assert features.states[..., 0].tolist() == [[2, 4, 1, 0, 3], [1, 0, 0, 0, 0]]
    assert features.kinds.tolist() == [[0, 0, 1, 2, 2], [1, 2, -1, -1, -1]]


@pytest.fixture(scope="module")
def bagel():
    torch.manual_seed(0)
    vae = AutoencoderKL(
        down_block_types=("DownEncoderBlock2D",) * 2,
        up_block_types=("UpDecoderBlock2D",) * 2,
        block_out_channels=(8, 8),
        latent_channels=4,
        norm_num_groups=4,
        scaling_factor=0.5,
        shift_factor=0.1,
    ).eval()
    rules = ImageRule(32, 8, 4), ImageRule(32, 8, 4)
    return BagelUnderstanding(tiny_bagel(), tiny_tokenizer(), vae, *rules)


@torch.no_grad()
def test_bagel_states_are_those_of_the_model(bagel):
    features = bagel.hidden_states(["a red star", "a"], [[PICTURE], []])
    picture = bagel.vae_rule.resize(PICTURE)
    assert picture.size == (16, 24)
    latent = (bagel.vae.encode(to_pixels(picture)[None]).latent_dist.mode()[0] - 0.1) * 0.5
    text = [0, 5, 6, 7, 1]
    segments = [VaeSegment(latent), VitSegment(to_pixels(picture)), TextSegment(text)]
    states = bagel.model(pack([[segments]], bagel.model.config.geometry))[0]
    vae, vit = len(cut(latent, 2)), 4 * 6
    assert features.kinds[0].tolist() == [0] * vit + [1] * vae + [2] * 5
    vit_states = states[1 + vae + 2 : 1 + vae + 2 + vit]
    expected = torch.cat([vit_states, states[1 : 1 + vae], states[-5:]])
    assert torch.allclose(features.states[0], expected, atol=1e-5)
    alone = bagel.model(pack([[[TextSegment([0, 5, 1])]]], bagel.model.config.geometry))[0]
    assert torch.allclose(features.states[1, :3], alone, atol=1e-5)
    assert features.kinds[1].tolist() == [2, 2, 2] + [-1] * (vit + vae + 2)
    assert (features.states[1, 3:] == 0).all()
    only = bagel.hidden_states(["a red star"], [[PICTURE]], views=("vit",))
    assert Kind.VAE not in only.kinds


def test_bagel_prompts_matter(bagel):
    one, other = (bagel.hidden_states([prompt], [[PICTURE]]) for prompt in ("a red star", "a red twice"))
    changed = (one.states - other.states).abs().amax(-1)[0] > 1e-3
    # Attention is causal and images come first: only what follows the changed word can know of it.
    assert changed[one.kinds[0] == Kind.TEXT].tolist() == [False, False, False, True, True]
    assert not changed[one.kinds[0] != Kind.TEXT].any()
    assert one.states.requires_grad


@torch.no_grad()
def test_bagel_speaks_as_without_a_cache(bagel):
    requests = [Request("star", FILM), Request("a red", None, "twice jumps a")]
    spoken = bagel.chat(requests, max_new_tokens=6)
    rows = [
        [*[VitSegment(to_pixels(bagel.vit_rule.resize(frame))) for frame in FILM], TextSegment([0, 7, 1])],
        [TextSegment([0, 9, 8, 5, 1]), TextSegment([0, 5, 6, 1])],
    ]
    for row, said in zip(rows, spoken, strict=True):
        ids = [0]
        for probability in said.probabilities:
            packed = pack([[[*row, TextSegment(ids)]]], bagel.model.config.geometry)
            chances = bagel.model.logits(bagel.model(packed)[0, -1]).softmax(-1)
            best = int(chances.argmax())
            assert float(chances[best]) == pytest.approx(probability, rel=1e-3)
            ids.append(best)
        assert list(said.ids) == [each for each in ids[1:] if each != 1]


@torch.no_grad()
def test_bagel_continues_a_prompt(bagel):
    said = bagel.generate(["a red"], max_new_tokens=1)[0]
    packed = pack([[[TextSegment([0, 5, 6])]]], bagel.model.config.geometry)
    assert said.ids == (int(bagel.model.logits(bagel.model(packed)[0, -1]).argmax()),)
    nothing = bagel.generate([""], max_new_tokens=2)[0]
    assert len(nothing.probabilities) in (1, 2)
    drawn = [bagel.generate(["a red"] * 2, 5, temperature=2.0, seed=seed) for seed in (0, 0, 1)]
    assert drawn[0] == drawn[1]
    assert drawn[0] != drawn[2]


def test_bagel_refuses_in_one_line(bagel):
    with pytest.raises(UserError, match=r"needs 303 tokens; the model's context has 256"):
        bagel.hidden_states(["a " * 301])
    with pytest.raises(UserError, match=r"40x1 is too narrow"):
        bagel.hidden_states(["a"], [[np.zeros((1, 40, 3), np.uint8)]])
    with pytest.raises(UserError, match=r"without its autoencoder"):
        BagelUnderstanding(bagel.model, bagel.tokenizer).hidden_states(["a"], [[PICTURE]])
    with pytest.raises(UserError, match=r"lacks the mark <.im_start.>"):
        BagelUnderstanding(bagel.model, word_tokenizer(["a"]))


@pytest.fixture(scope="module")
def pocket():
    torch.manual_seed(0)
    tokenizer = word_tokenizer(vocabulary())
    layout = PatchLayout(patch=4, merge=2, tube=2)
    model = pocket_vlm(tokenizer, 64, 2, 1, 96, 64, 2, layout).eval()
    with torch.no_grad():
        for each in model.parameters():
            each.mul_(2.0)
    return PocketUnderstanding(model, tokenizer)


@torch.no_grad()
def test_pocket_answers_as_the_base_system_does(pocket):
    question = "what colour is the star?"
    said = pocket.chat([Request(question, FILM)], max_new_tokens=5)[0]
    patches, grid = visual_patches(FILM[None], pocket.layout)
    features = film_features(pocket.model, patches, grid)
    start = torch.tensor([question_turn(pocket.tokenizer, question, None).ids])
    marks = pocket.tokenizer.bos_token_id, pocket.tokenizer.eos_token_id
    expected = decode(pocket.model, features, grid[0], start, *marks, 5)[0]
    assert list(said.ids) == expected.ids
    assert said.probabilities == pytest.approx(expected.probabilities, rel=1e-4)
    told = pocket.chat([Request(question, FILM, "a red star jumps twice.")], max_new_tokens=5)[0]
    assert told.probabilities != pytest.approx(said.probabilities, rel=1e-4)


@torch.no_grad()
def test_pocket_states_are_those_of_transformers(pocket):
    prompts = ["a red star jumps twice.", "a blue ring."]
    features = pocket.hidden_states(prompts, [[FILM[0]], []])
    model, tokenizer = pocket.model, pocket.tokenizer
    ids = [tokenizer.bos_token_id, *[tokenizer.convert_tokens_to_ids("<film>")] * 4]
    mark = tokenizer.convert_tokens_to_ids("<caption>")
    words = tokenizer(prompts[0], add_special_tokens=False)["input_ids"]
    ids = torch.tensor([[*ids, mark, *words, tokenizer.eos_token_id]])
    patches, grid = visual_patches(FILM[None, :1], pocket.layout)
    kinds = (ids == model.config.video_token_id).int() * 2
    states = model.model(
        input_ids=ids, pixel_values_videos=patches, video_grid_thw=grid, mm_token_type_ids=kinds
    ).last_hidden_state[0]
    count = len(states)
    assert features.kinds[0, :count].tolist() == [0] * 4 + [2] * (count - 4)
    assert torch.allclose(
        features.states[0, :count], torch.cat([states[1:5], states[:1], states[5:]]), atol=1e-4
    )
    with pytest.raises(UserError, match=r"one image with a prompt, not 2"):
        pocket.hidden_states(["a"], [[FILM[0], FILM[1]]])
    with pytest.raises(UserError, match=r"multiples of 8"):
        pocket.chat([Request("what colour is the star?", FILM[:, :12])])


def test_pocket_continues_without_a_film(pocket):
    said = pocket.generate(["a red star"], max_new_tokens=3)[0]
    assert 1 <= len(said.probabilities) <= 3
    assert all(0 < each <= 1 for each in said.probabilities)


MARKS = (
    "<|im_start|>", "<|im_end|>", "<|vision_start|>", "<|vision_end|>", "<|image_pad|>", "<|video_pad|>",
)  # fmt: skip
LANGUAGE = ("<unk>", "user", "system", "assistant", "a", "red", "star", "blue", "jumps", ".", "!")
TEMPLATE = (
    "{% for message in messages %}<|im_start|> {{ message.role }} {% for part in message.content %}"
    "{% if part.type == 'image' %}<|vision_start|> <|image_pad|> <|vision_end|> "
    "{% elif part.type == 'video' %}<|vision_start|> <|video_pad|> <|vision_end|> "
    "{% else %}{{ part.text }} {% endif %}{% endfor %}<|im_end|> {% endfor %}"
    "{% if add_generation_prompt %}<|im_start|> assistant {% endif %}"
)


def language() -> PreTrainedTokenizerFast:
    table = {word: number for number, word in enumerate([*MARKS, *LANGUAGE])}
    tokenizer = Tokenizer(models.WordLevel(table, unk_token="<unk>"))
    tokenizer.pre_tokenizer = pre_tokenizers.WhitespaceSplit()  # type: ignore[assignment]
    return PreTrainedTokenizerFast(
        tokenizer_object=tokenizer,
        unk_token="<unk>",
        eos_token="<|im_end|>",
        pad_token="<|im_end|>",
        additional_special_tokens=list(MARKS),
    )


TEXT_CONFIG = {
    "vocab_size": len(MARKS) + len(LANGUAGE),
    "hidden_size": 32,
    "intermediate_size": 64,
    "num_hidden_layers": 2,
    "num_attention_heads": 2,
    "num_key_value_heads": 1,
    "max_position_embeddings": 128,
    "eos_token_id": 1,
    "bos_token_id": 0,
    "pad_token_id": 1,
}


def tiny_llava() -> ProcessorUnderstanding:
    """A tiny LLaVA with a real processor: images only."""
    images = CLIPImageProcessor(size={"shortest_edge": 16}, crop_size={"height": 16, "width": 16})
    processor = LlavaProcessor(
        images, language(), patch_size=8, vision_feature_select_strategy="full", image_token="<|image_pad|>",
        chat_template=TEMPLATE,
    )  # fmt: skip
    vision = {"hidden_size": 16, "intermediate_size": 32, "num_hidden_layers": 2, "num_attention_heads": 2}
    config = LlavaConfig(
        vision_config={"model_type": "siglip_vision_model", "image_size": 16, "patch_size": 8, **vision},
        text_config={"model_type": "qwen2", **TEXT_CONFIG},
        image_token_index=4,
        vision_feature_select_strategy="full",
        vision_feature_layer=-1,
    )
    torch.manual_seed(0)
    return ProcessorUnderstanding(LlavaForConditionalGeneration(config).eval(), processor)


def tiny_qwen() -> ProcessorUnderstanding:
    """A tiny Qwen2-VL with a real processor, which also takes films."""
    pytest.importorskip("torchvision", reason="transformers' video processors need it")
    from transformers import Qwen2VLVideoProcessor

    sizes = {"patch_size": 4, "temporal_patch_size": 2, "merge_size": 2}
    limits = {"size": {"shortest_edge": 64, "longest_edge": 4096}}
    processor = Qwen2VLProcessor(
        image_processor=Qwen2VLImageProcessor(**sizes, **limits),
        video_processor=Qwen2VLVideoProcessor(**sizes, **limits),
        tokenizer=language(),
        chat_template=TEMPLATE,
    )
    rope = {"rope_type": "default", "rope_theta": 1e4, "mrope_section": [2, 3, 3]}
    sizes = {"patch_size": 4, "temporal_patch_size": 2, "spatial_merge_size": 2}
    config = Qwen2VLConfig(
        text_config={**TEXT_CONFIG, "rope_parameters": rope},
        vision_config={"depth": 1, "embed_dim": 16, "hidden_size": 32, "num_heads": 2, **sizes},
        image_token_id=4,
        video_token_id=5,
        vision_start_token_id=2,
        vision_end_token_id=3,
    )
    torch.manual_seed(0)
    return ProcessorUnderstanding(Qwen2VLForConditionalGeneration(config).eval(), processor)


@pytest.fixture(scope="module", params=[tiny_llava, tiny_qwen])
def general(request):
    return request.param()


@torch.no_grad()
def test_any_model_gives_its_states(general):
    features = general.hidden_states(["a red star", "."], [[PICTURE[:16]], []])
    # Four visual tokens; then the prompt and what the template puts after it.
    assert features.kinds[0].tolist() == [Kind.VIT] * 4 + [Kind.TEXT] * 6
    assert features.kinds[1].tolist() == [Kind.TEXT] * 4 + [Kind.PADDING] * 6
    assert not torch.equal(
        features.states[0], general.hidden_states(["a red star"], [[PICTURE[8:]]]).states[0]
    )
    words = "<|im_start|> user . <|im_end|> <|im_start|> assistant"
    ids = general.processor.tokenizer(words, return_tensors="pt")["input_ids"]
    whole = general.model(input_ids=ids, output_hidden_states=True).hidden_states[-1][0]
    assert torch.allclose(features.states[1, :4], whole[2:], atol=1e-5)
    assert features.states.shape[2] == general.width == 32


@torch.no_grad()
def test_any_model_chats_about_frames(general):
    said = general.chat([Request("a red", FILM, "star"), Request("blue")], max_new_tokens=4)
    blank = general.chat([Request("a red", FILM * 0, "star")], max_new_tokens=4)[0]
    assert said[0].probabilities != blank.probabilities
    words = "<|im_start|> user blue <|im_end|> <|im_start|> assistant"
    ids = general.processor.tokenizer(words, return_tensors="pt")["input_ids"]
    for probability in said[1].probabilities:
        chances = general.model(input_ids=ids).logits[0, -1].softmax(-1)
        assert float(chances.max()) == pytest.approx(probability, rel=1e-3)
        ids = torch.cat([ids, chances.argmax()[None, None]], dim=1)
    assert list(said[1].ids) == [each for each in ids[0, 6:].tolist() if each != 1]
    with pytest.raises(UserError, match=r"the model's context has 128"):
        general.chat([Request("a " * 130)])
    state = torch.random.get_rng_state()
    one, two = (general.generate(["a"], 6, temperature=1.5, seed=seed)[0] for seed in (3, 3))
    assert one == two
    assert torch.equal(torch.random.get_rng_state(), state)


@torch.no_grad()
def test_folders_of_each_kind_are_loaded(tmp_path, untrained, pocket):
    llava = tiny_llava()
    llava.model.save_pretrained(tmp_path / "llava")
    llava.processor.save_pretrained(tmp_path / "llava")
    again = load_understanding(tmp_path / "llava", torch.float32)
    prompts, images = ["a red star"], [[PICTURE]]
    expected = llava.hidden_states(prompts, images).states
    assert torch.allclose(again.hidden_states(prompts, images).states, expected, atol=1e-5)
    small = load_understanding(untrained, torch.float32)
    assert isinstance(small, PocketUnderstanding)
    assert small.hidden_states(["a red star"]).states.shape[2] == small.width == 64
    with pytest.raises(UserError, match=r"holds no understanding model; accepted: BAGEL's folder"):
        load_understanding(tmp_path)
    (tmp_path / "llava" / "model.safetensors").write_bytes(b"nothing")
    with pytest.raises(UserError, match=r"llava' cannot be loaded: "):
        load_understanding(tmp_path / "llava")


@torch.no_grad()
def test_a_published_bagel_folder_is_loaded(tmp_path):
    """The folder's sizes are those of BAGEL-7B-MoT where its configurations do not say them: latents of 16 channels."""
    torch.manual_seed(0)
    config = tiny_config()
    config.latent_channels, config.max_latent_size = 16, 64
    model = BagelModel(config).eval()
    text, vision = config.text_config.to_dict(), config.vision_config.to_dict()
    vision["num_hidden_layers"] += 1
    (tmp_path / "llm_config.json").write_text(json.dumps(text))
    (tmp_path / "vit_config.json").write_text(json.dumps(vision))
    save_file(model.state_dict(), tmp_path / "ema.safetensors")
    tiny_tokenizer().save_pretrained(tmp_path)
    again = load_understanding(tmp_path, torch.float32)
    assert isinstance(again, BagelUnderstanding)
    assert again.vae is None
    expected = BagelUnderstanding(model, tiny_tokenizer()).hidden_states(["a red star"])
    assert torch.allclose(again.hidden_states(["a red star"]).states, expected.states, atol=1e-5)
