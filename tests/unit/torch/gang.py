"""A gang of processes that share a gloo group and do jobs on demand: spawned once, used by many tests.

A job is a function of a module that every process can import, called as ``job(rank, world, group, *args)`` on the
first `world` of them. Whatever it raises comes back as text, so that all ranks' errors can be looked at.
"""

import multiprocessing
import os
import traceback
from dataclasses import dataclass
from datetime import timedelta

PATIENCE = 120  # seconds: far more than any job takes


@dataclass(frozen=True)
class Failure:
    """What a job raised on one rank."""

    kind: str
    text: str
    trace: str


class Gang:
    """So many processes. `run` gives a job to the first of them; a job that fails everywhere leaves them usable."""

    def __init__(self, size, folder):
        context = multiprocessing.get_context("spawn")
        self.size = size
        self._pipes, self._processes = [], []
        for rank in range(size):
            mine, its = context.Pipe()
            process = context.Process(target=_serve, args=(rank, size, f"file://{folder}/rendezvous", its))
            process.start()
            its.close()
            self._pipes.append(mine)
            self._processes.append(process)

    def run(self, job, *args, world=None):
        """The results of the job by rank; `Failure` where it raised."""
        pipes = self._pipes[: world or self.size]
        for pipe in pipes:
            pipe.send((job, world or self.size, args))
        results = []
        for rank, pipe in enumerate(pipes):
            if not pipe.poll(PATIENCE):
                self.close()
                raise TimeoutError(f"{job.__name__}: rank {rank} gave no answer")
            results.append(pipe.recv())
        return results

    def close(self):
        """End all processes."""
        for pipe in self._pipes:
            pipe.close()
        for process in self._processes:
            process.join(10)
            if process.is_alive():
                process.kill()
                process.join()


def _serve(rank, size, rendezvous, pipe):
    import torch
    import torch.distributed as dist

    torch.set_num_threads(1)
    options = {"init_method": rendezvous, "rank": rank, "world_size": size, "timeout": timedelta(seconds=40)}
    dist.init_process_group("gloo", **options)
    groups = {size: None}  # None: the default group
    if size > 2:
        groups[2] = dist.new_group([0, 1])
    while True:
        try:
            job, world, args = pipe.recv()
        except EOFError:
            break
        try:
            answer = job(rank, world, groups[world], *args)
        except Exception as error:
            answer = Failure(type(error).__name__, str(error), traceback.format_exc())
        pipe.send(answer)
    os._exit(0)  # at once: nothing is left to be tidied up
