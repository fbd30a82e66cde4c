#!/bin/bash
# Some minutes on a machine with one GPU: smoke, speed, training until train.max_minutes, parcel. Nothing is installed.
# From the root of an unpacked job.tgz (docs/scaling.md, A machine that only trains) with benchmarks/ and presets/ in it.
#     bash benchmarks/gpu.sh                                                            all of it; results in out/
#     PARTS="smoke speed" bash benchmarks/gpu.sh && PARTS=train bash benchmarks/gpu.sh  the same in two calls
#     DEV=cpu SMALL=--small bash benchmarks/gpu.sh                                      tries it without a GPU
# Of 15 minutes: smoke 130 s at most, speed 150 s at most, training 510 s where train.max_minutes is 8.5 (compiling is part
# of it), starts and the parcel 30 s: under 14. Training is killed 60 s after its limit, which leaves only a checkpoint.
export PYTHONPATH="src:.${PYTHONPATH:+:$PYTHONPATH}" PYTHONUNBUFFERED=1 OUT="${OUT:-out}" PYTHON="${PYTHON:-python3}"
TRAIN_SECONDS=$("$PYTHON" -c 'from pathlib import Path; from coma_gen.config.load import load_params
minutes = load_params(Path("params.yaml")).train.max_minutes
print("" if minutes is None else round(60 * minutes) + 60)') || exit 2
[ -n "$TRAIN_SECONDS" ] || { echo "params.yaml: train.max_minutes: must be set, got null. 8.5 leaves room for all else"; exit 2; }
mkdir -p "$OUT"
failed=0
part() {  # name, time limit in seconds, command ...: the output of the command goes to $OUT/name.log
    local name=$1 limit=$2 started=$SECONDS status; shift 2
    timeout -k 20 "$limit" "$@" > "$OUT/$name.log" 2>&1
    status=$?
    [ "$status" -eq 0 ] || failed=1
    echo "$name: status $status, $((SECONDS - started)) s of at most $limit"
    return "$status"
}
run() {
    for name in ${PARTS:-smoke speed train}; do
        case $name in
            smoke) part smoke "${SMOKE_SECONDS:-130}" "$PYTHON" -m benchmarks.gpu smoke $SMALL
                grep -E 'passed|FAILED' "$OUT/smoke.log" ;;
            speed) part speed "${SPEED_SECONDS:-150}" "$PYTHON" -m benchmarks.gpu speed $SMALL
                grep '^|' "$OUT/speed.log" ;;
            train) if part train "$TRAIN_SECONDS" "$PYTHON" stages/train.py; then
                    part parcel 60 "$PYTHON" -m coma_gen.workspace.carry pack "$OUT/parcel" --part-mb "${PART_MB:-15}"
                    cat "$OUT/parcel.log" metrics/train.json
                else
                    tail -n 3 "$OUT/train.log" | cut -c 1-400
                fi ;;
            *) echo "PARTS: must be of smoke, speed and train, got $name"; return 2 ;;
        esac
    done
    return $failed
}
run | tee -a "$OUT/summary.txt"
exit "${PIPESTATUS[0]}"
