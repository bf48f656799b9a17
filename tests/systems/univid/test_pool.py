"""The pool of a film, its cache on disk, and rankers, against what files and models say themselves."""

# Modules of torch and of the model libraries are typed too loosely for these rules.
# pyright: reportArgumentType=false, reportAttributeAccessIssue=false, reportCallIssue=false

import json
import subprocess
import sys

import numpy as np
import pytest
import torch
from PIL import Image
from transformers import (
    CLIPConfig,
    CLIPImageProcessorPil,
    CLIPModel,
    PreTrainedTokenizerFast,
    SiglipImageProcessorPil,
    SiglipModel,
)

from unireel.backbones.ranker import (
    frame_embeddings,
    pocket_ranker,
    ranker_tokenizer,
    text_embeddings,
)
from unireel.backbones.text import word_tokenizer
from unireel.clip import Clip
from unireel.errors import UserError
from unireel.systems.univid.reflection.cache import FilmCache
from unireel.systems.univid.reflection.pool import pool_key, read_pool
from unireel.systems.univid.reflection.rankers import DualEncoder, fingerprint
from unireel.world.language import vocabulary


def counting_film(frames: int, height: int = 32, width: int = 48) -> Clip:
    """A film whose frames differ: number i is grey of level i modulo 250, with a bar that moves."""
    film = np.zeros((frames, height, width, 3), np.uint8)
    film[:] = (np.arange(frames) % 250)[:, None, None, None]
    for number in range(frames):
        film[number, :, number % width] = 255
    return Clip(film, 8)


class TestPool:
    @pytest.mark.parametrize("frames", [1, 5, 64, 65, 200])
    def test_frames_of_a_clip_are_its_own(self, frames):
        film = counting_film(frames)
        pool = read_pool(film)
        assert len(pool) == min(64, frames) == len(set(pool.numbers.tolist()))
        assert np.array_equal(pool.frames, film.frames[pool.numbers])
        assert np.allclose(pool.times, pool.numbers / 8)
        gaps = np.diff(pool.numbers)
        assert pool.numbers[0] == 0 and (len(gaps) == 0 or gaps.max() - gaps.min() <= 1)

    @pytest.mark.parametrize("suffix", [".mp4", ".gif", ""])
    def test_a_file_gives_what_the_clip_gives(self, tmp_path, suffix):
        film = counting_film(150)
        path = film.save(tmp_path / f"film{suffix}")
        pool, expected = read_pool(path), read_pool(film)
        # A gif's stamps are rounded to 10 ms, so that another frame may be nearest to a moment.
        assert np.abs(pool.numbers - expected.numbers).max() <= (1 if suffix == ".gif" else 0)
        assert np.allclose(pool.times, film.times[pool.numbers], atol=0.011)
        assert pool.duration == pytest.approx(film.duration, abs=0.02)
        error = np.abs(pool.frames.astype(int) - film.frames[pool.numbers])
        assert error.mean() < (12 if suffix else 1e-9)

    def test_large_pictures_are_made_smaller_and_small_ones_are_left(self):
        assert read_pool(counting_film(3, 300, 900), side=90).frames.shape == (3, 30, 90, 3)
        assert read_pool(counting_film(3), side=90).frames.shape == (3, 32, 48, 3)

    def test_a_film_of_variable_rate(self, fixtures_dir):
        pool = read_pool(fixtures_dir / "videos" / "moviepy_fire2_vfr_rot180.mp4", count=8, side=64)
        assert np.all(np.diff(pool.times) > 0) and np.all(np.diff(pool.numbers) > 0)
        assert pool.times[-1] < pool.duration and max(pool.frames.shape[1:3]) == 64

    def test_damage_is_told(self, fixtures_dir):
        with pytest.warns(UserWarning, match="damaged"):
            pool = read_pool(fixtures_dir / "videos" / "decord_corrupted.mp4", count=4, side=64)
        assert len(pool) >= 1

    def test_files_that_are_no_films(self, tmp_path):
        (tmp_path / "words.mp4").write_text("words")
        (tmp_path / "empty.mp4").touch()
        for name in ("words.mp4", "empty.mp4", "missing.mp4"):
            with pytest.raises(UserError, match=name):
                read_pool(tmp_path / name)

    def test_memory_does_not_grow_with_the_film(self, tmp_path):
        """A film of 1,500 frames, 86 MB decoded, in a process of its own whose memory is measured."""
        import av

        path = tmp_path / "long.mp4"
        with av.open(str(path), "w") as container:
            stream = container.add_stream("mpeg4", rate=25)
            stream.height, stream.width, stream.pix_fmt = 120, 160, "yuv420p"
            picture = np.random.default_rng(0).integers(0, 255, (120, 160, 3), dtype=np.uint8)
            for number in range(1500):
                frame = av.VideoFrame.from_ndarray(np.roll(picture, number, axis=1), format="rgb24")
                container.mux(stream.encode(frame))
            container.mux(stream.encode())
        code = (
            "import resource, sys; from pathlib import Path\n"
            "from unireel.systems.univid.reflection.pool import read_pool\n"
            "peak = lambda: resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024\n"
            "read_pool(Path(sys.argv[1]), count=2); before = peak()\n"
            "pool = read_pool(Path(sys.argv[1])); print(len(pool), peak() - before)\n"
        )
        run = subprocess.run(
            [sys.executable, "-c", code, str(path)], capture_output=True, text=True, check=True
        )
        count, grown = run.stdout.split()
        assert int(count) == 64 and float(grown) < 25  # 64 frames are 4 MB


class TestKeys:
    def test_a_film_is_known_again(self, tmp_path):
        film = counting_film(20)
        one, two = film.save(tmp_path / "one.mp4"), counting_film(21).save(tmp_path / "two.mp4")
        assert pool_key(one) == pool_key(one) != pool_key(two)
        assert len({pool_key(one), pool_key(one, 32), pool_key(one, 64, 100)}) == 3
        assert pool_key(film) == pool_key(counting_film(20)) != pool_key(counting_film(21))

    def test_a_file_that_changed_is_another_film(self, tmp_path):
        path = counting_film(20).save(tmp_path / "one.gif")
        before = pool_key(path)
        counting_film(20)[::-1].save(path)
        assert pool_key(path) != before


def siglip(seed: int = 0, size: int = 16) -> DualEncoder:
    torch.manual_seed(seed)
    tokenizer = ranker_tokenizer(vocabulary())
    model = pocket_ranker(tokenizer, 32, 1, 2, 24, 1, size=size)
    return DualEncoder(
        model, tokenizer, SiglipImageProcessorPil(size={"height": size, "width": size}), "small"
    )


class TestRankers:
    def test_the_pocket_ranker_gives_its_own_vectors(self):
        ranker = siglip()
        frames = np.random.default_rng(0).integers(0, 255, (5, 16, 16, 3), dtype=np.uint8)
        assert isinstance(ranker.model, SiglipModel)
        expected = frame_embeddings(ranker.model, frames).numpy()
        assert np.allclose(ranker.frame_vectors(frames), expected, atol=1e-5)
        text = "a small red star on the left"
        assert np.allclose(
            ranker.text_vector(text), text_embeddings(ranker.model, ranker.tokenizer, [text])[0], atol=1e-5
        )

    def test_clip_gives_the_vectors_of_its_forward(self):
        torch.manual_seed(0)
        base = word_tokenizer(vocabulary())
        tokenizer = PreTrainedTokenizerFast(
            tokenizer_object=base.backend_tokenizer, pad_token="<pad>", eos_token="</s>", unk_token="<unk>"
        )
        sizes = {"hidden_size": 32, "intermediate_size": 32, "num_hidden_layers": 1, "num_attention_heads": 2}
        model = CLIPModel(
            CLIPConfig(
                text_config={**sizes, "vocab_size": len(tokenizer), "max_position_embeddings": 12},
                vision_config={**sizes, "image_size": 16, "patch_size": 8},
                projection_dim=24,
            )
        ).eval()
        processor = CLIPImageProcessorPil(size={"shortest_edge": 16}, crop_size={"height": 16, "width": 16})
        ranker = DualEncoder(model, tokenizer, processor, "clip")
        frames = np.random.default_rng(0).integers(0, 255, (3, 20, 16, 3), dtype=np.uint8)
        pixels = processor([Image.fromarray(each) for each in frames], return_tensors="pt")["pixel_values"]
        ids = tokenizer(["a red star"], return_tensors="pt")["input_ids"]
        with torch.no_grad():
            output = model(input_ids=ids, pixel_values=pixels)
        assert np.allclose(ranker.frame_vectors(frames), output.image_embeds.numpy(), atol=1e-5)
        assert np.allclose(ranker.text_vector("a red star"), output.text_embeds[0].numpy(), atol=1e-5)
        with pytest.warns(UserWarning, match="first 12 tokens"):
            ranker.text_vector("a red star " * 10)

    def test_a_folder_comes_back(self, tmp_path):
        ranker = siglip()
        for part in (ranker.model, ranker.tokenizer, ranker.image_processor):
            part.save_pretrained(tmp_path)
        copy = DualEncoder.load(tmp_path)
        assert copy.key == ranker.key
        frames = np.random.default_rng(0).integers(0, 255, (2, 20, 20, 3), dtype=np.uint8)
        assert np.allclose(copy.frame_vectors(frames), ranker.frame_vectors(frames), atol=1e-6)

    def test_what_is_no_ranker(self, tmp_path):
        with pytest.raises(UserError, match="cannot be loaded"):
            DualEncoder.load(tmp_path)
        with pytest.raises(UserError, match="no dual encoder"):
            DualEncoder(torch.nn.Linear(2, 2), None, None, "linear")

    def test_other_weights_have_another_key(self):
        model = siglip().model
        before = fingerprint(model)
        with torch.no_grad():
            model.logit_scale.add_(0.01)
        assert fingerprint(model) != before


class Counting:
    """A ranker that counts what it encodes."""

    name = key = "counting"

    def __init__(self) -> None:
        self.encoded = 0

    def frame_vectors(self, frames: np.ndarray) -> np.ndarray:
        self.encoded += len(frames)
        return np.eye(len(frames), dtype=np.float32)

    def text_vector(self, text: str) -> np.ndarray:
        return np.eye(1, 64, dtype=np.float32)[0]


class TestCache:
    def test_a_film_is_read_and_encoded_once(self, tmp_path, monkeypatch):
        path, ranker = counting_film(90).save(tmp_path / "film.mp4"), Counting()
        first = FilmCache(tmp_path / "cache")
        pool = first.pool(path)
        vectors = first.vectors(pool, ranker)
        monkeypatch.setattr(
            "unireel.systems.univid.reflection.cache.read_pool", None
        )  # must not be called again
        second = FilmCache(tmp_path / "cache")
        again = second.pool(path)
        assert np.array_equal(again.frames, pool.frames) and np.array_equal(again.times, pool.times)
        assert np.array_equal(again.numbers, pool.numbers) and again.duration == pool.duration
        assert np.array_equal(second.vectors(again, ranker), vectors)
        assert ranker.encoded == 64 and second.misses == []

    def test_damage_is_made_again(self, tmp_path):
        path, ranker = counting_film(9).save(tmp_path / "film.mp4"), Counting()
        cache = FilmCache(tmp_path / "cache")
        pool = cache.pool(path)
        cache.vectors(pool, ranker)
        cache.keep(pool, "caption", "a grey film that becomes brighter")
        for file in (tmp_path / "cache").rglob("*.*"):
            file.write_bytes(file.read_bytes()[:20])
        assert np.array_equal(cache.pool(path).frames, pool.frames)
        cache.vectors(pool, ranker)
        assert ranker.encoded == 18 and cache.note(pool, "caption") is None

    def test_notes(self, tmp_path):
        cache = FilmCache(tmp_path / "cache")
        pool = cache.pool(counting_film(9))
        assert cache.note(pool, "caption-http://model/1") is None
        cache.keep(pool, "caption-http://model/1", {"text": "grey"})
        assert FilmCache(tmp_path / "cache").note(pool, "caption-http://model/1") == {"text": "grey"}

    def test_room_is_made_by_age(self, tmp_path):
        films = [counting_film(count) for count in (30, 31, 32)]
        size = len(read_pool(films[0]).frames.tobytes())
        cache = FilmCache(tmp_path / "cache", most_bytes=int(2.5 * size))
        pools = [cache.pool(film) for film in films[:2]]
        cache.pool(films[0])  # used again
        cache.pool(films[2])
        kept = {each.name for each in (tmp_path / "cache").iterdir()}
        assert pools[0].key in kept and pools[1].key not in kept and len(kept) == 2

    def test_a_place_that_cannot_be_written(self, tmp_path):
        (tmp_path / "file").write_text(json.dumps({}))
        with pytest.raises(UserError, match="cannot write"):
            FilmCache(tmp_path / "file" / "cache")
