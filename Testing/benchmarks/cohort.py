"""``sammed3d segment-all`` over many scans: one process, two workers, Dask's two; and a restart after a kill.

    python Testing/benchmarks/cohort.py [--scans 12] [--shared FOLDER ...] [--shape 110 230 300] [--spacing 2.7 1.4 1.1]

Scans are those found in the shared folders, and synthetic chests for the rest. All three ways run one after the other:
compare their ratios, not their seconds with other machines'. Memory is the most that the command and each worker held
at once (resident set), looked at ten times a second.
"""

from __future__ import annotations

import argparse
import csv
import os
import shutil
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Sequence
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
sys.path[:0] = [str(ROOT / "SAMMed3D"), str(Path(__file__).parent)]

from encoder import machine  # noqa: E402

from SAMMed3DLib.commandline.task_queue import Workers  # noqa: E402
from SAMMed3DLib.files.scan_search import find_scans  # noqa: E402
from SAMMed3DLib.files.volume_io import Volume, write_volume  # noqa: E402
from SAMMed3DLib.synthesis import chest_phantom  # noqa: E402

WORKERS = 2


def children_of(process: int) -> list[int]:
    """A process's children, theirs, and so on."""
    parents: dict[int, list[int]] = {}
    for status in Path("/proc").glob("[0-9]*/stat"):
        try:
            fields = status.read_text(encoding="utf-8").rpartition(")")[2].split()
        except OSError:  # it has ended
            continue
        parents.setdefault(int(fields[1]), []).append(int(status.parent.name))
    found, todo = [], [process]
    while todo:
        own = parents.get(todo.pop(), [])
        found += own
        todo += own
    return found


def resident_mb(process: int) -> float:
    """What a process holds now."""
    try:
        pages = int(Path(f"/proc/{process}/statm").read_text(encoding="utf-8").split()[1])
    except OSError:
        return 0.0
    return pages * os.sysconf("SC_PAGE_SIZE") / 2**20


class Watch(threading.Thread):
    """The most that each process below one held."""

    def __init__(self, process: int) -> None:
        super().__init__(daemon=True)
        self.most: dict[int, float] = {}
        self._process, self._ended = process, threading.Event()

    def run(self) -> None:
        while not self._ended.wait(0.1):
            for each in (self._process, *children_of(self._process)):
                self.most[each] = max(self.most.get(each, 0.0), resident_mb(each))

    def stop(self) -> list[float]:
        """Their peaks, the largest first."""
        self._ended.set()
        self.join()
        return sorted(self.most.values(), reverse=True)


def command(folder: Path, out: Path, *words: str) -> list[str]:
    return [sys.executable, "-m", "SAMMed3DLib.cli", "segment-all", str(folder), "--out", str(out), *words]


def environment() -> dict[str, str]:
    return os.environ | {"PYTHONPATH": str(ROOT / "SAMMed3D")}


def measured(name: str, words: list[str], watched: int | None = None) -> tuple[float, list[float]]:
    """Seconds of a command, and the peaks of its processes (or of those below ``watched``), MB."""
    begun = time.perf_counter()
    run = subprocess.Popen(words, env=environment(), stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True)
    watch = Watch(run.pid if watched is None else watched)
    watch.start()
    told = run.communicate()[1]
    seconds = time.perf_counter() - begun
    peaks = watch.stop()
    if run.returncode:
        raise SystemExit(f"{name}: exit code {run.returncode}\n{told}")
    return seconds, peaks


def rows(out: Path) -> list[dict[str, str]]:
    with (out / "nodules.csv").open(encoding="utf-8", newline="") as file:
        return list(csv.DictReader(file))


def restarted(folder: Path, out: Path, scans: int) -> str:
    """Kills a run when a third is done, starts it again, and says what was done twice."""
    run = subprocess.Popen(
        command(folder, out, "--workers", str(WORKERS)),
        env=environment(),
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )
    while len(list(out.glob("*/record.json"))) < scans // 3:
        if run.poll() is not None:
            raise SystemExit("the run that was to be killed ended by itself")
        time.sleep(0.05)
    run.kill()
    run.wait()
    time.sleep(5.0)  # its workers follow
    before = {record: record.stat().st_mtime_ns for record in out.glob("*/record.json")}
    measured("restart", command(folder, out, "--workers", str(WORKERS)))
    again = [record for record, moment in before.items() if record.stat().st_mtime_ns != moment]
    return f"{len(before)} of {scans} were done when it was killed, {len(again)} of them were done again"


def main(arguments: Sequence[str] | None = None) -> int:
    """Runs the benchmark; returns the exit code: 1 when tables differ or a finished scan was repeated."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--scans", type=int, default=12)
    parser.add_argument("--shared", type=Path, nargs="*", default=())
    parser.add_argument("--shape", type=int, nargs=3, default=(110, 230, 300), metavar=("K", "J", "I"))
    parser.add_argument("--spacing", type=float, nargs=3, default=(2.7, 1.4, 1.1), metavar=("K", "J", "I"))
    options = parser.parse_args(arguments)
    with tempfile.TemporaryDirectory() as made:
        folder = Path(made) / "scans"
        folder.mkdir()
        shared = [scan for place in options.shared for scan in find_scans(place)[0]][: options.scans]
        for scan in shared:
            for file in scan.files:
                target = folder / scan.name / file.name
                target.parent.mkdir(exist_ok=True)
                shutil.copyfile(file, target)
        for seed in range(options.scans - len(shared)):
            phantom = chest_phantom(seed, tuple(options.shape), tuple(options.spacing))
            path = folder / f"chest{seed}.nii.gz"
            write_volume(path, Volume(phantom.array_kji, phantom.ijk_to_ras, path.name, path))
        print(f"{machine(os.cpu_count())}; {len(shared)} shared and {options.scans - len(shared)} synthetic scans\n")
        outs = {name: Path(made) / name for name in ("one", "two", "dask", "killed")}
        found = {"one process": measured("one", command(folder, outs["one"]))}
        threads = str(Workers(WORKERS).threads_each)
        words = ("--workers", str(WORKERS))
        found[f"{WORKERS} workers"] = measured("two", command(folder, outs["two"], *words))
        import distributed

        with distributed.LocalCluster(
            n_workers=WORKERS, threads_per_worker=1, dashboard_address=None, host="127.0.0.1"
        ) as cluster:
            words = ("--scheduler", cluster.scheduler_address, "--threads", threads)
            found[f"Dask, {WORKERS} workers"] = measured("dask", command(folder, outs["dask"], *words), os.getpid())
        base = found["one process"][0]
        print("| way | s | ratio | peak MB of its processes |\n|---|---|---|---|")
        for name, (seconds, peaks) in found.items():
            shown = ", ".join(f"{each:.0f}" for each in peaks if each > 50.0)
            print(f"| {name} | {seconds:.0f} | {seconds / base:.2f} | {shown} |")
        same = (outs["two"] / "nodules.csv").read_bytes() == (outs["dask"] / "nodules.csv").read_bytes()
        one, two = rows(outs["one"]), rows(outs["two"])
        print(f"\ntables of both pairs of workers: {'the same to the bit' if same else 'DIFFERENT'}")
        print(f"nodules: {len(one)} by one process with all cores, {len(two)} by workers with {threads} thread(s) each")
        told = restarted(folder, outs["killed"], options.scans)
        print(f"restart: {told}")
        same = same and (outs["killed"] / "nodules.csv").read_bytes() == (outs["two"] / "nodules.csv").read_bytes()
        print(f"table after the restart: {'the same to the bit' if same else 'DIFFERENT'}")
        return 0 if same and ", 0 of them" in told else 1


if __name__ == "__main__":
    sys.exit(main())
