#!/usr/bin/env bash
# Segment Anything slice by slice, with a click in every slice of the nodule; ViT-B, -L or -H, as the weights are.
# Weights: https://github.com/facebookresearch/segment-anything#model-checkpoints
# Options of test.py may follow and win: ./infer_sam.sh -cp WEIGHTS -tdp DATA -nc 5. PYTHON names another interpreter.
set -euo pipefail
here="$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)"
exec "${PYTHON:-python3}" "$here/test.py" --seed 2023 --model sam \
  -vp ./results/vis_sam_vit_b -cp ./ckpt/sam_vit_b_01ec64.pth -tdp ./sam_med3d_cache -nc 10 "$@"
