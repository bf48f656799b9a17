"""Put a model together from what its components' trainings exported.

python -m unireel.systems.base.assemble --vae RUN/export/vae --generator RUN/export --vlm RUN/export/vlm \
    --planner RUN/export/planner --ranker RUN/export/ranker FOLDER
"""

# transformers' models are typed too loosely for this rule.
# pyright: reportArgumentType=false

from __future__ import annotations

import argparse
from pathlib import Path

import torch
from diffusers import AutoencoderKLCosmos, WanTransformer3DModel
from transformers import (
    AutoImageProcessor,
    AutoTokenizer,
    PreTrainedTokenizerFast,
    Qwen2ForCausalLM,
    Qwen2VLForConditionalGeneration,
    SiglipModel,
    UMT5EncoderModel,
)

from unireel.backbones.text import word_tokenizer
from unireel.errors import UserError
from unireel.systems.base.pipeline import BasePipeline
from unireel.world.language import vocabulary


def assemble(
    vae: Path,
    generator: Path,
    vlm: Path,
    folder: Path,
    planner: Path | None = None,
    ranker: Path | None = None,
    **settings: object,
) -> BasePipeline:
    """Load the trained components, check that they share one tokenizer, and save the whole model in ``folder``.

    Without ``planner`` prompts are not extended. ``ranker`` is no part of the pipeline; what ranks frames for it finds
    it in the folder ``ranker`` of the model.

    Raises:
        UserError: a component was trained on another vocabulary than this World's.
    """
    tokenizer = word_tokenizer(vocabulary())
    for part in (generator / "tokenizer", vlm, *([planner] if planner else [])):
        if PreTrainedTokenizerFast.from_pretrained(part).get_vocab() != tokenizer.get_vocab():
            raise UserError(f"'{part}' was trained on another vocabulary than this World's; train it again")
    model = BasePipeline(
        vae=AutoencoderKLCosmos.from_pretrained(vae),
        text_encoder=UMT5EncoderModel.from_pretrained(generator / "text_encoder"),
        tokenizer=tokenizer,
        transformer=WanTransformer3DModel.from_pretrained(generator / "transformer"),
        vlm=Qwen2VLForConditionalGeneration.from_pretrained(vlm),
        planner=Qwen2ForCausalLM.from_pretrained(planner) if planner else None,
        **settings,
    )
    model.save_pretrained(folder)
    if ranker:
        for part in (AutoTokenizer, AutoImageProcessor):
            part.from_pretrained(ranker).save_pretrained(folder / "ranker")
        SiglipModel.from_pretrained(ranker).to(torch.bfloat16).save_pretrained(folder / "ranker")
    return model


def main() -> None:
    """Assemble from the command line; the defaults fit what ``recipes/pocket/generator.yaml`` trains."""
    parser = argparse.ArgumentParser(description="Put a model together from its trained components.")
    parser.add_argument("folder", type=Path, help="where to write the model")
    for name in ("vae", "generator", "vlm"):
        parser.add_argument(f"--{name}", type=Path, required=True, help="exported folder")
    parser.add_argument("--planner", type=Path, help="exported folder of the model that extends prompts")
    parser.add_argument("--ranker", type=Path, help="exported folder of the frame-text ranker")
    parser.add_argument("--size", type=int, default=48)
    parser.add_argument("--steps", type=int, default=16)
    parser.add_argument("--guidance", type=float, default=2.0)
    parser.add_argument("--shift", type=float, default=2.0)
    parser.add_argument("--prediction", choices=("velocity", "data"), default="data")
    parser.add_argument(
        "--staged",
        action=argparse.BooleanOptionalAction,
        default=True,
        help="films start from a picture made first",
    )
    args = vars(parser.parse_args())
    assemble(**args)


if __name__ == "__main__":
    main()
