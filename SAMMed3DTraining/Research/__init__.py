"""How the shipped weights were made and measured. Run from a checkout: ``python -m Research.NAME``."""

import sys
from pathlib import Path

#: What a checkout has and an installation has not: the engine beside this module, and what benchmarks share.
_CHECKOUT = Path(__file__).resolve().parents[2]
sys.path += [str(_CHECKOUT / folder) for folder in ("SAMMed3D", "Testing", "Testing/benchmarks")]
