#!/usr/bin/env bash
# SAM-Med3D on 3D crops, one click in the whole nodule at a time.
# Weights: https://github.com/uni-medical/SAM-Med3D, or: sammed3d weights download sam_med3d_turbo
# Options of test.py may follow and win: ./infer.sh -cp WEIGHTS -tdp DATA -nc 5. PYTHON names another interpreter.
set -euo pipefail
here="$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)"
exec "${PYTHON:-python3}" "$here/test.py" --seed 2023 -mt vit_b_ori \
  -vp ./results/vis_sam_med3d -cp ./ckpt/sam_med3d_turbo.pth -tdp ./sam_med3d_cache -nc 10 "$@"
