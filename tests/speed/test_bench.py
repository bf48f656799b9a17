"""The benchmark compares like with like, and says what it found in every form."""

# Modules of torch and of the model libraries are typed too loosely for these rules.
# pyright: reportArgumentType=false, reportCallIssue=false

import mmap
import time
import xml.etree.ElementTree as xml

import pytest
import torch

import unireel
from unireel.bench import ask, dit, measure, pocket
from unireel.bench.report import picture, summarise, table
from unireel.cli.main import main


def product(name: str, size: int) -> measure.Contestant:
    """A contestant whose whole work is one product of square matrices."""
    matrix = torch.ones(size, size)

    def run(number: int, watch: measure.Stopwatch) -> torch.Tensor:
        with watch.stage("denoise"):
            return (matrix @ matrix)[:4, :4] / size

    return measure.Contestant(name, run, 4 * size**2, "float32")


def test_known_work_is_counted_and_compared() -> None:
    large, small = product("diffusers float32", 768), product("unireel", 192)
    assert measure.operations(large) == 2 * 768**3
    results = measure.race([large, small], 5, "cpu")
    middle, low, high = measure.ratio(results["diffusers float32"], results["unireel"], "denoise")
    assert low <= middle <= high
    assert middle > 8  # 64 times the operations
    rates = {"float32": 1e9, "bfloat16": 2e9}
    found = summarise([large, small], results, rates, measure.operations(large), "cpu", "two products")
    row = found["contestants"]["diffusers float32"]
    assert row["share_of_machine"] == pytest.approx(2 * 768**3 / row["seconds"]["denoise"] / 1e9)
    assert found["contestants"]["unireel"]["difference"] == 0
    assert f"{row['ratio']['whole']['median']:.2f} (" in table(found)
    drawn = xml.fromstring(picture(found))
    assert any(each.text == "unireel" for each in drawn.iter("{http://www.w3.org/2000/svg}text"))


def test_fused_attention_is_counted() -> None:
    states = torch.ones(1, 2, 100, 64)

    def run(number: int, watch: measure.Stopwatch) -> torch.Tensor:
        with watch.stage("denoise"):
            return torch.nn.functional.scaled_dot_product_attention(states, states, states)

    counted = measure.operations(measure.Contestant("attention", run, 0, "float32"))
    assert counted == 2 * 2 * 2 * 100 * 100 * 64  # two products of two heads, two operations each


def test_memory_of_a_run_is_seen() -> None:
    with (
        measure.peak_memory("cpu") as peak,
        mmap.mmap(-1, 64 * 2**20) as block,
    ):  # memory that nobody had before
        block.write(bytes([1]) * len(block))
        time.sleep(0.1)
    assert peak() > 32 * 2**20


def test_contestants_make_the_same_film() -> None:
    """WanPipeline with the pocket's parts, at both stages of a film, against our own pipeline."""
    pipeline = unireel.load("pocket/base", device="cpu", fast=False)
    pipeline.register_to_config(steps=3)
    made = {}
    with torch.no_grad():
        for each in pocket.contestants(pipeline, "keep"):
            watch = measure.Stopwatch("cpu")
            made[each.name] = each.run(0, watch)
            assert set(watch.seconds) == {"text", "denoise", "decode"}
    assert made["unireel"].shape == (1, 3, 17, 48, 48)
    assert measure.difference(made["unireel"], made["diffusers float32"]) < 1e-5
    assert measure.difference(made["diffusers bfloat16"], made["diffusers float32"]) < 0.1


def test_contestants_take_the_same_step() -> None:
    shape = dit.Shape(1, 64, 2, 4, (2, 4, 4), per_token=True)
    exact, narrow, ours = dit.contestants(shape, 2, shape.latents, precision="keep")
    with torch.no_grad():
        made = [each.run(0, measure.Stopwatch("cpu")) for each in (exact, narrow, ours)]
    assert measure.difference(made[2], made[0]) < 1e-5
    assert 1e-4 < measure.difference(made[1], made[0]) < 0.1
    assert narrow.weights < exact.weights == ours.weights


def test_contestants_say_the_same() -> None:
    """transformers' own generate, in float32, against our search in its cache."""
    pipeline = unireel.load("pocket/base", device="cpu", fast=False)
    exact, _, ours = contestants = ask.contestants(pipeline)
    results = measure.race(contestants, 1, "cpu")
    for runs in results.values():
        assert runs.seconds.keys() == {measure.WHOLE, ask.PREFILL, ask.WORDS}
        assert sum(runs.median(stage) for stage in (ask.PREFILL, ask.WORDS)) <= runs.median()
    said = results[exact.name].outcome
    assert said is not None and torch.equal(said, results[ours.name].outcome)
    assert 10 < ask.words_said(said) < ask.MOST
    work = measure.operations(exact, ask.PREFILL)
    found = summarise(contestants, results, {"float32": 1e9, "bfloat16": 1e9}, work, "cpu", "a caption",
                      ask.PREFILL, ask.words_said)  # fmt: skip
    row = found["contestants"][ours.name]
    assert row["tokens_per_second"] == pytest.approx(ask.words_said(said) / row["seconds"][ask.WORDS])
    assert "tokens/s" in table(found) and "prefill" in picture(found)


@pytest.mark.parametrize(
    ("words", "message"),
    [
        ("--shape wan9", "there is no model 'wan9' to bench"),
        ("--layers 2", "are for shapes"),
        ("--ask --compile", "--ask is for pocket/base"),
        ("--shape wan2.1-1.3b --latents 2x3", "is not a size like 21x60x104"),
        ("--shape wan2.1-1.3b --latents 2x3x4", "cut into patches of 2x2"),
        ("--picture x.png", "the picture is an .svg"),
        ("--rounds 0", "0 is outside 1 to 1000"),
        ("--shape wan2.1-1.3b --device tpu", "there is no device 'tpu' here"),
    ],
)
def test_errors_are_one_line(capsys: pytest.CaptureFixture[str], words: str, message: str) -> None:
    assert main(["bench", *words.split()]) == 2
    output, error = capsys.readouterr()
    assert output == ""
    assert len(error.splitlines()) == 1
    assert message in error
