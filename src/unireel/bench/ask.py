"""Captions by pocket/base: the same video-language model in plain transformers, and here."""

# Modules of torch and of the model libraries are typed too loosely for these rules.
# pyright: reportArgumentType=false, reportAttributeAccessIssue=false, reportCallIssue=false

from __future__ import annotations

import copy
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from unireel.backbones.decoding import decode, film_features
from unireel.backbones.vlm import layout_of, visual_patches
from unireel.bench.measure import Contestant, Stopwatch
from unireel.bench.pocket import size_of
from unireel.world.render import render_frames
from unireel.world.sampling import sample_scene

FILMS, MOST = 5, 64
"""Each round has another film; tokens of a caption at most."""

PREFILL, WORDS = "prefill", "words"
"""Stages: from pixels to the first token, and all tokens after it."""


@contextmanager
def phases(vlm: nn.Module, watch: Stopwatch) -> Iterator[None]:
    """Time what is inside as :data:`PREFILL` until the model has put out the first token, then as :data:`WORDS`."""
    with ExitStack() as stack:
        first = ExitStack()
        first.enter_context(watch.stage(PREFILL))

        def switch(*_: Any) -> None:
            handle.remove()
            first.close()
            stack.enter_context(watch.stage(WORDS))

        handle = vlm.lm_head.register_forward_hook(switch)
        yield


def contestants(pipeline: Any) -> list[Contestant]:
    """transformers' ``generate`` in both formats, and ours in the format that it has when it is loaded.

    All search greedily, so that the same is said. An outcome is the tokens, completed with minus one.

    Args:
        pipeline: pocket/base in float32.
    """
    films = [render_frames(sample_scene(11, number, "test", size=pipeline.size)) for number in range(FILMS)]
    tokenizer, vlm = pipeline.tokenizer, pipeline.vlm.eval()
    bos, eos = tokenizer.bos_token_id, tokenizer.eos_token_id
    ask, film = tokenizer.convert_tokens_to_ids(["<caption>", "<film>"])

    def plain(model: nn.Module) -> Any:
        def run(number: int, watch: Stopwatch) -> Tensor:
            with phases(model, watch):
                patches, grid = visual_patches(films[number % FILMS][None], layout_of(vlm))
                tokens = int(grid[0].prod()) // layout_of(vlm).merge ** 2
                ids = torch.tensor([[bos, *[film] * tokens, ask]])
                said = model.generate(
                    input_ids=ids,
                    attention_mask=torch.ones_like(ids),
                    mm_token_type_ids=2 * (ids == film).int(),
                    pixel_values_videos=patches.to(model.dtype),
                    video_grid_thw=grid,
                    max_new_tokens=MOST,
                    do_sample=False,
                    eos_token_id=eos,
                    pad_token_id=tokenizer.pad_token_id,
                )[0, ids.shape[1] :]
            return _completed(said[said != eos])

        return run

    def ours(number: int, watch: Stopwatch) -> Tensor:
        with phases(vlm, watch):
            patches, grid = visual_patches(films[number % FILMS][None], layout_of(vlm))
            features = film_features(vlm, patches.to(vlm.dtype), grid)
            said = decode(vlm, features, grid[0], torch.tensor([[ask]]), bos, eos, MOST)[0]
        return _completed(torch.tensor(said.ids))

    exact, narrow = copy.deepcopy(vlm), copy.deepcopy(vlm).bfloat16()
    return [
        Contestant("transformers float32", plain(exact), size_of(exact), "float32"),
        Contestant("transformers bfloat16", plain(narrow), size_of(narrow), "bfloat16"),
        Contestant("unireel", ours, size_of(vlm), str(vlm.dtype).removeprefix("torch.")),
    ]


def _completed(ids: Tensor) -> Tensor:
    return F.pad(ids, (0, MOST - len(ids)), value=-1)


def words_said(outcome: Tensor) -> int:
    """How many tokens after the first an outcome has, the end mark among them."""
    return int(min((outcome >= 0).sum(), MOST - 1))
