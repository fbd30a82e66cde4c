#!/usr/bin/env bash
# An infinite metric comes back from MLflow as 1.7976931348623157e+308.
#
# Version: mlflow 3.17.2 with a sqlite store.
# A good guess: An infinite loss is stored as such, as NaN is, or is rejected.
# Behavior: Infinity silently becomes the largest float64, so math.isinf does not detect it, and thresholds and sums
#     over runs treat it as a measurement. NaN comes back as NaN.
# Output seen: logged inf, -inf, nan; read back 1.7976931348623157e+308, -1.7976931348623157e+308, nan.
set -euo pipefail
place=$(mktemp -d)
trap 'rm -rf "$place"' EXIT
cd "$place"
python3 -m venv venv
venv/bin/pip install --quiet --disable-pip-version-check mlflow==3.17.2

venv/bin/python - <<'PY' 2>said || { status=$?; tail -3 said; exit $status; }
import math
import sys

import mlflow

mlflow.set_tracking_uri("sqlite:///runs.db")
logged = {"up": math.inf, "down": -math.inf, "none": math.nan}
with mlflow.start_run() as run:
    for name, value in logged.items():
        mlflow.log_metric(name, value)
read = mlflow.get_run(run.info.run_id).data.metrics
print({name: (value, read[name]) for name, value in logged.items()})
largest = sys.float_info.max
if (read["up"], read["down"]) != (largest, -largest) or not math.isnan(read["none"]):
    sys.exit("changed: infinity is kept or refused")
PY
