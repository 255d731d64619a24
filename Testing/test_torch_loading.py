from __future__ import annotations

import subprocess
import sys

import pytest

pytest.importorskip("torch")


def run(code: str) -> str:
    return subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout.strip()


def test_torch_works_after_its_libraries_were_loaded_first():
    code = "from SAMMed3DLib.torch_loading import load_torch; load_torch(); import torch; print(torch.ones(2).sum())"
    assert run(_paths() + code) == "tensor(2.)"


def test_the_engine_and_the_worker_do_not_import_torch():
    code = "import sys, SAMMed3DLib.engine, SAMMed3DLib.worker, SAMMed3DLib.requests; print('torch' in sys.modules)"
    assert run(_paths() + code) == "False"


def test_a_missing_torch_is_an_import_error():
    code = (
        "import sys; sys.modules['torch'] = None\nfrom SAMMed3DLib.torch_loading import load_torch\n"
        "del sys.modules['torch']; sys.path[:] = [p for p in sys.path if 'site-packages' not in p]\n"
        "try:\n    load_torch()\nexcept ModuleNotFoundError as error:\n    print(error.name)"
    )
    assert run(_paths() + code) == "torch"


def _paths() -> str:
    return f"import sys; sys.path[:0] = {[path for path in sys.path if path.endswith('SAMMed3D')]!r}\n"
