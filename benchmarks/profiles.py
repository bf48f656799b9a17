"""What the profiles of ``fast=`` gain in time and cost in quality.

    python benchmarks/profiles.py --n 200 --profiles early-guidance half-steps draft cached

The films of the same prompts, plans and noise are made by each profile in turns, a batch at a time, and judged by the
World's checker: the share that shows all that was asked for, the difference to the lossless profile with its 95 %
interval and p value, and how many times faster the making of films is in processor time (median of the batches, with
quartiles), the drawing of plans left out, which no profile changes.
"""

import argparse
import time

import numpy as np
import torch

import unireel
from unireel.backbones.fast import LOSSLESS, PROFILES
from unireel.evaluation.intervals import rate
from unireel.evaluation.paired import compare_items
from unireel.world.checker import check
from unireel.world.language import prompt_for
from unireel.world.sampling import sample_scene


def main() -> None:
    """Race the profiles and print a table."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--model", default="pocket/base")
    parser.add_argument("--n", type=int, default=200, help="films (default: %(default)s)")
    parser.add_argument("--batch", type=int, default=25)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument(
        "--profiles", nargs="+", metavar="NAME", default=[name for name in PROFILES if name != LOSSLESS]
    )
    args = parser.parse_args()
    torch.set_num_threads(args.threads)
    names = [LOSSLESS, *args.profiles]
    models = {name: unireel.load(args.model, device="cpu", fast=name) for name in names}
    right: dict[str, list[bool]] = {name: [] for name in names}
    seconds: dict[str, list[float]] = {name: [] for name in names}
    for start in range(0, args.n, args.batch):
        numbers = range(start, min(start + args.batch, args.n))
        scenes = [sample_scene(args.seed, number, "test", size=models[LOSSLESS].size) for number in numbers]
        prompts = [prompt_for(scene, number) for scene, number in zip(scenes, numbers, strict=True)]
        generators = [torch.Generator().manual_seed(number) for number in numbers]
        plans = models[LOSSLESS].extend([prompt.text for prompt in prompts], generators)
        order = names[start // args.batch % len(names) :] + names[: start // args.batch % len(names)]
        for name in order:
            began = time.process_time()
            clips = models[name].generate_many(
                plans, seeds=list(numbers), batch_size=args.batch, extend=False
            )
            seconds[name].append((time.process_time() - began) / len(clips))
            right[name] += [
                check(clip, prompt.facts).all_hold for clip, prompt in zip(clips, prompts, strict=True)
            ]
        print(f"{len(right[LOSSLESS])} of {args.n}", flush=True)
    print("| profile | all facts hold | difference | p | times faster |\n| --- | --- | --- | --- | --- |")
    for name in names:
        score = rate(right[name])
        pair = compare_items(right[LOSSLESS], right[name], [str(number) for number in range(args.n)])
        ratios = np.array(seconds[LOSSLESS]) / np.array(seconds[name])
        low, middle, high = np.quantile(ratios, (0.25, 0.5, 0.75))
        change = f"{pair.difference.value:+.3f} ({pair.difference.low:+.3f} to {pair.difference.high:+.3f})"
        print(
            f"| {name} | {score.value:.3f} ({score.low:.3f}–{score.high:.3f}) | {change} | {pair.p:.2f} "
            f"| {middle:.2f} ({low:.2f}–{high:.2f}) |"
        )


if __name__ == "__main__":
    main()
