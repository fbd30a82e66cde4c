#!/bin/bash
# Some minutes on a machine with one GPU: smoke, speed, training until train.max_minutes, parcel. Nothing is installed.
# From the root of an unpacked job.tgz (docs/scaling.md, A machine that only trains) with benchmarks/ and presets/ in it.
#     OUT=out bash benchmarks/gpu.sh             DEV=cpu SMALL=--small bash benchmarks/gpu.sh tries it without a GPU
export PYTHONPATH="src:.${PYTHONPATH:+:$PYTHONPATH}" PYTHONUNBUFFERED=1 OUT="${OUT:-out}" PYTHON="${PYTHON:-python3}"
mkdir -p "$OUT"
timeout "${SMOKE_SECONDS:-130}" "$PYTHON" -m benchmarks.gpu smoke $SMALL > "$OUT/smoke.log" 2>&1
echo "smoke: status $?"; grep -E 'holds|FAILED' "$OUT/smoke.log"
timeout "${SPEED_SECONDS:-150}" "$PYTHON" -m benchmarks.gpu speed $SMALL > "$OUT/speed.log" 2>&1
echo "speed: status $?"; grep '|' "$OUT/speed.log"
"$PYTHON" stages/train.py > "$OUT/train.log" 2>&1
status=$?
echo "train: status $status"; tail -n 3 "$OUT/train.log" | cut -c 1-400
[ "$status" -eq 0 ] && "$PYTHON" -m coma_gen.workspace.carry pack "$OUT/parcel" --part-mb "${PART_MB:-15}"
