"""The student: the teacher's UNet with blocks removed and the rest of its weights kept (as in BK-SDM).

Three sizes, each what the one before is and less:

- ``base``: one (resnet, attention) pair a down block, of two; two an up block, of three: the first and the last, since
  the last is the one that fits the skip connection from below;
- ``small``: no mid block;
- ``tiny``: no innermost stage, down and up.
"""

from __future__ import annotations

import re
from typing import Any

from diffusers import UNet2DConditionModel

SIZES = ("base", "small", "tiny")


def prune(teacher: UNet2DConditionModel, size: str) -> UNet2DConditionModel:
    """Return a student of that size with the teacher's weights.

    Raises:
        ValueError: Another size, or a teacher of another make.
    """
    if size not in SIZES:
        raise ValueError(f"size={size!r}: expected one of {SIZES}")
    config = dict(teacher.config)
    config.pop("_use_default_values", None)  # from_config would put these back to their defaults
    if config["layers_per_block"] != 2:
        raise ValueError(f"teacher: expected layers_per_block=2, got {config['layers_per_block']}")
    config["layers_per_block"] = 1
    if size != "base":
        config["mid_block_type"] = None
    if size == "tiny":
        for name, kept in (("down_block_types", slice(-1)), ("up_block_types", slice(1, None))):
            config[name] = tuple(config[name][kept])
        for name in _PER_STAGE:
            if isinstance(config[name], list | tuple):
                config[name] = tuple(config[name][:-1])
    student = UNet2DConditionModel.from_config(config)
    weights, state = teacher.state_dict(), student.state_dict()
    for name in state:
        source = teacher_name(name, size)
        if source not in weights or weights[source].shape != state[name].shape:
            raise ValueError(f"teacher: nothing in it fits the student's {name}; size={size!r} is not for this model")
        state[name] = weights[source].float()
    student.load_state_dict(state)
    return student


def teacher_name(name: str, size: str) -> str:
    """Return what a parameter or block of the student is called in the teacher."""
    stage = int(size == "tiny")
    name = re.sub(r"^up_blocks\.(\d+)", lambda found: f"up_blocks.{int(found[1]) + stage}", name)
    return re.sub(r"^(up_blocks\.\d+\.\w+)\.1\b", r"\1.2", name)


def block_names(student: Any, size: str) -> list[str]:
    """Return the student's blocks whose outputs can be compared with the teacher's: all of equal shape."""
    names = [f"down_blocks.{number}" for number in range(len(student.down_blocks))]
    if size == "tiny":
        names.pop()  # the teacher's goes one resolution down there
    names += ["mid_block"] if student.mid_block is not None else []
    return names + [f"up_blocks.{number}" for number in range(len(student.up_blocks))]


_PER_STAGE = (
    "block_out_channels",
    "attention_head_dim",
    "cross_attention_dim",
    "transformer_layers_per_block",
    "only_cross_attention",
)
