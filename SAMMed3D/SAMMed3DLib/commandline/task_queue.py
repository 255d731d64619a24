"""Runs one function on many scans: in this process, in several on this machine, or on a Dask cluster.

All three are a :class:`concurrent.futures.Executor`, so that the commands know one loop only. A worker that dies costs
its task another try, never the others.
"""

from __future__ import annotations

import asyncio
import contextlib
import importlib.util
import multiprocessing
import os
import signal
import threading
import time
import warnings
from collections import Counter, deque
from collections.abc import Callable, Collection, Generator, Sequence
from concurrent.futures import (
    FIRST_COMPLETED,
    BrokenExecutor,
    CancelledError,
    Executor,
    Future,
    ProcessPoolExecutor,
    wait,
)
from dataclasses import dataclass
from typing import Any, TypeVar

from ..inference.errors import InputError
from .terminal import duration

Task = TypeVar("Task")
Result = TypeVar("Result")

#: A task whose worker died so often, while it was the only one at work, is given up.
_MOST_DEATHS = 2
_MOST_WORKERS = 256
#: Tasks that a Dask scheduler is given in advance.
_AHEAD = 500
_SECONDS_FOR_SCHEDULER = 30
#: After so long without a result it is looked whether there is any worker.
_SECONDS_WITHOUT_WORD = 60.0
_NO_DASK = "{} is not installed: pip install 'sammed3d[cluster]'"
_OTHER_DASK = "{}; install the same sammed3d where the scheduler and its workers run"


class WorkerDied(Exception):
    """The process that worked on a task ended again and again; the message says so for people."""


@dataclass(frozen=True)
class Workers:
    """The processes that work: how many, where, and with how many threads each.

    Attributes:
        count: processes on this machine, or jobs on Slurm; 1 works in this process, one task after the other.
        threads: of each process, for the network; None: the cores, divided among the processes.
        scheduler: address of a Dask scheduler, or None.
        slurm: ask Slurm for the workers.
    """

    count: int = 1
    threads: int | None = None
    scheduler: str | None = None
    slurm: bool = False

    @property
    def are_elsewhere(self) -> bool:
        """Whether the workers may run in other folders or on other machines."""
        return self.slurm or self.scheduler is not None

    def check(self) -> None:
        """Raises InputError for options that contradict each other."""
        if self.count < 1:
            raise InputError(f"--workers must be 1 or more, not {self.count}")
        if self.count > _MOST_WORKERS and not self.are_elsewhere:
            raise InputError(f"--workers must be {_MOST_WORKERS} or fewer on one machine, not {self.count}")
        if self.threads is not None and self.threads < 1:
            raise InputError(f"--threads must be 1 or more, not {self.threads}")
        if self.slurm and self.scheduler is not None:
            raise InputError("give either --scheduler or --slurm, not both")

    @property
    def threads_each(self) -> int | None:
        """For the network in each process; None leaves it to PyTorch."""
        if self.threads is not None or self.are_elsewhere or self.count == 1:
            return self.threads
        return max(1, _cores() // self.count)


def _cores() -> int:
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def use_threads(count: int | None) -> None:
    """Lets PyTorch compute with so many threads in this process; None changes nothing."""
    if count is not None:
        import torch

        torch.set_num_threads(count)


#: A Dask worker may have several threads: one scan at a time in each process all the same, for its memory.
ONE_AT_A_TIME = threading.Lock()


def work_through(
    work: Callable[[Task], Result], tasks: Sequence[Task], workers: Workers
) -> Generator[tuple[int, Result | WorkerDied], None, None]:
    """Each task's number and result, as they come.

    Where a process dies (killed, out of memory), the tasks that were in work are tried again one after the other, so
    that the one that kills is known. Dask's scheduler tries them again by itself, and only then tells.

    Args:
        work: a function of a module, so that other processes find it. What it raises ends everything.
        tasks: can be pickled.
        workers: who does it.

    Raises:
        InputError: the cluster cannot be reached, or is lost.
    """
    with contextlib.ExitStack() as opened:
        start, at_once, seen = _start(workers, work.__module__, opened)
        waiting, suspects = deque(range(len(tasks))), deque[int]()
        running: dict[Future, int] = {}
        alone = False
        deaths: Counter[int] = Counter()
        executor = start()
        try:
            while waiting or suspects or running:
                lost: list[int] = []
                if not running:
                    alone = bool(suspects)
                while (suspects if alone else waiting) and len(running) < (1 if alone else at_once) and not lost:
                    number = (suspects if alone else waiting).popleft()
                    try:
                        running[executor.submit(work, tasks[number])] = number
                    except BrokenExecutor:
                        lost.append(number)
                ended = _next_ended(running, workers, seen) if running else set()
                for future in ended:
                    number = running.pop(future)
                    try:
                        result = future.result()
                    except BrokenExecutor:
                        lost.append(number)
                        continue
                    except CancelledError as error:
                        raise InputError("the Dask scheduler was lost: start again, what is done is kept") from error
                    except Exception as error:
                        if type(error).__name__ != "KilledWorker":  # Dask's, after several tries
                            raise
                        if not alone:  # Dask blames whatever a dead worker had been given
                            suspects.append(number)
                            continue
                        yield number, WorkerDied("its worker died several times: killed, or out of memory")
                        continue
                    yield number, result
                if lost:
                    lost += running.values()
                    running.clear()
                    _end(executor)
                    executor = start()
                    if len(lost) == 1:
                        deaths[lost[0]] += 1
                    for number in sorted(lost):
                        if deaths[number] >= _MOST_DEATHS:
                            yield number, WorkerDied("its process died: killed, or out of memory")
                        else:
                            suspects.append(number)
            executor.shutdown()
        except BaseException:
            _end(executor)
            raise


def _next_ended(running: Collection[Future], workers: Workers, seen: Callable[[], int]) -> set[Future]:
    """Waits for a task to end, and reports when no worker process is there to run any."""
    while True:
        ended = wait(running, _SECONDS_WITHOUT_WORD, FIRST_COMPLETED).done
        if ended:
            return ended
        if not seen():
            place = "Slurm has started no worker yet" if workers.slurm else f"{workers.scheduler} has no worker"
            warnings.warn(f"{place}: waiting for one", stacklevel=2)


def _start(
    workers: Workers, module: str, opened: contextlib.ExitStack
) -> tuple[Callable[[], Executor], int, Callable[[], int]]:
    """What starts an executor, how many tasks it gets at once, and what tells how many workers there are.

    Raises:
        InputError: the cluster cannot be reached, or lacks the package of the module that it shall run.
    """
    if workers.are_elsewhere:
        client = _client(workers, opened)
        package = module.partition(".")[0]
        # a worker that cannot read its task would die of it without a word
        for address, found in client.run(importlib.util.find_spec, package, on_error="ignore").items():
            if found is None:
                raise InputError(_OTHER_DASK.format(f"the Dask worker {address} has no {package}"))
        return (lambda: OnDask(client), _AHEAD, lambda: len(client.scheduler_info()["workers"]))
    if workers.count == 1:
        return ThisProcess, 1, lambda: 1
    spawn = multiprocessing.get_context("spawn")  # a fork would inherit locks that PyTorch's threads hold

    def pool() -> ProcessPoolExecutor:
        return ProcessPoolExecutor(workers.count, spawn, _begin_process, (workers.threads_each,))

    return pool, workers.count, lambda: workers.count


class ThisProcess(Executor):
    """Does each task at once, in this process."""

    def submit(self, function: Callable[..., Any], /, *words: Any, **more: Any) -> Future:
        """The function's result, or its error."""
        future: Future = Future()
        try:
            future.set_result(function(*words, **more))
        except Exception as error:
            future.set_exception(error)
        return future


class OnDask(Executor):
    """Executor that gives each task to a Dask cluster.

    Not Dask's own executor: that takes a result whose worker dies just after it was fetched for an error.
    """

    def __init__(self, client: Any) -> None:
        self._client, self._given = client, set[Any]()

    def submit(self, function: Callable[..., Any], /, *words: Any, **more: Any) -> Future:
        """The result, once a worker has it and it is fetched; until then the cluster does it again when it is lost."""
        remote = self._client.submit(function, *words, pure=False, retries=1, **more)
        self._given.add(remote)

        async def fetched() -> Any:
            try:
                return await remote
            except Exception as error:  # Dask wraps what its scheduler could not import
                missing = error if isinstance(error, ImportError) else error.__cause__
                if not isinstance(missing, ImportError):
                    raise
                raise InputError(_OTHER_DASK.format(f"the Dask scheduler: {missing}")) from error
            finally:
                self._given.discard(remote)

        return asyncio.run_coroutine_threadsafe(fetched(), self._client.loop.asyncio_loop)

    def shutdown(self, wait: bool = True, *, cancel_futures: bool = False) -> None:
        """Takes back what is still to be done; with ``wait``, all is done."""
        if not wait:
            self._client.cancel(list(self._given))


def _begin_process(threads: int | None) -> None:
    """In each new process: Ctrl+C is for the parent, and where that ends, so does the child."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    parent = multiprocessing.parent_process()

    def follow() -> None:
        if parent is not None:
            parent.join()
            os._exit(1)

    threading.Thread(target=follow, daemon=True).start()
    if threads is not None:  # read by PyTorch when it is imported, which is not before there is work
        os.environ["OMP_NUM_THREADS"] = os.environ["MKL_NUM_THREADS"] = str(threads)


def _end(executor: Executor) -> None:
    """Ends an executor at once, without waiting for the tasks that it is running."""
    if isinstance(executor, ProcessPoolExecutor):
        processes = list((executor._processes or {}).values())  # Python 3.14 has terminate_workers
        for process in processes:
            process.terminate()
        executor.shutdown(wait=False, cancel_futures=True)
        for process in processes:
            process.join()
    else:
        executor.shutdown(wait=False)


def _client(workers: Workers, opened: contextlib.ExitStack) -> Any:
    """Dask's client, closed with ``opened``. Raises InputError."""
    try:
        from distributed import Client
    except ImportError as error:
        raise InputError(_NO_DASK.format("Dask (distributed)")) from error
    cluster = workers.scheduler if workers.scheduler is not None else opened.enter_context(_slurm(workers))
    try:
        client = opened.enter_context(Client(cluster, timeout=_SECONDS_FOR_SCHEDULER))
    except (OSError, ValueError) as error:
        raise InputError(
            f"no Dask scheduler answers at {workers.scheduler}: check the address, such as tcp://10.0.0.1:8786, and "
            "that its version is this one's"
        ) from error
    if workers.slurm:
        cluster.adapt(minimum_jobs=1, maximum_jobs=workers.count)  # type: ignore[union-attr]
    return client


def _slurm(workers: Workers) -> Any:
    """Dask's cluster of Slurm jobs, by ~/.config/dask/jobqueue.yaml. Raises InputError."""
    try:
        from dask import config
        from dask_jobqueue import SLURMCluster
    except ImportError as error:
        raise InputError(_NO_DASK.format("dask-jobqueue")) from error
    stated = {name: config.get(f"jobqueue.slurm.{name}", None) for name in ("cores", "memory")}
    missing = {"cores": workers.threads or 4, "memory": "8GB"}
    words: dict[str, Any] = {name: value for name, value in missing.items() if stated[name] is None}
    try:
        return SLURMCluster(processes=1, **words)
    except (OSError, ValueError, RuntimeError) as error:
        raise InputError(f"no Slurm jobs can be asked for: {error}; see ~/.config/dask/jobqueue.yaml") from error


class TimeLeft:
    """Estimates the time left from what took time; what was there already counts as nothing."""

    def __init__(self, total: int, clock: Callable[[], float] = time.monotonic) -> None:
        self._total, self._clock, self._begun = total, clock, clock()
        self.done = self._worked = 0

    def line(self, about: str, text: str, worked: bool) -> str:
        """Counts one task more: "3/12 its name: what became of it", and the time left where it can be known."""
        self.done += 1
        self._worked += worked
        line = f"{self.done}/{self._total} {about}: {text}"
        if not self._worked or self.done == self._total:
            return line
        seconds = (self._clock() - self._begun) / self._worked * (self._total - self.done)
        return f"{line}, about {duration(seconds)} left"
