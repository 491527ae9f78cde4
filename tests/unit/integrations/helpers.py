"""What the tests of the training scripts share: a fresh accelerate, and two ranks of a script."""

import os
import pickle
import socket

import torch
from accelerate.state import AcceleratorState, GradientState, PartialState

GIVEN = {"max_train_steps": 4, "checkpointing_steps": 2, "train_batch_size": 4, "report_to": "none"}
SMALL = ["--smoke", *(word for key, value in GIVEN.items() for word in (f"--{key}", str(value)))]


def reset():
    """Let go of accelerate's shared state: another run begins."""
    AcceleratorState._reset_state(True)
    GradientState._reset_state()
    PartialState._reset_state()


def start(main, *argv):
    """Run a script's main on the CPU, without pictures unless they are asked for."""
    reset()
    torch.manual_seed(12345)  # what it must not depend on
    prompts = [] if "--validation_prompts" in argv else ["--validation_prompts"]
    return main([*SMALL, *map(str, argv), *prompts])


def contents(checkpoint):
    """Return what is in a checkpoint but the global random states, by file, as values that compare by bits."""
    found = {}
    for path in sorted(checkpoint.iterdir()):
        if path.suffix == ".safetensors":
            found[path.name] = path.read_bytes()
        elif not path.name.startswith("random_states"):
            found[path.name] = _plain(torch.load(path, weights_only=False))
    return found


def _plain(value):
    if isinstance(value, torch.Tensor):
        return value.numpy().tobytes()
    if isinstance(value, dict):
        return {key: _plain(entry) for key, entry in value.items()}
    return [_plain(entry) for entry in value] if isinstance(value, list | tuple) else pickle.dumps(value)


def _rank(rank, world, port, main, argv, queue):
    os.environ.update(MASTER_ADDR="127.0.0.1", MASTER_PORT=str(port), RANK=str(rank), WORLD_SIZE=str(world))
    os.environ.update(LOCAL_RANK=str(rank), ACCELERATE_USE_CPU="true")
    torch.set_num_threads(1)
    queue.put((rank, main(argv).digest()))
    if torch.distributed.is_initialized():  # accelerate ends it with the training
        torch.distributed.barrier()
        torch.distributed.destroy_process_group()


def free_port():
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        return free.getsockname()[1]


def on_two_ranks(target, *args):
    """Call ``target(rank, 2, port, *args, queue)`` in two processes; return what they put into the queue, sorted."""
    context = torch.multiprocessing.get_context("spawn")
    queue, port = context.Queue(), free_port()
    running = [context.Process(target=target, args=(rank, 2, port, *args, queue)) for rank in range(2)]
    for process in running:
        process.start()
    found = sorted(queue.get(timeout=240) for _ in running)
    for process in running:
        process.join(60)
    return found


def digests_of_two_ranks(main, *argv):
    """Run a script on two ranks; return the digest of each one's allocator."""
    argv = [*SMALL, *map(str, argv), "--validation_prompts"]
    return [digest for _, digest in on_two_ranks(_rank, main, argv)]
