#!/usr/bin/env bash
# MedSAM slice by slice, with a box in every slice of the nodule. Its point weights: --prompt point -cp WEIGHTS.
# Weights: https://github.com/bowang-lab/MedSAM
# Options of test.py may follow and win: ./medsam_infer.sh -cp WEIGHTS -tdp DATA -nc 5. PYTHON names another interpreter.
set -euo pipefail
here="$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)"
exec "${PYTHON:-python3}" "$here/test.py" --seed 2023 --model medsam --prompt box \
  -vp ./results/vis_medsam -cp ./ckpt/medsam_vit_b.pth -tdp ./sam_med3d_cache -nc 10 "$@"
