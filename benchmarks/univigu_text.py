"""Which formulation of text as a flow learns most in the same time: the World's descriptions, in other words.

Each text has a description in the World's standard words, given, and another wording of the same facts, to be written.
Wordings are drawn at random, so that there are many right answers: a formulation that mixes two of them says neither.
Network, batches, steps and optimiser are the same for all. A text counts if its facts are exactly those given.

    python benchmarks/univigu_text.py --steps 3000 --output runs/univigu-text.json

Prints a table: formulation, sampler, share of exact texts with its 95 % interval at 8, 16 and 48 evaluations.
"""

# Modules of torch and of the model libraries are typed too loosely for these rules.
# pyright: reportArgumentType=false, reportIndexIssue=false, reportOptionalMemberAccess=false

from __future__ import annotations

import argparse
import json
import time
from dataclasses import dataclass
from pathlib import Path

import torch

from unireel.backbones.text import word_tokenizer
from unireel.backbones.uni_rows import Words
from unireel.backbones.uni_wan_files import with_text
from unireel.backbones.wan import pocket_transformer
from unireel.evaluation.intervals import rate
from unireel.flow.formulations import FORMULATIONS, Formulation, text_flow
from unireel.systems.univigu.pages import Page, Text, page_of, said_in
from unireel.systems.univigu.writing import write
from unireel.world.language import caption_facts, caption_for, parse, vocabulary
from unireel.world.sampling import sample_scene
from unireel.world.scene import Scene

SLOTS = 160


@dataclass(frozen=True)
class Arm:
    """One row of the table: a formulation and how it is sampled."""

    formulation: Formulation
    order: str = "rates"
    churn: float = 0.0
    learn_codes: bool = False

    @property
    def name(self) -> str:
        """What the table calls it."""
        extra = [f"churn {self.churn:g}"] if self.churn else []
        return ", ".join([self.order, *extra, *(["learned vectors"] if self.learn_codes else [])])


ARMS = (
    Arm("masked", "sure"),
    Arm("masked"),
    Arm("hybrid", "sure"),
    Arm("hybrid", churn=0.5),
    Arm("uniform"),
    Arm("uniform", churn=0.5),
    Arm("embedding", learn_codes=True),
    Arm("velocity"),
    Arm("velocity", learn_codes=True),
)


def pages(tokenizer, scenes: list[Scene], seed: int, learn: bool) -> Page:
    """Descriptions that are given, and other wordings: said, or with 72 slots to be written."""
    texts = [
        Text(
            ("<ask>", caption_for(scene), "<answer>"),
            caption_for(scene, 1 + seed * len(scenes) + i) if learn else None,
        )
        for i, scene in enumerate(scenes)
    ]
    return page_of(tokenizer, texts, 4 if learn else 72, SLOTS)


class Trained:
    """A network trained with a formulation; arms that differ in sampling only share it."""

    def __init__(self, arm: Arm, args: argparse.Namespace) -> None:
        self.tokenizer, self.args = word_tokenizer(vocabulary()), args
        torch.manual_seed(args.seed)
        video = pocket_transformer(args.width, args.layers, 2, 3 * args.width, 4, 2, 32)
        continuous = arm.formulation in ("embedding", "velocity")
        self.model = with_text(
            video,
            len(self.tokenizer),
            text_mask=arm.formulation in ("masked", "hybrid"),
            code_width=16 if continuous else 0,
            text_output="velocity" if arm.formulation == "velocity" else "logits",
            text_slots=SLOTS,
        )
        if continuous:
            self.model.text_codes.requires_grad_(arm.learn_codes)
        codes = self.model.text_codes if continuous else None
        self.flow = text_flow(arm.formulation, len(self.tokenizer), codes)
        self.context = torch.zeros(args.batch, 1, 32)
        self.loss, self.seconds = 0.0, 0.0
        self._train()

    def _train(self) -> None:
        args, model = self.args, self.model.train()
        scenes = [sample_scene(1, i, "train") for i in range(args.scenes)]
        optimizer = torch.optim.AdamW(
            [
                each
                for name, each in model.named_parameters()
                if "patch_embedding" not in name and each.requires_grad
            ],
            lr=args.lr,
            betas=(0.9, 0.98),
        )
        schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, args.lr, args.steps, pct_start=0.05)
        start = time.process_time()
        for step in range(args.steps):
            chosen = [scenes[(step * args.batch + i) % len(scenes)] for i in range(args.batch)]
            page = pages(self.tokenizer, chosen, step, learn=True)
            spread = (torch.arange(args.batch) + torch.rand(())) / args.batch
            times = spread.clamp_min(1e-3)[:, None] * page.open
            state = self.flow.corrupt(page.ids, times)
            words = Words(state, 1000 * times, page.there, page.given)
            if self.flow.feedback and step % 2:
                with torch.no_grad():
                    before = self.flow.shown(model.streams(self.context, words=words).text)
                words = Words(
                    *(state, 1000 * times, page.there, page.given, None), before * page.open[..., None]
                )
            output = model.streams(self.context, words=words).text
            weight = page.open * torch.where((page.ids == self.tokenizer.pad_token_id), 0.1, 1.0)
            each = self.flow.loss(output, page.ids, state, times) * weight
            loss = (each.sum(1) / weight.sum(1)).mean()
            optimizer.zero_grad(set_to_none=True)
            loss.backward()
            torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
            optimizer.step()
            schedule.step()
            self.loss = loss.item()
        self.seconds = time.process_time() - start
        model.eval()

    def exact(self, arm: Arm, evaluations: int) -> list[bool]:
        """Whether each held-out text states exactly the facts that it was given."""
        args = self.args
        scenes = [sample_scene(2, i, "test") for i in range(args.texts)]
        right: list[bool] = []
        for start in range(0, len(scenes), args.batch):
            part = scenes[start : start + args.batch]
            page = pages(self.tokenizer, part, 0, learn=False)
            done = write(
                self.model,
                self.flow,
                page,
                self.context[: len(part)],
                self.tokenizer.eos_token_id,
                steps=evaluations,
                order=arm.order,
                churn=arm.churn,
                generator=torch.Generator().manual_seed(start),
            )
            for ids, given, scene in zip(done.ids, page.given, part, strict=True):
                said = said_in(self.tokenizer, ids[int(given.sum()) :].tolist())
                right.append(set(parse(said)) == set(caption_facts(scene)))
        return right


def main() -> None:
    """Train every formulation, then try every arm."""
    parser = argparse.ArgumentParser(description="Compare formulations of text as a flow.")
    for name, default in (("steps", 3000), ("batch", 16), ("scenes", 20_000), ("texts", 256), ("seed", 0)):
        parser.add_argument(f"--{name}", type=int, default=default)
    parser.add_argument("--width", type=int, default=128)
    parser.add_argument("--layers", type=int, default=4)
    parser.add_argument("--lr", type=float, default=2e-3)
    parser.add_argument("--evaluations", type=int, nargs="+", default=[8, 16, 48])
    parser.add_argument("--only", nargs="+", choices=FORMULATIONS, default=list(FORMULATIONS))
    parser.add_argument("--output", type=Path, help="also write the table as JSON")
    args = parser.parse_args()
    trained: dict[tuple[str, bool], Trained] = {}
    rows = []
    for arm in (each for each in ARMS if each.formulation in args.only):
        key = arm.formulation, arm.learn_codes
        if key not in trained:
            trained[key] = Trained(arm, args)
        network = trained[key]
        scores = {count: rate(network.exact(arm, count)) for count in args.evaluations}
        print(
            f"{arm.formulation:10} {arm.name:24} loss {network.loss:.3f} {network.seconds:5.0f} s  "
            + "  ".join(f"{count}: {score}" for count, score in scores.items()),
            flush=True,
        )
        exact = {count: vars(score) for count, score in scores.items()}
        rows.append(
            {"formulation": arm.formulation, "sampler": arm.name, "loss": network.loss, "exact": exact}
        )
    if args.output:
        args.output.parent.mkdir(parents=True, exist_ok=True)
        args.output.write_text(
            json.dumps({"settings": {**vars(args), "output": None}, "rows": rows}, indent=2)
        )


if __name__ == "__main__":
    main()
