"""The processes of a job as its code sees them: which process leads, what runs only once, and where all wait.

Every rank runs the same code. Outside training under DDP there is no torch process group, so a rank waits for others
only in the functions of this module.
"""

import hashlib
import os
import pickle
import socket
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import timedelta
from typing import Any, TypeVar

import torch
from torch import distributed

from distdiff.errors import RankLost, UserError, first_line
from distdiff.ranks.arrangement import Rank
from distdiff.ranks.processes import cores
from distdiff.wording import some

T = TypeVar("T")
# How long a rank waits for the others, of which the slowest may be hours behind. A lost rank is noticed at once,
# because its connection closes.
PATIENCE = timedelta(days=30)
LEFT_ALONE = "another rank is gone, and its own message says why"
JOINING = timedelta(minutes=30)
SILENCE = 5.0  # seconds after which a rank that waits for others to join says for whom, and repeats it ever more rarely
PARTING = 60  # seconds


class World:
    """The `size` processes of a job; this process has index `rank`. If `size` is 1, no method waits or costs time."""

    def __init__(self, place: Rank | None = None) -> None:
        self.place = place
        self._alone = place is None
        self._trainings = self._counters = 0
        if place is not None:
            self._store = _store(place)
            self._group = _group(place, distributed.PrefixStore("ranks", self._store))
            shared = hashlib.sha256(repr(cores()).encode()).hexdigest()[:16]
            self._neighbours = Counter(distributed.PrefixStore(f"cores{place.node}-{shared}", self._store))
            self._neighbours.add(1)

    @property
    def rank(self) -> int:
        return 0 if self._alone else self.place.rank

    @property
    def size(self) -> int:
        return 1 if self._alone else self.place.size

    @property
    def leads(self) -> bool:
        return self.rank == 0

    @property
    def local_rank(self) -> int:
        return 0 if self.place is None else self.place.local_rank

    def fair_share(self) -> int:
        """How many threads this process may keep busy: its cores divided by the number of ranks on these cores."""
        return max(1, len(cores()) // (1 if self._alone else self._neighbours.add(0)))

    def barrier(self) -> None:
        """Returns when every rank has called this method."""
        if self.size > 1:
            _wait(self._group.barrier())

    def once(self, make: Callable[[], T]) -> T:
        """Runs `make` on the leading rank alone. All ranks wait, and get its result or raise its `UserError`."""
        if self.size == 1:
            return make()
        outcome: tuple[T | None, UserError | None] = (None, None)
        if self.leads:
            with self.alone():
                try:
                    outcome = (make(), None)
                except UserError as error:
                    outcome = (None, error)
        result, error = self._broadcast(outcome)
        if error is not None:
            error.shared = True
            raise error
        return result

    def agreed(self, name: str, value: str) -> str:
        """All ranks get the `value` of the rank that was the first to call this method with `name`. No rank waits.

        Call this method for a value that each rank looks up by itself and that may change between two look-ups. The
        `value` must not be empty.
        """
        if self.place is None:
            return value
        try:
            return distributed.PrefixStore("agreed", self._store).compare_set(name, "", value).decode()
        except RuntimeError:
            raise RankLost(LEFT_ALONE) from None

    @contextmanager
    def alone(self) -> Iterator[None]:
        """Inside the block, this process behaves as if it were the only process of its job."""
        before, self._alone = self._alone, True
        try:
            yield
        finally:
            self._alone = before

    def counter(self) -> "Counter":
        """A new counter that all ranks share. All ranks must create their counters in the same order.

        One that a rank creates `alone` is its own.
        """
        if self.size == 1:
            return Counter(None)
        self._counters += 1
        return Counter(distributed.PrefixStore(f"counter{self._counters}", self._store))

    def part(self) -> None:
        """Every rank calls this at the job's end.

        The leading rank hosts the store, so it waits until the others have called this too, but at most `PARTING` s.
        """
        here = self.counter()
        deadline = time.monotonic() + PARTING
        here.add(1)
        while self.leads and here.add(0) < self.size and time.monotonic() < deadline:
            time.sleep(0.01)

    @contextmanager
    def process_group(self) -> Iterator[None]:
        """Inside the block, all ranks form a torch process group, for training under DDP."""
        self._trainings += 1
        store = distributed.PrefixStore(f"training{self._trainings}", self._store)
        backend = "cpu:gloo,cuda:nccl" if torch.cuda.is_available() else "gloo"
        distributed.init_process_group(backend, store=store, rank=self.place.rank, world_size=self.place.size)
        try:
            yield
        except RuntimeError as error:
            if "peer" not in str(error):
                raise
            raise RankLost(LEFT_ALONE) from None
        finally:
            distributed.destroy_process_group()

    def _broadcast(self, value: Any) -> Any:
        """The leading rank's `value` on every rank. The value is pickled only to send it between our own processes."""
        message = torch.frombuffer(bytearray(pickle.dumps(value)), dtype=torch.uint8) if self.leads else None
        length = torch.tensor([len(message) if self.leads else 0])
        _wait(self._group.broadcast(length, 0))
        message = message if self.leads else torch.empty(int(length), dtype=torch.uint8)
        _wait(self._group.broadcast(message, 0))
        return value if self.leads else pickle.loads(message.numpy().tobytes())


class Counter:
    """A number that every rank may add to and read without waiting."""

    def __init__(self, store: "distributed.Store | None") -> None:
        self._store = store
        self._own = 0

    def add(self, count: int) -> int:
        """Adds `count` and returns the sum of what all ranks have added."""
        self._own += count
        if self._store is None:
            return self._own
        try:
            return self._store.add("sum", count)
        except RuntimeError:
            raise RankLost(LEFT_ALONE) from None


_world = World()


def world() -> World:
    """The job to which this process belongs, as a `World`."""
    return _world


def join(place: Rank) -> World:
    """Makes this process a rank of a job and returns when all ranks have joined. A process joins only once."""
    global _world
    if _world.place == place:  # a later job of a multirun whose ranks `srun` or `torchrun` started
        return _world
    # Lightning itself reads these variables in some places.
    os.environ |= {"RANK": str(place.rank), "LOCAL_RANK": str(place.local_rank), "NODE_RANK": str(place.node)}
    os.environ |= {"WORLD_SIZE": str(place.size)}
    _world = World(place)
    _world.barrier()
    return _world


def _store(place: Rank) -> "distributed.Store":
    """The store of a job, once all ranks have joined. While a rank waits for others, it says for whom."""
    waiting = Waiting(place)
    by_file = os.sep in place.rendezvous
    store = distributed.FileStore(place.rendezvous, place.size) if by_file else _tcp_store(place, waiting)
    here, ranks = distributed.PrefixStore("joined", store), [str(rank) for rank in range(place.size)]
    try:
        here.set(str(place.rank), "here")
        while not here.check(ranks):
            waiting.on(lambda: [rank for rank in ranks if not here.check([rank])])
    except RuntimeError:
        raise RankLost(LEFT_ALONE) from None
    return store


def _tcp_store(place: Rank, waiting: "Waiting") -> "distributed.Store":
    host, port = place.rendezvous.rsplit(":", 1)
    # TCPStore, too, would wait for the leading rank, but in silence, deaf to signals, and with a C++ trace at the end.
    while not place.leads and not _answers(host, int(port)):
        waiting.on(lambda: ["0"])
    options = {"is_master": place.leads, "wait_for_workers": False, "timeout": JOINING}
    try:
        return distributed.TCPStore(host, int(port), place.size, **options)
    except (RuntimeError, OSError) as error:
        raise RankLost(f"the ranks cannot meet at {place.rendezvous}: {first_line(error)}") from None


def _answers(host: str, port: int) -> bool:
    try:
        with socket.create_connection((host, port), timeout=SILENCE):
            return True
    except OSError:
        return False


class Waiting:
    """Says for which ranks this rank waits, and gives up after `JOINING`."""

    def __init__(self, place: Rank) -> None:
        self.place = place
        self.began = time.monotonic()
        self.next = SILENCE

    def on(self, missing: Callable[[], list[str]]) -> None:
        """Waits a moment for the ranks that `missing` returns. Raises `RankLost` once the time is up."""
        waited = time.monotonic() - self.began
        if waited > JOINING.total_seconds():
            raise RankLost(f"gave up waiting: {self._for(missing())}")
        if waited > self.next:
            self.next *= 4
            print(f"distdiff: {self._for(missing())}", file=sys.stderr, flush=True)
        time.sleep(min(0.5, 0.02 + waited / 20))

    def _for(self, missing: list[str]) -> str:
        place = self.place
        hint = f"; {place.told_by}" if place.told_by else ""
        return (
            f"rank {place.rank} waits at {place.rendezvous} for {len(missing)} of {place.size} ranks (rank "
            f"{some(missing)}){hint}"
        )


def _group(place: Rank, store: "distributed.Store") -> "distributed.ProcessGroupGloo":
    try:
        return distributed.ProcessGroupGloo(store, place.rank, place.size, PATIENCE)
    except RuntimeError as error:
        raise RankLost(
            f"the ranks cannot connect ({first_line(error)}); GLOO_SOCKET_IFNAME=<name> chooses the network interface"
        ) from None


def _wait(work: "distributed.Work") -> None:
    try:
        work.wait()
    except RuntimeError:
        raise RankLost(LEFT_ALONE) from None
