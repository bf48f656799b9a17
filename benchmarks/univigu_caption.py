"""What a description costs: Uni-ViGU's text stream beside the base system's video-language model, on the same films.

    python benchmarks/univigu_caption.py                      # one film at a time
    python benchmarks/univigu_caption.py --films 16           # sixteen together

Prints the seconds per film of each, and the median of the rounds' ratios with its quartiles. Both describe test films
of the World as their ``caption_many`` does, from pixels to words, without judging whether a film is of the World.
"""

from __future__ import annotations

import argparse

import torch
from torch import Tensor

import unireel
from unireel.bench.measure import Contestant, Stopwatch, race, ratio
from unireel.bench.pocket import size_of
from unireel.world.render import render
from unireel.world.sampling import sample_scene

MODELS = ("pocket/base", "pocket/univigu")
DESCRIBE = "describe"


def main() -> None:
    """Let both describe other films in each round, in turns."""
    parser = argparse.ArgumentParser(description="Time descriptions by pocket/univigu and by pocket/base.")
    parser.add_argument("--films", type=int, default=1, help="films that are described together")
    parser.add_argument("--rounds", type=int, default=9)
    parser.add_argument("--clock", choices=("wall", "cpu"), default="cpu")
    args = parser.parse_args()
    contestants = [contestant(name, args.films) for name in MODELS]
    results = race(contestants, args.rounds, args.clock)
    for name in MODELS:
        print(f"{name}: {results[name].median(DESCRIBE) / args.films:.3f} s a film")
    middle, low, high = ratio(results[MODELS[1]], results[MODELS[0]], DESCRIBE)
    print(f"{MODELS[1]} takes {middle:.2f} times ({low:.2f}-{high:.2f}) as long")


def contestant(name: str, count: int) -> Contestant:
    """A packaged model that describes ``count`` test films a round; the outcome is how many words it says of each."""
    model = unireel.load(name, device="cpu")

    def run(number: int, watch: Stopwatch) -> Tensor:
        scenes = [sample_scene(13, number * count + each, "test", size=model.size) for each in range(count)]
        clips = [render(scene) for scene in scenes]
        with watch.stage(DESCRIBE):
            said = model.caption_many(clips, batch_size=count, judge=False)
        return torch.tensor([len(each.text.split()) for each in said])

    return Contestant(name, run, size_of(model.transformer), "float32")


if __name__ == "__main__":
    main()
