"""From a folder to an understanding model, whichever kind it holds."""

# Modules of torch and of the model libraries are typed too loosely for these rules.
# pyright: reportArgumentType=false, reportCallIssue=false

from __future__ import annotations

from pathlib import Path

import torch
from safetensors import SafetensorError
from transformers import (
    AutoModelForImageTextToText,
    AutoProcessor,
    AutoTokenizer,
    PreTrainedTokenizerFast,
    Qwen2VLForConditionalGeneration,
)

from unireel.backbones.bagel_files import AUTOENCODER, load_autoencoder, load_bagel
from unireel.backbones.understanding.bagel import BagelUnderstanding
from unireel.backbones.understanding.interface import Understanding
from unireel.backbones.understanding.pocket import PocketUnderstanding
from unireel.backbones.understanding.processor import ProcessorUnderstanding
from unireel.errors import UserError


def load_understanding(
    folder: str | Path, dtype: torch.dtype = torch.bfloat16, device: torch.device | str = "cpu"
) -> Understanding:
    """The model of a local folder.

    Args:
        folder: of BAGEL as it is published, of one of our pocket models, or of a transformers vision-language model
            with its processor.
        dtype, device: where the weights go.

    Raises:
        UserError: the folder holds none of these, or something in it cannot be read.
    """
    folder = Path(folder)
    try:
        if (folder / "llm_config.json").is_file():
            tokenizer = AutoTokenizer.from_pretrained(folder, local_files_only=True)
            model, _ = load_bagel(folder, dtype, device)
            vae = load_autoencoder(folder, dtype, device) if (folder / AUTOENCODER).is_file() else None
            return BagelUnderstanding(model, tokenizer, vae)
        options = {"dtype": dtype, "local_files_only": True}
        if (folder / "vlm").is_dir() and (folder / "tokenizer").is_dir():
            pocket = Qwen2VLForConditionalGeneration.from_pretrained(folder / "vlm", **options)
            tokenizer = PreTrainedTokenizerFast.from_pretrained(folder / "tokenizer", local_files_only=True)
            return PocketUnderstanding(pocket.to(device).eval(), tokenizer)
        if (folder / "config.json").is_file():
            processor = AutoProcessor.from_pretrained(folder, local_files_only=True)
            general = AutoModelForImageTextToText.from_pretrained(folder, **options)
            return ProcessorUnderstanding(general.to(device).eval(), processor)
    except (OSError, ValueError, ImportError, SafetensorError) as error:
        raise UserError(f"'{folder}' cannot be loaded: {str(error).strip().splitlines()[0]}") from error
    raise UserError(
        f"'{folder}' holds no understanding model; accepted: BAGEL's folder (llm_config.json), a pocket model (vlm, "
        "tokenizer), a transformers model with its processor (config.json)"
    )
