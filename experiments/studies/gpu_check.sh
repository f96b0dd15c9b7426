#!/usr/bin/env bash
# Runs gpu_check.py on a bare GPU machine; all arguments are gpu_check.py's.
exec bash "$(dirname "$0")/on_gpu.sh" python3 experiments/studies/gpu_check.py "$@"
