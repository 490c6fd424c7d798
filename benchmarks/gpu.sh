#!/usr/bin/env bash
# Step time, memory and loader speed of the recipes on one GPU, within eight
# minutes on a machine that has nothing but a CUDA build of torch and nvcc.
#
#   bash benchmarks/gpu.sh OUT
#
# OUT gets gpu.md (the tables, with the card's name), gpu.json and log.txt.
#
#   PYTHON=   the interpreter with torch (python3)
#   WHEELS=   where mmcv with its CUDA operators is not installed: a folder
#             with wheels of what is missing (mmengine, mmdet, opencv, ...)
#             and mmcv-2.1.0.tar.gz, all fetched before by `pip download`
#             for this Python
#   SECONDS_LEFT=  of all of it (480)
set -euo pipefail
cd "$(dirname "$0")/.."
OUT=${1:?usage: bash benchmarks/gpu.sh OUT}
PYTHON=${PYTHON:-python3}
WHEELS=${WHEELS:-}
END=$((SECONDS + ${SECONDS_LEFT:-480}))
mkdir -p "$OUT"
OUT=$(cd "$OUT" && pwd)
LOG=$OUT/log.txt
: >"$LOG"
export PYTHONPATH=$PWD${PYTHONPATH:+:$PYTHONPATH} PYTHONUNBUFFERED=1

# Operators that were built without CUDA import too: one has to run.
has_operators() {
    "$PYTHON" - >>"$LOG" 2>&1 <<'PY'
import torch
from mmcv.ops import nms
boxes = torch.tensor([[0., 0., 9., 9.]]).cuda()
assert len(nms(boxes, boxes[:, 0], .5)[1]) == 1
PY
}

fail() {
    echo "$1; the end of $LOG:" >&2
    tail -n 20 "$LOG" >&2
    exit 1
}

if ! has_operators; then
    [ -n "$WHEELS" ] || fail 'mmcv has no CUDA operators here; set WHEELS'
    SITE=$(mktemp -d)
    export PYTHONPATH=$PYTHONPATH:$SITE
    pip_install() {
        "$PYTHON" -m pip install -q --no-index --no-deps --no-compile \
            --upgrade --target "$SITE" "$@" >>"$LOG" 2>&1
    }
    shopt -s nullglob
    FILES=("$WHEELS"/*.whl)
    [ ${#FILES[@]} -eq 0 ] || pip_install "${FILES[@]}" || fail 'no wheels'
fi
if ! has_operators; then
    BUILD=$(mktemp -d)
    tar xf "$WHEELS"/mmcv-2.1.0.tar.gz -C "$BUILD"
    ARCH=$("$PYTHON" -c \
        'import torch; print("%d.%d" % torch.cuda.get_device_capability())')
    echo "compiling mmcv for compute capability $ARCH"
    (cd "$BUILD"/mmcv-2.1.0 && MMCV_WITH_OPS=1 FORCE_CUDA=1 \
        TORCH_CUDA_ARCH_LIST=$ARCH MAX_JOBS=$(nproc) CFLAGS='-g0 -O1' \
        timeout 300 "$PYTHON" "$OLDPWD"/tools/misc/build_mmcv_wheel.py \
        --wheel-dir "$BUILD"/wheels >>"$LOG" 2>&1) || fail 'mmcv: no wheel'
    pip_install "$BUILD"/wheels/*.whl || fail 'mmcv can not be installed'
    has_operators || fail "mmcv's operators do not run on the GPU"
    echo "compiled after $SECONDS s"
fi

timeout $((END - SECONDS)) "$PYTHON" benchmarks/gpu_steps.py \
    --out "$OUT" --seconds $((END - SECONDS - 20)) 2>>"$LOG" |
    tee "$OUT"/gpu.md || fail 'the measurement did not end'
