from __future__ import annotations

import subprocess
import sys

import pytest

pytest.importorskip("torch")


def run(code: str) -> str:
    return subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout.strip()


def test_torch_works_after_its_libraries_were_loaded_first():
    code = (
        "from SAMMed3DLib.torch_setup.loading import load_torch; load_torch()\nimport torch; print(torch.ones(2).sum())"
    )
    assert run(_paths() + code) == "tensor(2.)"


def test_the_garbage_collector_does_not_walk_through_everything_meanwhile_and_works_as_before_afterwards():
    code = (
        "import gc; walks = []; gc.callbacks.append(lambda phase, info: walks.append(info['generation']))\n"
        "from SAMMed3DLib.torch_setup.loading import load_torch\n"
        "before = gc.get_threshold(), gc.get_freeze_count()\n"
        "walks.clear(); load_torch()\n"
        "print(2 in walks, gc.get_threshold() == before[0], gc.isenabled(), gc.get_freeze_count() > 100_000)\n"
        "class Node: pass\n"
        "import weakref; node = Node(); node.itself = node; alive = weakref.ref(node); del node; gc.collect()\n"
        "print(alive())"
    )
    assert run(_paths() + code) == "False True True True\nNone"


def test_what_lives_already_is_left_to_the_collector_where_torch_was_there_before():
    code = (
        "import gc, torch; from SAMMed3DLib.torch_setup.loading import load_torch\n"
        "before = gc.get_freeze_count()\n"
        "load_torch(); print('SAMMed3DLib.inference' in sys.modules, gc.get_freeze_count() == before)"
    )
    assert run(_paths() + code) == "True True"


def test_the_engine_and_the_worker_do_not_import_torch():
    code = "import sys, SAMMed3DLib.worker.engine, SAMMed3DLib.worker.thread\nprint('torch' in sys.modules)"
    assert run(_paths() + code) == "False"


def test_a_missing_torch_is_an_import_error():
    code = (
        "import sys; sys.modules['torch'] = None\nfrom SAMMed3DLib.torch_setup.loading import load_torch\n"
        "del sys.modules['torch']; sys.path[:] = [p for p in sys.path if 'site-packages' not in p]\n"
        "try:\n    load_torch()\nexcept ModuleNotFoundError as error:\n    print(error.name)"
    )
    assert run(_paths() + code) == "torch"


def _paths() -> str:
    return f"import sys; sys.path[:0] = {[path for path in sys.path if path.endswith('SAMMed3D')]!r}\n"
