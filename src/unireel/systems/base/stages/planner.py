"""Training the planner: prompts of random scenes, and the scenes' plans behind them."""

# Modules of torch and of the model libraries are typed too loosely for these rules.
# pyright: reportArgumentType=false, reportCallIssue=false, reportIndexIssue=false

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor
from transformers import Qwen2ForCausalLM

from unireel.backbones.planner import planning_ids, pocket_planner, write_plans
from unireel.backbones.text import word_tokenizer
from unireel.data.cache import CacheConfig, FilmCache, build, epoch_order
from unireel.training.stage import ParameterRule, Stage
from unireel.world.facts import holds_in
from unireel.world.language import in_order_of_mention, plan_for, prompt_for, read_plan, vocabulary
from unireel.world.sampling import sample_scene

EVALUATED_PROMPTS = 256
_POOL = 8


@dataclass(frozen=True)
class PlannerConfig:
    """Sizes of the model, and whose scenes it learns from, each with prompts drawn anew.

    Batches are taken from pools of eight, sorted by length, so that little of a batch is padding.
    """

    films: str = "cache/films-48"
    film_count: int = 60_000
    size: int = 48
    width: int = 192
    layers: int = 4
    heads: int = 4
    ffn: int = 512
    batch_size: int = 64
    data_seed: int = 5
    start_from: str = ""


class PlannerStage(Stage):
    """Cross-entropy on the words of plans."""

    config_class = PlannerConfig
    config: PlannerConfig

    def __init__(self, config: PlannerConfig) -> None:
        super().__init__(config)
        build(Path(config.films), CacheConfig(config.film_count, config.size))
        self.films = FilmCache(config.films)
        self.tokenizer = word_tokenizer(vocabulary())
        if config.start_from:
            self.module = Qwen2ForCausalLM.from_pretrained(Path(config.start_from) / "planner").float()
        else:
            sizes = config.width, config.layers, config.heads, config.ffn
            self.module = pocket_planner(len(self.tokenizer), *sizes)
        self.samples_per_batch = config.batch_size
        self._pool: tuple[int, list[list[int]]] = (-1, [])

    def parameter_groups(self) -> list[ParameterRule]:
        """Embeddings are not hidden matrices."""
        return [ParameterRule("*embed_tokens*", muon=False)]

    def batch(self, index: int) -> dict[str, Tensor]:
        """Token ids (B, L) and what is to be learned (B, L): the ids of plans, -100 elsewhere."""
        own = self.config
        pool, place = divmod(index, _POOL)
        number, lines = self._pool  # batches are made one after the other, mostly of the same pool
        if number != pool:
            lines = self._lines(pool)
            self._pool = pool, lines
        turn = np.random.default_rng([own.data_seed, pool]).permutation(_POOL)[place]
        chosen = lines[turn * own.batch_size : (turn + 1) * own.batch_size]
        longest = max(map(len, chosen))
        ids = torch.full((own.batch_size, longest), self.tokenizer.pad_token_id)
        wanted = torch.full_like(ids, -100)
        answer = self.tokenizer.convert_tokens_to_ids("<answer>")
        for row, line in enumerate(chosen):
            start = line.index(answer) + 1
            ids[row, : len(line)] = torch.tensor(line)
            wanted[row, start : len(line)] = ids[row, start : len(line)]
        return {"ids": ids, "wanted": wanted}

    def _lines(self, pool: int) -> list[list[int]]:
        """Prompts and plans of one pool of batches, sorted by length."""
        own, lines = self.config, []
        count = _POOL * own.batch_size
        for index in range(pool * count, (pool + 1) * count):
            scene = self.films.scene(epoch_order(own.data_seed, own.film_count, index))
            prompt = prompt_for(scene, index).text
            plan = plan_for(scene, in_order_of_mention(scene, prompt))
            lines.append(planning_ids(self.tokenizer, prompt, plan))
        return sorted(lines, key=len)

    def loss(self, batch: Any) -> tuple[Tensor, dict[str, Tensor | float]]:
        """Mean over all words of plans."""
        logits = self.module(input_ids=batch["ids"], use_cache=False).logits[:, :-1]
        wanted = batch["wanted"][:, 1:]
        loss = F.cross_entropy(logits.flatten(0, 1).float(), wanted.flatten(), ignore_index=-100)
        right = (logits.argmax(-1) == wanted)[wanted >= 0].float().mean()
        return loss, {"words_right": right}

    def evaluate(self) -> dict[str, float]:
        """Plans of test prompts: shares that can be read, that fulfil the whole prompt, and by kind of fact."""
        scenes = [sample_scene(6, i, "test", size=self.config.size) for i in range(EVALUATED_PROMPTS)]
        prompts = [prompt_for(scene, i) for i, scene in enumerate(scenes)]
        generators = [torch.Generator().manual_seed(i) for i in range(len(prompts))]
        plans = write_plans(self.module, self.tokenizer, [each.text for each in prompts], generators)
        read = [read_plan(plan, self.config.size) for plan in plans]
        true, asked, right = Counter(), Counter(), 0
        for scene, prompt in zip(read, prompts, strict=True):
            held = [scene is not None and holds_in(scene, fact) for fact in prompt.facts]
            right += all(held)
            asked.update(fact.kind for fact in prompt.facts)
            true.update(fact.kind for fact, holds in zip(prompt.facts, held, strict=True) if holds)
        count = len(prompts)
        return {
            "plan/read": sum(scene is not None for scene in read) / count,
            "plan/all": right / count,
            **{f"plan/{kind}": true[kind] / asked[kind] for kind in sorted(asked)},
        }

    def export(self, folder: Path) -> None:
        """Write the ``planner`` folder with its tokenizer."""
        self.module.save_pretrained(folder / "planner")
        self.tokenizer.save_pretrained(folder / "planner")
