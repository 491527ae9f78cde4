"""The processes of a distributed run that share one allocation.

Every rank computes the same draws, so all they have to exchange is what only they know: which losses their
rows had. Rows are gathered whole and summed in the order of the global batch, in float64, by every rank for
itself; a sum made by the network would depend on the number of ranks. Each exchange of feedback carries the
number of its round and a digest of the sender's state, so that ranks that have come apart are found.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor

from aria_sampling._arrays import IntArray
from aria_sampling._check import integer
from aria_sampling.errors import RankError
from aria_sampling.torch._feedback import Transfer

__all__ = ["Ranks"]


class Ranks:
    """The ranks of a process group; this process alone where torch.distributed is not in use.

    Args:
        group: A `torch.distributed.ProcessGroup`; None: the default group, looked up at every use, since
            samplers are often made before it is.
        check_every: Digests of the state are compared at every so many closed rounds.
    """

    def __init__(self, group: Any = None, check_every: int = 64) -> None:
        self._group = group
        self._check_every = integer("check_every", check_every, low=1)
        self._digests: dict[int, str] = {}  # by number of closed rounds
        self._loaded = False  # a state that no digest was taken of yet
        self._side: torch.cuda.Stream | None = None
        self._room = 0  # rows of any rank in the last `exchange`: so many fit without asking twice

    @property
    def size(self) -> int:
        """Number of ranks; 1 without torch.distributed."""
        return dist.get_world_size(self._group) if dist.is_available() and dist.is_initialized() else 1

    @property
    def rank(self) -> int:
        """Number of this rank; 0 without torch.distributed."""
        return dist.get_rank(self._group) if self.size > 1 else 0

    def note(self, closed: int, digest: Callable[[], str]) -> None:
        """Remember the digest of the state after `closed` rounds, if it is one to be compared."""
        if self.size > 1 and (self._loaded or closed % self._check_every == 0):
            self._digests[closed] = digest()
            self._loaded = False

    def forget(self) -> None:
        """Forget all digests: another state was loaded."""
        self._digests.clear()
        self._loaded = True

    def gather(self, rows: Tensor, *, room: int, round_: int, lag: int) -> Callable[[], list[IntArray]]:
        """Begin to collect the rows of all ranks; return a function that waits for them, and gives them by rank.

        Collective: every rank calls it, in the order of the rounds. The function is not collective, and raises
        RankError if another rank was at another round, or differed in its state.

        Args:
            rows: int64 [m, 2], m <= room, on the host or the device.
            room: The most rows that any rank may have, equal on all.
            round_: Number of the round.
            lag: Of the allocator: rounds before ``round_ - lag`` are closed on every rank by now.
        """
        settled = max((closed for closed in self._digests if closed <= max(round_ - lag, 0)), default=0)
        self._digests = {closed: digest for closed, digest in self._digests.items() if closed >= settled}
        digest = int(self._digests.get(settled, "0")[:15], 16)  # 60 bits, which an int64 holds
        arrived = self._all_gather(rows, [[len(rows), round_], [digest, settled]], room, self._device(host=False))

        def wait() -> list[IntArray]:
            parts = arrived()
            self._compare([int(part[0, 1]) for part in parts], "are not at round {}, as the others are,")
            self._compare(
                [int(part[1, 0]) for part in parts], f"had another state than the others after {settled} rounds"
            )
            return [part[2 : 2 + int(part[0, 0])] for part in parts]

        return wait

    def exchange(self, rows: IntArray) -> list[IntArray]:
        """Return the rows of all ranks by rank, int64 [any, 2] each. Collective, and waits."""
        while True:
            room = self._room
            fits = torch.as_tensor(rows if len(rows) <= room else rows[:0])
            parts = self._all_gather(fits, [[len(rows), 0], [0, 0]], room, self._device(host=True))()
            self._room = max(int(part[0, 0]) for part in parts)
            if self._room <= room:
                return [part[2 : 2 + int(part[0, 0])] for part in parts]

    def _all_gather(
        self, rows: Tensor, header: list[list[int]], room: int, device: torch.device
    ) -> Callable[[], list[IntArray]]:
        """Begin an all-gather of two lines of header and up to `room` rows; return a function that waits for it."""
        if device.type != "cuda":
            payload = _payload(rows.to(device), header, room, device)
            parts = [torch.empty_like(payload) for _ in range(self.size)]
            work = self._begin(parts, payload)

            def wait() -> list[IntArray]:
                work.wait()
                return Transfer(*parts).arrays()

            return wait
        # All on a stream of its own: no training step waits for it, nor reuses the memory that it reads and writes.
        self._side = torch.cuda.Stream(device) if self._side is None else self._side
        self._side.wait_stream(torch.cuda.current_stream(device))
        with torch.cuda.stream(self._side):
            payload = _payload(rows, header, room, device)
            parts = [torch.empty_like(payload) for _ in range(self.size)]
            self._begin(parts, payload).wait()
            transfer = Transfer(*parts)
        if rows.is_cuda:
            rows.record_stream(self._side)
        return transfer.arrays

    def _begin(self, parts: list[Tensor], payload: Tensor) -> Any:
        begin: Any = dist.all_gather  # pyright: ignore[reportUnknownMemberType, reportUnknownVariableType]
        return begin(parts, payload, group=self._group, async_op=True)

    def _device(self, *, host: bool) -> torch.device:
        """Return where tensors of a collective have to be: on the host if the group can do that and it is wanted."""
        backends = dict(part.split(":") for part in str(dist.get_backend_config(self._group)).split(","))
        if backends.get("cuda") == "nccl" and torch.cuda.is_available() and not (host and "cpu" in backends):
            return torch.device("cuda", torch.cuda.current_device())
        return torch.device("cpu" if "cpu" in backends else next(iter(backends)))

    def _compare(self, values: list[int], what: str) -> None:
        """Raise RankError unless all values are equal, naming the ranks that differ; {} in `what` is what most have."""
        common = Counter(values).most_common(1)[0][0]
        if odd := [rank for rank, value in enumerate(values) if value != common]:
            raise RankError(
                f"ranks {odd} of {len(values)} {what.format(common)} (this is rank {self.rank}): give the allocators "
                "of all ranks the same arguments, seed included; load the same state on every rank; and call "
                "observe() or step() on every rank for every batch"
            )


def _payload(rows: Tensor, header: list[list[int]], room: int, device: torch.device) -> Tensor:
    """Return header and rows as int64 [2 + room, 2] on `device`, without waiting for it."""
    payload = torch.zeros((2 + room, 2), dtype=torch.int64, device=device)
    for begin, part in ((0, torch.tensor(header)), (2, rows)):
        # from pageable memory the copy would wait for the device
        source = part.pin_memory() if device.type == "cuda" and not part.is_cuda else part
        payload[begin : begin + len(part)].copy_(source, non_blocking=True)
    return payload
