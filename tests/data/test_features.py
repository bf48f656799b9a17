"""Feature caches: exact, made in parallel, and after any accident only what is missing is made again."""

import json
import multiprocessing
import os
import sys
import time
from functools import partial
from pathlib import Path

import numpy as np
import pytest
import torch
from film_features import Thumbnails

from unireel.clip import Clip
from unireel.data.features import FeatureCache, Item, Source, build
from unireel.data.features.store import INDEX, SHARDS
from unireel.errors import UserError
from unireel.workers import Workers

FILMS = 6


class World:
    """Six films with captions, a cache of them, and a log of what was encoded."""

    def __init__(self, folder: Path) -> None:
        self.films, self.cache, self.log = folder / "films", folder / "cache", folder / "log"
        self.films.mkdir()
        for number in range(FILMS):
            self.film(number, number)
        self.items = [Item(self.films / f"{number}.mp4", f"film {number}") for number in range(FILMS)]

    def film(self, number: int, seed: int) -> None:
        frames = np.random.default_rng(seed).integers(0, 256, (4, 16, 16, 3), dtype=np.uint8)
        Clip(frames, 8).save(self.films / f"{number}.mp4")

    def source(self, digest: str = "a", pause: float = 0.0) -> Source:
        return Source(self.items, partial(Thumbnails, self.log, pause), digest, {"model": digest})

    def build(self, doing: Workers | None = None, digest: str = "a", **settings):
        self.log.write_text("")
        return build(self.cache, self.source(digest), doing, per_shard=2, **settings)

    @property
    def asked(self) -> list[str]:
        """The films that were encoded in the last build."""
        return sorted(line.split()[1] for line in self.log.read_text().splitlines())

    @property
    def shards(self) -> list[Path]:
        return sorted((self.cache / SHARDS).iterdir())

    def check(self) -> None:
        """Every item has the features that it has now."""
        cache, encode = FeatureCache(self.cache), Thumbnails(self.log, 0, 0)
        assert [(row.path, row.text) for row in cache.rows] == [
            (str(each.path), each.text) for each in self.items
        ]
        for number, item in enumerate(self.items):
            found, expected = cache[number], encode(item)
            assert found.keys() == expected.keys()
            assert all(torch.equal(found[name], each) for name, each in expected.items())


@pytest.fixture
def world(tmp_path: Path) -> World:
    pytest.importorskip("pyarrow", reason="pyarrow is not installed")
    return World(tmp_path)


def test_two_processes_make_what_is_there_already_when_asked_again(world):
    built = world.build(Workers(2))
    assert (built.made, built.kept, built.damaged, built.problems) == (FILMS, 0, 0, ())
    assert len(world.shards) == 3
    assert len({line.split()[0] for line in world.log.read_text().splitlines()} - {str(os.getpid())}) >= 1
    world.check()
    built = world.build()
    assert (built.made, built.kept, world.asked) == (0, FILMS, [])
    assert FeatureCache(world.cache).about == {"model": "a"}


def test_a_killed_build_goes_on_and_one_at_a_time_is_at_work(world):
    context = multiprocessing.get_context("spawn")
    process = context.Process(target=build, args=(world.cache, world.source(pause=0.2), None, 2))
    process.start()
    while not world.cache.joinpath(SHARDS).is_dir() or not any(
        path.suffix == ".safetensors" for path in world.shards
    ):
        assert process.is_alive()
        time.sleep(0.01)
    try:
        with pytest.raises(UserError, match="another build is at work"):
            world.build()
    finally:
        process.kill()
        process.join()
    assert not (world.cache / INDEX).exists()
    (world.cache / SHARDS / ".part-1").write_bytes(b"half of a shard")
    built = world.build()
    assert built.kept >= 2 and built.made == FILMS - built.kept == len(world.asked) and built.damaged == 0
    world.check()


@pytest.mark.parametrize("damage", ["flipped", "cut", "gone"])
def test_a_damaged_shard_is_made_again_and_no_other(world, damage):
    world.build()
    path = world.shards[1]
    names = sorted(Path(row.path).name for row in FeatureCache(world.cache).rows if row.shard == path.stem)
    content = path.read_bytes()
    if damage == "gone":
        path.unlink()
    else:
        path.write_bytes(
            content[:-1] + bytes([content[-1] ^ 1]) if damage == "flipped" else content[: len(content) // 2]
        )
    built = world.build()
    assert (built.made, built.kept, built.damaged) == (2, FILMS - 2, int(damage != "gone"))
    assert world.asked == names
    world.check()


def test_what_changed_is_made_again_and_what_is_not_wanted_goes(world):
    world.build()
    world.film(2, 77)
    os.utime(world.films / "3.mp4")  # looks changed and is not
    world.items = [*world.items[1:], Item(world.films / "5.mp4", "other words")]
    assert world.build().made == 2 and world.asked == ["2.mp4", "5.mp4"]
    world.check()
    world.items = world.items[-1:]
    assert world.build().made == 0 and len(world.shards) == 1
    stat = (world.films / "5.mp4").stat()
    world.film(5, 78)
    os.utime(
        world.films / "5.mp4", ns=(stat.st_atime_ns, stat.st_mtime_ns)
    )  # changed and does not look like it
    if (world.films / "5.mp4").stat().st_size == stat.st_size:
        assert world.build().made == 0
    assert world.build(rehash=True).kept == 0
    world.check()


def test_features_of_other_models_are_not_mixed(world):
    world.build()
    with pytest.raises(UserError, match="made with something else"):
        world.build(digest="b")
    assert world.build(digest="b", remake=True).made == FILMS
    assert json.loads((world.cache / "features.json").read_text())["digest"] == "b"
    world.check()


def test_films_that_cannot_be_read_are_named_and_left_out(world):
    (world.films / "1.mp4").write_bytes(b"no film")
    (world.films / "4.mp4").unlink()
    built = world.build()
    assert [Path(row.path).name for row in built.problems] == ["1.mp4", "4.mp4"]
    assert all(row.problem for row in built.problems)
    cache = FeatureCache(world.cache)
    assert (len(cache), cache.without) == (FILMS - 2, 2)
    world.film(1, 1)
    world.film(4, 4)
    assert world.build().made == 2
    world.check()


def test_readers_say_what_is_wrong(world):
    with pytest.raises(UserError, match="no finished cache"):
        FeatureCache(world.cache)
    world.build()
    cache = FeatureCache(world.cache)
    shard = world.shards[0]
    shard.write_bytes(b"")
    with pytest.raises(UserError, match="is damaged"):
        [cache[number] for number in range(FILMS)]
    shard.unlink()
    with pytest.raises(UserError, match="are gone"):
        FeatureCache(world.cache)
    (world.cache / INDEX).write_bytes(b"PAR1")
    with pytest.raises(UserError, match="is no index"):
        FeatureCache(world.cache)


def test_ray_makes_the_same(world, monkeypatch):
    pytest.importorskip("ray.data", reason="Ray is not installed")
    monkeypatch.setenv("PYTHONPATH", os.pathsep.join(sys.path))
    monkeypatch.setenv("RAY_raylet_start_wait_time_s", "600")
    assert world.build(Workers(2, "ray")).made == FILMS
    world.check()
    (world.films / "1.mp4").write_bytes(b"no film")
    assert len(world.build(Workers(1, "ray")).problems) == 1
