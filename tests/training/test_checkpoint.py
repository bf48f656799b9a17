"""Checkpoints are whole or absent, whatever happens while they are written or kept."""

import json
import multiprocessing
import os
import shutil
import signal
import time

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from unireel.errors import UserError
from unireel.training import checkpoint as checkpoints
from unireel.training.checkpoint import Checkpoint


def _content(step: int, size: int = 8) -> Checkpoint:
    generator = torch.Generator().manual_seed(step)
    tensors = {
        "model": {"a.weight": torch.randn(size, 3, generator=generator), "b": torch.tensor(step)},
        "ema": {},
        "optimizer": {"a.weight/step": torch.tensor(float(step))},
    }
    return Checkpoint(
        step, tensors, {"step": step, "seconds": 1.5, "random": [{"python": [3, [1, 2], None]}]}
    )


def _equal(one: Checkpoint, two: Checkpoint) -> bool:
    if (one.step, one.state, one.tensors.keys()) != (two.step, two.state, two.tensors.keys()):
        return False
    return all(
        one.tensors[stem].keys() == two.tensors[stem].keys()
        and all(torch.equal(tensor, two.tensors[stem][name]) for name, tensor in one.tensors[stem].items())
        for stem in one.tensors
    )


def test_round_trip_and_keep_last(tmp_path):
    for step in (1, 2, 3, 10, 200):
        checkpoints.save(tmp_path, _content(step), keep_last=3)
    assert [step for step, _ in checkpoints.found(tmp_path)] == [3, 10, 200]
    path = checkpoints.newest(tmp_path)
    assert path is not None and path.name == "step-00000200"
    assert _equal(checkpoints.load(path), _content(200))
    assert sorted(p.name for p in tmp_path.iterdir()) == ["step-00000003", "step-00000010", "step-00000200"]


def test_a_later_checkpoint_does_not_outlive_a_new_one(tmp_path):
    checkpoints.save(tmp_path, _content(4), 1)
    _truncate(checkpoints.save(tmp_path, _content(8), 2) / "model.safetensors")
    checkpoints.save(tmp_path, _content(5), 1)
    assert [step for step, _ in checkpoints.found(tmp_path)] == [5]


def test_no_folder_is_no_checkpoint(tmp_path):
    assert checkpoints.newest(tmp_path / "none") is None


def test_transposed_and_channels_last_tensors_keep_their_values(tmp_path):
    tensor = torch.randn(4, 3, 2, 5).to(memory_format=torch.channels_last)
    content = Checkpoint(1, {"model": {"x": tensor, "y": tensor[0, 0].T}}, {"step": 1})
    loaded = checkpoints.load(checkpoints.save(tmp_path, content, 1)).tensors["model"]
    assert torch.equal(loaded["x"], tensor) and torch.equal(loaded["y"], tensor[0, 0].T)


@pytest.fixture(scope="module")
def two_checkpoints(tmp_path_factory):
    folder = tmp_path_factory.mktemp("two")
    for step in (1, 2):
        checkpoints.save(folder / "original", _content(step), 2)
    return folder


@settings(max_examples=40)
@given(data=st.data())
def test_any_changed_byte_is_noticed_and_the_one_before_is_used(two_checkpoints, data):
    folder = two_checkpoints / f"copy-{len(list(two_checkpoints.iterdir()))}"
    shutil.copytree(two_checkpoints / "original", folder)
    newest = folder / "step-00000002"
    victim = data.draw(st.sampled_from(sorted(p for p in newest.iterdir() if p.name != "manifest.json")))
    content = bytearray(victim.read_bytes())
    content[data.draw(st.integers(0, len(content) - 1))] ^= data.draw(st.integers(1, 255))
    victim.write_bytes(content)
    with pytest.warns(UserWarning, match=f"damaged \\({victim.name} is not what"):
        path = checkpoints.newest(folder)
    assert path is not None and _equal(checkpoints.load(path), _content(1))


def _truncate(path):
    path.write_bytes(path.read_bytes()[:-1])


@pytest.mark.parametrize(
    ("name", "damage"),
    [
        ("model.safetensors", lambda path: path.unlink()),
        ("optimizer.safetensors", _truncate),
        ("manifest.json", lambda path: path.unlink()),
        ("manifest.json", _truncate),
        ("manifest.json", lambda path: path.write_text("[]")),
        ("manifest.json", lambda path: path.write_text('{"format": 99, "files": {}}')),
        ("manifest.json", lambda path: path.write_text('{"format": 1, "files": {}}')),
        ("manifest.json", lambda path: path.write_text('{"format": 1, "files": {"../x": {}}}')),
        ("state.json", lambda path: path.unlink()),
    ],
)
def test_lost_and_broken_files_are_noticed(tmp_path, name, damage):
    path = checkpoints.save(tmp_path, _content(7), 1)
    damage(path / name)
    assert checkpoints.check(path)
    with pytest.warns(UserWarning, match="damaged"), pytest.raises(UserError, match="every checkpoint"):
        checkpoints.newest(tmp_path)


def test_a_failed_write_leaves_the_older_ones(tmp_path):
    checkpoints.save(tmp_path, _content(1), 1)
    (tmp_path / "step-00000002").write_text("in the way")
    with pytest.raises(UserError, match="cannot write the checkpoint"):
        checkpoints.save(tmp_path, _content(2), 1)
    path = checkpoints.newest(tmp_path)
    assert path is not None and _equal(checkpoints.load(path), _content(1))


def _write_forever(folder):
    step = 0
    while True:
        step += 1
        checkpoints.save(folder, _content(step, size=20_000), keep_last=2)


@pytest.mark.skipif(not hasattr(os, "fork"), reason="the writer is forked")
def test_kill_at_any_moment_of_writing_leaves_whole_checkpoints(tmp_path):
    context = multiprocessing.get_context("fork")
    torch.set_num_threads(1)  # a forked child must not wait for OpenMP threads that only the parent has
    interrupted = 0
    for attempt in range(12):
        folder = tmp_path / str(attempt)
        writer = context.Process(target=_write_forever, args=(folder,), daemon=True)
        writer.start()
        while not checkpoints.found(folder):
            time.sleep(0.001)
        time.sleep(0.003 * attempt)
        assert writer.pid is not None
        os.kill(writer.pid, signal.SIGKILL)
        writer.join()
        interrupted += any(path.name.startswith(".writing-") for path in folder.iterdir())
        found = checkpoints.found(folder)
        assert all(checkpoints.check(path) is None for _, path in found)
        assert _equal(checkpoints.load(found[-1][1]), _content(found[-1][0], size=20_000))
        checkpoints.save(folder, _content(10**6), 1)
        assert [path.name for path in folder.iterdir()] == ["step-01000000"]
    assert interrupted, "no writer was killed while it wrote: the test did not test"


def test_nothing_in_a_checkpoint_is_pickled(tmp_path):
    path = checkpoints.save(tmp_path, _content(3), 1)
    assert {p.suffix for p in path.iterdir()} == {".safetensors", ".json"}
    for p in path.glob("*.json"):
        json.loads(p.read_text())
