"""Whether the graphics card really computes: a driver and a build of PyTorch may each be fine and not fit together."""

from __future__ import annotations

import functools


@functools.cache
def cuda_problem() -> str:
    """Why the NVIDIA card of this machine is of no use to this PyTorch; "" where it works or there is none.

    Runs one tiny computation there (which may take a second, once), since ``torch.cuda.is_available()`` is also true
    for cards newer than the build. Call it on a worker thread: it imports torch.
    """
    import torch

    try:
        if torch.cuda.is_available():
            torch.zeros(1, device="cuda").add_(1).cpu()
    except Exception as error:  # drivers raise RuntimeError, its kin, and sometimes others
        return str(error).strip().partition("\n")[0] or type(error).__name__
    return ""


def auto_device() -> str:
    """What "auto" means: "cuda" where a card works, else "cpu"."""
    import torch

    return "cuda" if torch.cuda.is_available() and not cuda_problem() else "cpu"
