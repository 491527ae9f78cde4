"""The parts of a Stable-Diffusion-class model: from a hub id, from a local folder, or tiny and random for ``--smoke``.

The tiny ones are real diffusers and transformers classes with random weights, made in the process: nothing is read
from a hub or from disk, the tokenizer included.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
from diffusers import AutoencoderKL, DDPMScheduler, UNet2DConditionModel
from transformers import CLIPTextConfig, CLIPTextModel, CLIPTokenizer
from transformers.convert_slow_tokenizer import bytes_to_unicode


@dataclass
class Parts:
    """What a text-to-image pipeline consists of."""

    tokenizer: Any
    text_encoder: Any
    vae: Any
    unet: Any
    noise_scheduler: Any

    def freeze(self, *names: str, device: Any, dtype: torch.dtype) -> None:
        """Keep the named parts as they are, in `dtype` on `device`: no gradients, no dropout."""
        for name in names:
            part = getattr(self, name).requires_grad_(False).eval().to(device)
            if dtype != torch.float32:
                part.to(dtype)


def load(name: str, revision: str | None = None) -> Parts:
    """Load the parts from a hub id or a local folder, in the layout of `StableDiffusionPipeline.save_pretrained`."""
    kwargs = {"revision": revision}
    unet = UNet2DConditionModel.from_pretrained(name, subfolder="unet", **kwargs)
    if unet.config.addition_embed_type is not None:
        raise ValueError(
            f"{name}: its UNet takes {unet.config.addition_embed_type!r} conditions besides the text (SDXL does), "
            "which these scripts do not make; use a model of Stable Diffusion 1 or 2"
        )
    return Parts(
        tokenizer=CLIPTokenizer.from_pretrained(name, subfolder="tokenizer", **kwargs),
        text_encoder=CLIPTextModel.from_pretrained(name, subfolder="text_encoder", **kwargs),
        vae=AutoencoderKL.from_pretrained(name, subfolder="vae", **kwargs),
        unet=unet,
        noise_scheduler=DDPMScheduler.from_pretrained(name, subfolder="scheduler", **kwargs),
    )


def tiny(seed: int = 0, length: int = 48) -> Parts:
    """Make a model of three resolutions for images of 32 x 32, about 0.2 million random weights, texts by the byte."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        tokenizer = _byte_tokenizer(length)
        ends = {f"{name}_token_id": getattr(tokenizer, f"{name}_token_id") for name in ("bos", "eos", "pad")}
        text = CLIPTextConfig(
            vocab_size=len(tokenizer),
            hidden_size=16,
            intermediate_size=32,
            num_hidden_layers=2,
            num_attention_heads=2,
            max_position_embeddings=length,
            **ends,
        )
        vae = AutoencoderKL(
            down_block_types=("DownEncoderBlock2D", "DownEncoderBlock2D"),
            up_block_types=("UpDecoderBlock2D", "UpDecoderBlock2D"),
            block_out_channels=(8, 16),
            norm_num_groups=4,
            sample_size=32,
        )
        unet = UNet2DConditionModel(
            sample_size=16,
            down_block_types=("CrossAttnDownBlock2D", "CrossAttnDownBlock2D", "DownBlock2D"),
            up_block_types=("UpBlock2D", "CrossAttnUpBlock2D", "CrossAttnUpBlock2D"),
            block_out_channels=(8, 16, 16),
            layers_per_block=2,
            cross_attention_dim=16,
            attention_head_dim=2,
            norm_num_groups=4,
        )
        scheduler = DDPMScheduler(beta_schedule="scaled_linear", clip_sample=False, steps_offset=1)
        return Parts(tokenizer, CLIPTextModel(text), vae, unet, scheduler)


def _byte_tokenizer(length: int) -> CLIPTokenizer:
    """Return CLIP's tokenizer with a vocabulary of single bytes and no merges."""
    letters = list(bytes_to_unicode().values())
    words = [*letters, *(letter + "</w>" for letter in letters), "<|startoftext|>", "<|endoftext|>"]
    return CLIPTokenizer(vocab={word: number for number, word in enumerate(words)}, merges=[], model_max_length=length)


def encode(tokenizer: Any, text_encoder: Any, texts: list[str]) -> Any:
    """Return the text encoder's output for `texts`: [0] is [n, length, width], `pooler_output` is [n, width]."""
    tokens = tokenizer(
        texts, padding="max_length", truncation=True, max_length=tokenizer.model_max_length, return_tensors="pt"
    )
    return text_encoder(tokens.input_ids.to(text_encoder.device))
