"""At home under Hugging Face accelerate: checks, checkpoints and logs for a sampler or a random conditioning.

Three calls in a training script: `attach` after ``accelerator.prepare``, `index_of` where the feedback is reported,
`log` where the loss is logged. Everything else stays the host's.

One batch is one round, whatever ``gradient_accumulation_steps`` is: call ``observe()`` (or ``step()``) in every pass of
the loop, never only where ``accelerator.sync_gradients``. ``observe()`` brings the losses of all ranks together by
itself, in one collective over the default process group; do not ``gather`` them first.
"""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

from accelerate.data_loader import DataLoaderDispatcher, DataLoaderShard  # pyright: ignore[reportMissingTypeStubs]

from aria_sampling import Allocator, RandomConditioning, StateError
from aria_sampling.integrations._checks import index_of, refuse
from aria_sampling.torch import AriaSampler, RegionMixture
from aria_sampling.torch.lag import layers_of

__all__ = ["attach", "index_of", "log"]


def attach(accelerator: Any, face: Any, *, noise_scheduler: Any = None, overlap: bool = False) -> Any:
    """Check that `face` will work under `accelerator`, and register its state for ``save_state`` and ``load_state``.

    Call it once, after ``accelerator.prepare`` and before ``accelerator.load_state``, on every rank. The state is
    saved on the main process and loaded on all; nothing in it is collective. After ``load_state`` just iterate: a
    loader yields what is left of the epoch.

    Args:
        accelerator: An `accelerate.Accelerator`.
        face: The loader that ``prepare`` returned, of a sampler or of a `RegionMixture`; or a `RandomConditioning`.
        noise_scheduler: The diffusers scheduler that the timesteps are drawn for; its length is compared.
        overlap: See `lag_for`: copies and collectives go on beside the next step.

    Returns:
        The `AriaSampler` or `RegionMixture` inside the loader, its allocator's lag raised to what the loader needs; or
        `face`.

    Raises:
        ValueError: What would break the allocation: a loader that was not prepared, that dispatches from rank 0 or is a
            stateful one; what `AriaSampler.attach` refuses; a mixture on several ranks; another number of timesteps
            than the scheduler's; ranks that hold the same rows (the accelerator's ``ParallelismConfig`` has tensor,
            context or sequence parallelism) and a `RandomConditioning` without ``group=``. The message says which line
            to change.
        FeedbackLagError: The allocation has begun, with a smaller lag than the loader needs.
    """
    if isinstance(face, RandomConditioning):
        shared = getattr(getattr(accelerator, "parallelism_config", None), "non_data_parallel_size", 1)
        refuse(
            shared > 1 and face.group is None,
            f"switch: {shared} ranks each hold the same rows (tensor, context or sequence parallelism of the "
            "ParallelismConfig), and would switch them to different conditions: make RandomConditioning with "
            'group=accelerator.torch_device_mesh["dp"].get_group(), the ranks with different data',
        )
        ours = face.num_train_timesteps
        steps = ours if noise_scheduler is None else noise_scheduler.config.num_train_timesteps
        refuse(
            steps != ours,
            f"noise_scheduler: it has {steps} timesteps, the RandomConditioning {ours}: make it with "
            "num_train_timesteps=noise_scheduler.config.num_train_timesteps",
        )
    else:
        face = _face_of(face, accelerator.num_processes, overlap)
    registered: list[Any] = accelerator._custom_objects  # accelerate has no public way to count them
    if not any(known is face for known in registered):
        accelerator.register_for_checkpointing(face)

        def refuse_older(models: list[Any], folder: str) -> None:
            found = len(list(Path(folder).glob("custom_checkpoint_*.pkl")))
            if found < len(registered):
                raise StateError(
                    f"the checkpoint {Path(folder).name!r} holds {found} custom states and {len(registered)} are "
                    "registered: it was saved before attach() was in the script. To go on from it with a new "
                    "allocation, move attach() below load_state() for this one start"
                )

        accelerator.register_load_state_pre_hook(refuse_older)
    return face


def _face_of(loader: Any, ranks: int, overlap: bool) -> AriaSampler | RegionMixture:
    """Return the sampler or the mixture inside a prepared loader; raise as `attach` does."""
    dataset: Any = getattr(loader, "dataset", None)
    stream = isinstance(getattr(dataset, "dataset", dataset), RegionMixture)  # accelerate's shard has it inside
    refuse(
        stream and ranks > 1,
        "loader: accelerate would deal the samples of a RegionMixture out a second time: on several ranks give it "
        "num_replicas=accelerator.num_processes and rank=accelerator.process_index, leave its loader out of prepare(), "
        "and call accelerator.register_for_checkpointing(mixture); each rank saves sources of its own",
    )
    refuse(
        isinstance(loader, DataLoaderDispatcher),
        "loader: it dispatches batches from rank 0, and the samplers of the other ranks would draw nothing: make the "
        "Accelerator with DataLoaderConfiguration(dispatch_batches=False)",
    )
    refuse(
        not isinstance(loader, DataLoaderShard),
        f"expected the loader that accelerator.prepare() returned, got {type(loader).__name__}: call attach() below "
        "`loader = accelerator.prepare(loader)`, with what it returned",
    )
    face: Any = dataset if stream else layers_of(loader)[-1]
    refuse(
        not isinstance(face, AriaSampler | RegionMixture),
        f"loader: its batches come from {type(face).__name__}, not from an AriaSampler: in DataLoader(...) put "
        "sampler=allocator.sampler(...) in the place of shuffle=True, and wrap it in no other sampler",
    )
    face.attach(loader, overlap=overlap)
    return face


def log(accelerator: Any, face: Any, step: int, *, prefix: str = "aria/") -> None:
    """Send the metrics of `face` to the trackers of `accelerator`, whatever they are.

    Not collective; only the main process computes them, from what it has taken in. What is not known yet is left out.

    Args:
        accelerator: An `accelerate.Accelerator`.
        face: An `Allocator`, or the `AriaSampler` that has one; or a `RandomConditioning`, whose metrics are those of
            its allocator and ``switched``, the share of the rows that switch.
        step: The step to log under, as in ``accelerator.log``.
        prefix: Put before every name.
    """
    if accelerator.is_main_process:
        source: Allocator | RandomConditioning = face if hasattr(face, "metrics") else face.allocator
        known = {prefix + name: value for name, value in source.metrics().items() if math.isfinite(value)}
        accelerator.log(known, step=step)
