"""Whether Uni-ViGU's stage can learn eight films by heart: losses fall, and their descriptions come back word for word.

    python benchmarks/univigu_overfit.py runs/univigu-overfit --steps 300

A failure here is a bug in the model, the loss or the sampler; a success says nothing about other films.
"""

from __future__ import annotations

import argparse
import json
from pathlib import Path

import unireel
from unireel.clip import Clip
from unireel.data.cache import FilmCache
from unireel.training import load_recipe, run
from unireel.world.language import caption_for
from unireel.world.language.vocabulary import words
from unireel.world.scene import FPS

FILMS = 8


def main() -> None:
    """Train, then describe each of the films from its pixels with an empty condition."""
    parser = argparse.ArgumentParser(description="Learn eight films by heart.")
    parser.add_argument("output", type=Path, help="folder of the run")
    parser.add_argument("--steps", type=int, default=300)
    parser.add_argument("--formulation", default="masked")
    parser.add_argument("--films", default="cache/films-48", help="film cache")
    parser.add_argument(
        "overrides", nargs="*", metavar="KEY=VALUE", help="of the recipe, such as precision=fp32"
    )
    args = parser.parse_intermixed_args()
    settings = {
        "output": args.output,
        "steps": args.steps,
        "log_every": 20,
        "evaluate_every": 0,
        "ema.decay": 0,
        "schedule.warmup": 10,
        "tensorboard": "false",
        "stage_config.films": args.films,
        "stage_config.used_films": FILMS,
        "stage_config.batch_size": FILMS,
        "stage_config.shared_lr": 1.0,
        "stage_config.formulation": args.formulation,
        "stage_config.mix": "{target: caption, condition_dropout: 1.0, understand: 0.6, pair: 0.2, film: 0.2, text: 0}",
    }
    settings = [f"{key}={value}" for key, value in settings.items()]
    recipe = load_recipe("recipes/univigu/recall.yaml", [*settings, *args.overrides])
    if not run(recipe):
        return  # stopped; the same command goes on
    lines = [json.loads(line) for line in (args.output / "metrics.jsonl").read_text().splitlines()]
    for key in ("text_of_clean", "text_of_pair", "film", "picture"):
        values = [line[key] for line in lines if key in line]
        print(f"{key}: " + " ".join(f"{value:.3f}" for value in values))
    cache = FilmCache(args.films)
    model = unireel.load(args.output / "export")
    said = model.caption_many([Clip(cache.frames[i], FPS) for i in range(FILMS)], judge=False)
    wanted = [caption_for(cache.scene(i)) for i in range(FILMS)]
    right = sum(words(one.text) == words(two) for one, two in zip(said, wanted, strict=True))
    print(f"descriptions right in every word: {right} of {FILMS}")
    for one, two in zip(said, wanted, strict=True):
        if words(one.text) != words(two):
            print(f"  said   {one.text}\n  wanted {two}")


if __name__ == "__main__":
    main()
