#!/usr/bin/env bash
# SAM-Med2D slice by slice at 256 pixels, with a click in every slice of the nodule.
# Weights: https://github.com/OpenGVLab/SAM-Med2D
# Options of test.py may follow and win: ./infer_med2d.sh -cp WEIGHTS -tdp DATA -nc 5. PYTHON names another interpreter.
set -euo pipefail
here="$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)"
exec "${PYTHON:-python3}" "$here/test.py" --seed 2023 --model sam_med2d \
  -vp ./results/vis_sam_med2d -cp ./ckpt/sam-med2d_b.pth -tdp ./sam_med3d_cache -nc 10 "$@"
