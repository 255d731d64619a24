"""The task queue: in this process, in several, on a Dask cluster; workers that die; nothing stays behind."""

from __future__ import annotations

import contextlib
import importlib
import os
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from commandline.queued_work import Task, begun, fail, processes, square
from SAMMed3DLib.commandline.task_queue import TimeLeft, WorkerDied, Workers, work_through
from SAMMed3DLib.inference import InputError

TESTING = Path(__file__).resolve().parents[1]


def results(tasks: list[Task], workers: Workers) -> dict[int, Any]:
    found = dict(work_through(square, tasks, workers))
    assert len(found) == len(tasks)
    return found


def is_running(process: int) -> bool:
    try:
        os.kill(process, 0)
    except ProcessLookupError:
        return False
    state = Path(f"/proc/{process}/stat")
    return not state.exists() or state.read_text(encoding="utf-8").rpartition(")")[2].split()[0] != "Z"


def wait_for(condition: Any, seconds: float = 60.0) -> None:
    until = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < until, "it did not happen"
        time.sleep(0.05)


@pytest.mark.parametrize("count", [1, 2])
def test_every_task_is_done_once(tmp_path: Path, count: int) -> None:
    tasks = [Task(number, str(tmp_path)) for number in range(7)]
    assert results(tasks, Workers(count)) == {number: number**2 for number in range(7)}
    assert all(begun(tmp_path, number) == 1 for number in range(7))
    assert (processes(tmp_path) == {os.getpid()}) == (count == 1)


def test_a_process_that_dies_costs_its_task_another_try(tmp_path: Path) -> None:
    tasks = [Task(number, str(tmp_path), deaths=number == 2) for number in range(6)]
    assert results(tasks, Workers(2)) == {number: number**2 for number in range(6)}
    assert begun(tmp_path, 2) == 2


def test_a_task_that_kills_every_process_is_given_up_alone(tmp_path: Path) -> None:
    tasks = [Task(number, str(tmp_path), deaths=99 * (number == 1)) for number in range(5)]
    found = results(tasks, Workers(2))
    assert isinstance(found.pop(1), WorkerDied)
    assert found == {number: number**2 for number in (0, 2, 3, 4)}
    assert begun(tmp_path, 1) <= 3


@pytest.mark.parametrize("count", [1, 2])
def test_an_error_of_the_work_ends_all(tmp_path: Path, count: int) -> None:
    with pytest.raises(ZeroDivisionError):
        list(work_through(fail, [Task(n, str(tmp_path)) for n in range(3)], Workers(count)))


def test_whoever_stops_listening_ends_the_processes(tmp_path: Path) -> None:
    tasks = [Task(number, str(tmp_path), pause=0.0 if number == 0 else 600.0) for number in range(4)]
    with contextlib.closing(work_through(square, tasks, Workers(2))) as going:
        assert next(going) == (0, 0)
        wait_for(lambda: begun(tmp_path, 1))
    wait_for(lambda: not any(map(is_running, processes(tmp_path))))


@pytest.mark.skipif(sys.platform == "win32", reason="processes have no parents to look after there")
def test_processes_do_not_outlive_a_parent_that_is_killed(tmp_path: Path) -> None:
    code = (
        "from pathlib import Path\n"
        "from commandline.queued_work import Task, square\n"
        "from SAMMed3DLib.commandline.task_queue import Workers, work_through\n"
        "if __name__ == '__main__':\n"
        f"    tasks = [Task(n, {str(tmp_path)!r}, pause=600.0) for n in range(4)]\n"
        "    list(work_through(square, tasks, Workers(2)))\n"
    )
    script = tmp_path.parent / "parent.py"
    script.write_text(code)
    path = os.pathsep.join(str(each) for each in (TESTING, TESTING.parent / "SAMMed3D"))
    parent = subprocess.Popen([sys.executable, str(script)], env=os.environ | {"PYTHONPATH": path})
    try:
        wait_for(lambda: len(processes(tmp_path)) == 2)
    finally:
        parent.kill()
        parent.wait()
    wait_for(lambda: not any(map(is_running, processes(tmp_path))))


@pytest.mark.parametrize(
    "workers, message",
    [
        (Workers(0), "--workers must be 1 or more"),
        (Workers(5000), "--workers must be 256 or fewer on one machine"),
        (Workers(threads=0), "--threads must be 1 or more"),
        (Workers(scheduler="tcp://x:1", slurm=True), "either --scheduler or --slurm"),
    ],
)
def test_workers_that_cannot_be(workers: Workers, message: str) -> None:
    with pytest.raises(InputError, match=message):
        workers.check()


def test_the_cores_are_divided(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("SAMMed3DLib.commandline.task_queue._cores", lambda: 12)
    assert [Workers(n).threads_each for n in (1, 4, 5, 99)] == [None, 3, 2, 1]
    assert Workers(4, threads=2).threads_each == 2


def test_without_dask_its_package_is_named(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    for name in ("distributed", "dask_jobqueue"):
        monkeypatch.setitem(sys.modules, name, None)
    for workers in (Workers(scheduler="tcp://127.0.0.1:1"), Workers(slurm=True)):
        with pytest.raises(InputError, match=r"pip install 'sammed3d\[cluster\]'"):
            list(work_through(square, [Task(1, str(tmp_path))], workers))


def test_time_left_counts_only_what_took_time() -> None:
    now = [0.0]
    left = TimeLeft(6, clock=lambda: now[0])
    assert left.line("a", "done", worked=False) == "1/6 a: done"
    now[0] = 600.0
    assert left.line("b", "done", worked=True) == "2/6 b: done, about 40 min left"
    now[0] = 900.0
    assert left.line("c", "done", worked=True) == "3/6 c: done, about 22 min left"
    assert [left.line("d", "done", worked=False) for _ in range(3)][-1] == "6/6 d: done"


# -- Dask -------------------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def cluster() -> Iterator[Any]:
    """Two worker processes of this machine."""
    distributed = pytest.importorskip("distributed")
    with distributed.LocalCluster(
        n_workers=2, threads_per_worker=1, processes=True, dashboard_address=None, host="127.0.0.1"
    ) as cluster:
        yield cluster


def test_dask_does_the_same_and_survives_a_worker(cluster: Any, tmp_path: Path) -> None:
    tasks = [Task(number, str(tmp_path), deaths=number == 3) for number in range(8)]
    found = results(tasks, Workers(scheduler=cluster.scheduler_address))
    assert found == {number: number**2 for number in range(8)}
    assert begun(tmp_path, 3) == 2


def test_dask_gives_up_a_task_that_kills_every_worker(cluster: Any, tmp_path: Path) -> None:
    cluster.scheduler.allowed_failures = 1
    # not at once: Dask does not replace workers that die while they start
    tasks = [Task(number, str(tmp_path), deaths=99 * (number == 1), pause=0.5) for number in range(3)]
    found = results(tasks, Workers(scheduler=cluster.scheduler_address))
    assert isinstance(found.pop(1), WorkerDied)
    assert found == {0: 0, 2: 4}


def test_a_result_whose_worker_dies_after_it_was_fetched(
    cluster: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Dask then calls the future lost, although its result is here."""
    import distributed

    monkeypatch.setattr(distributed.Future, "status", property(lambda future: "lost"))
    tasks = [Task(number, str(tmp_path)) for number in range(3)]
    assert results(tasks, Workers(scheduler=cluster.scheduler_address)) == {0: 0, 1: 1, 2: 4}


def test_a_cluster_that_lacks_the_package(cluster: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "only_here.py").write_text("def work(task):\n    return 1\n", encoding="utf-8")
    monkeypatch.syspath_prepend(tmp_path)
    work = importlib.import_module("only_here").work
    with pytest.raises(InputError, match="has no only_here; install the same sammed3d where"):
        list(work_through(work, [1], Workers(scheduler=cluster.scheduler_address)))


def test_a_scheduler_that_is_not_there(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    pytest.importorskip("distributed")
    monkeypatch.setattr("SAMMed3DLib.commandline.task_queue._SECONDS_FOR_SCHEDULER", 1)
    with pytest.raises(InputError, match="no Dask scheduler answers at tcp://127.0.0.1:9"):
        list(work_through(square, [Task(1, str(tmp_path))], Workers(scheduler="tcp://127.0.0.1:9")))


@pytest.mark.skipif(sys.platform == "win32", reason="no Slurm there")
def test_slurm_jobs_are_the_workers(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """With an sbatch that runs the job at once, on this machine."""
    pytest.importorskip("dask_jobqueue")
    programs, work = tmp_path / "bin", tmp_path / "work"
    programs.mkdir()
    work.mkdir()
    for name, body in {
        # dask-jobqueue removes its script as soon as this ends
        "sbatch": f'cp "$1" {tmp_path}/job.sh\nbash {tmp_path}/job.sh > {tmp_path}/job.log 2>&1 &\n'
        f'echo $! >> {tmp_path}/jobs\necho "Submitted batch job $!"\n',
        "scancel": "for job in $*; do pkill -P $job; kill $job; done\n",
    }.items():
        (programs / name).write_text(f"#!/bin/bash\n{body}")
        (programs / name).chmod(0o755)
    monkeypatch.setenv("PATH", f"{programs}{os.pathsep}{os.environ['PATH']}")
    monkeypatch.setenv("PYTHONPATH", os.pathsep.join(str(each) for each in (TESTING, TESTING.parent / "SAMMed3D")))
    monkeypatch.chdir(tmp_path)
    found = results([Task(number, str(work)) for number in range(4)], Workers(1, threads=1, slurm=True))
    assert found == {number: number**2 for number in range(4)}
    assert os.getpid() not in processes(work) and (tmp_path / "jobs").exists()
    wait_for(lambda: not any(map(is_running, processes(work))))
