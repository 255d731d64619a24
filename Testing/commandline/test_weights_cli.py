"""``sammed3d weights`` from argument list to exit code, against a server that is not there."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from SAMMed3DLib import cli
from SAMMed3DLib.weights import default_checkpoint
from SAMMed3DLib.weights import store as weights_store
from SAMMed3DLib.weights.download import DownloadError

ROOT = Path(__file__).resolve().parents[2]


@pytest.fixture
def folder(tmp_path) -> Path:
    return tmp_path / "modèles"


@pytest.fixture
def fetched(monkeypatch) -> list[tuple]:
    """Downloads write a small file at once."""
    calls: list[tuple] = []

    def fetch(url, path, *, sha256, size, progress) -> str:  # noqa: ANN001
        calls.append((url, sha256, size))
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(b"weights")
        for done in range(0, 400_000_001, 25_000_000):
            assert progress(done, 400_000_000)
        return ""

    monkeypatch.setattr(weights_store, "download", fetch)
    return calls


def run(folder: Path, *words: str) -> int:
    return cli.main(["weights", *words, "--folder", str(folder)])


def test_list_download_path_and_remove(folder, fetched, capsys) -> None:
    assert run(folder, "list") == 0
    listed = capsys.readouterr().out
    assert f"{default_checkpoint()}" in listed
    assert "lung_nodule_ct_detection" in listed
    assert "sam_med3d_turbo  not installed   402.0 MB  Apache-2.0" in listed
    assert "https://huggingface.co/blueyo0/SAM-Med3D" in listed
    assert f"0.0 MB in {folder}" in listed

    assert run(folder, "download", "sam_med3d_turbo") == 0
    printed = capsys.readouterr()
    target = folder / "sam_med3d_turbo.pth"
    assert printed.out.strip() == str(target)
    assert "downloading SAM-Med3D turbo, Apache-2.0, from https://huggingface.co" in printed.err
    assert "50/400 " in printed.err and printed.err.count("/400") == 11
    assert len(fetched) == 1 and len(fetched[0][1]) == 64

    assert run(folder, "path", "sam_med3d_turbo") == 0
    assert capsys.readouterr().out.strip() == str(target)
    assert run(folder, "download", "sam_med3d_turbo") == 0
    assert len(fetched) == 1, "what is there is not fetched again"
    capsys.readouterr()
    assert run(folder, "remove", "sam_med3d_turbo") == 0
    assert capsys.readouterr().out.strip() == "sam_med3d_turbo removed, 0.0 MB freed"
    assert not target.exists()


def test_the_folder_and_its_default(folder, monkeypatch, capsys) -> None:
    assert run(folder, "path") == 0
    assert capsys.readouterr().out.strip() == str(folder)
    monkeypatch.setattr(weights_store, "default_folder", lambda: folder / "default")
    assert cli.main(["weights", "path"]) == 0
    assert capsys.readouterr().out.strip() == str(folder / "default")


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (("path", "sam_med3d_turbo"), "download it first"),
        (("path", "turbo"), "there are nodule, sam_med3d_turbo"),
        (("remove", "nodule"), "comes with SAMMed3D"),
        (("remove", "sam_med3d_turbo"), "not on this computer"),
        (("download", "x"), "There is no model 'x'"),
    ],
)
def test_what_cannot_be_done_is_one_message(folder, capsys, words, message) -> None:
    assert run(folder, *words) == 2
    printed = capsys.readouterr()
    assert printed.out == ""
    assert printed.err.startswith("sammed3d: error: ") and message in printed.err
    assert printed.err.count("\n") == 1


def test_a_failed_download_is_one_message(folder, monkeypatch, capsys) -> None:
    def fail(*words: object, **options: object) -> str:
        raise DownloadError("huggingface.co was not found. Is this computer online?")

    monkeypatch.setattr(weights_store, "download", fail)
    assert run(folder, "download", "sam_med3d_turbo") == 2
    assert "sammed3d: error: huggingface.co was not found" in capsys.readouterr().err


def test_it_needs_no_torch(folder) -> None:
    code = (
        "import sys\nsys.modules['torch'] = None\nfrom SAMMed3DLib import cli\n"
        f"raise SystemExit(cli.main(['weights', 'list', '--folder', {str(folder)!r}]))"
    )
    run = subprocess.run(
        [sys.executable, "-c", code],
        capture_output=True,
        encoding="utf-8",
        check=False,
        env=os.environ | {"PYTHONPATH": str(ROOT / "SAMMed3D"), "PYTHONIOENCODING": "utf-8"},
    )
    assert run.returncode == 0, run.stderr
    assert "sam_med3d_turbo" in run.stdout
