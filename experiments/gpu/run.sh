#!/usr/bin/env bash
# Checks and measures DistDiff on one GPU in at most 8 minutes (README.md beside this file):
#
#   experiments/gpu/run.sh                                   # on a GPU
#   PYTHON=.venv/bin/python experiments/gpu/run.sh --device cpu     # a dry run on the CPU, with tiny networks
#
# Options: --device cuda|cpu, --minutes <n>, and --only <stages> of tests, sd14, network, sdxl, separated by commas.
# Results go to $OUT, or outputs/gpu. The exit status is 0 if every stage that ran succeeded, and at least one ran.
set -uo pipefail
cd "$(dirname "$0")/../.."
arguments=("$@")

device=cuda minutes=8 only=tests,sd14,network,sdxl
while [ $# -gt 0 ]; do
  case "$1" in
    --device | --minutes | --only) [ $# -gt 1 ] || { echo "run.sh: $1 needs a value" >&2; exit 2; } ;;
  esac
  case "$1" in
    --device) device=$2 ;;
    --minutes) minutes=$2 ;;
    --only) only=$2 ;;
    *) echo "run.sh: $1 is not allowed: one of --device, --minutes, --only" >&2; exit 2 ;;
  esac
  shift 2
done
case "$device" in cuda | cpu) ;; *) echo "run.sh: --device $device is not allowed: one of cuda, cpu" >&2; exit 2 ;; esac
[[ $minutes =~ ^[0-9]+$ ]] || { echo "run.sh: --minutes $minutes is not allowed: a whole number" >&2; exit 2; }
for name in ${only//,/ }; do
  case "$name" in tests | sd14 | network | sdxl) ;; *) echo "run.sh: --only $name is not allowed: of tests, sd14, network, sdxl" >&2; exit 2 ;; esac
done

if [ -z "${RUN_BEGAN-}" ]; then # once more, where all packages are found
  RUN_BEGAN=$(date +%s) exec bash experiments/gpu/on_gpu.sh bash experiments/gpu/run.sh ${arguments[@]+"${arguments[@]}"}
fi
python=${PYTHON:-python3}
out=${OUT:-outputs/gpu}
deadline=$((RUN_BEGAN + 60 * minutes))
least=20 # seconds; with less time left, a stage is not begun
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
mkdir -p "$out"
out=$(cd "$out" && pwd)
: >"$out/log.txt"
export HF_HUB_OFFLINE=1 WANDB_MODE=offline OMP_WAIT_POLICY=PASSIVE OMP_NUM_THREADS="${OMP_NUM_THREADS:-4}"

# --- what is measured: change it here ------------------------------------------------------------------------------------

measure=(trainer=gpu generator=random logger=none "paths.output_dir=$work/outputs")
sd14=(generator.architecture=sd14 generator.resolution=512 generator.dtype=float16 generator.num_steps=50
  expansion.strength=0.5 expansion.batch_size=8 encoder.guide.classifier=resnet50 encoder.guide.steps=20 encoder.guide.batch_size=4
  benchmark.images=8 benchmark.repeats=3)
sdxl=(generator.architecture=sdxl generator.resolution=1024 generator.dtype=float16 generator.num_steps=40
  generator.cfg_scale=5 expansion.strength=0.5 expansion.batch_size=1
  encoder.guide.classifier=resnet50 encoder.guide.steps=20 encoder.guide.batch_size=4
  'benchmark.rows={none: [guidance=none], chosen: []}' benchmark.images=2 benchmark.repeats=2)
network=(--architecture sd14 --device "$device" --dtype float16 --batch-size 8)
# The most seconds that a stage may take.
limit_tests=150 limit_sd14=240 limit_network=120 limit_sdxl=240
if [ "$device" = cpu ]; then
  measure[0]=trainer=cpu limit_tests=300
  sd14=(generator.architecture=toy generator.resolution=64 generator.num_steps=6 encoder.guide.steps=3
    'benchmark.rows={none: [guidance=none], chosen: []}' benchmark.images=2 benchmark.repeats=1 expansion.batch_size=2)
  sdxl=("${sd14[@]}" guidance=transform)
  network=(--architecture toy --device cpu --batch-size 2 --variants plain,channels_last) # compiling takes minutes on a CPU
fi

# --- stages --------------------------------------------------------------------------------------------------------------

failed=0 ran=0
summary=()

# stage <name> <most seconds> <command>...: runs a command, and notes how it ended.
stage() {
  local name=$1 limit=$2 left=$((deadline - $(date +%s))) begun=$SECONDS code how
  shift 2
  case ",$only," in *",$name,"*) ;; *) return ;; esac
  [ "$left" -lt "$limit" ] && limit=$left
  if [ "$limit" -lt "$least" ]; then
    summary+=("$name: left out, no time")
    return
  fi
  echo "=== $name (at most $limit s)"
  echo "=== $name" >>"$out/log.txt"
  timeout --signal=INT --kill-after=10 "$limit" "$@" >>"$out/log.txt" 2>&1
  code=$? ran=1
  case $code in
    0) how=ok ;;
    124 | 137) how="FAILED: stopped after $limit s" ;;
    *) how="FAILED: exit status $code" ;;
  esac
  [ "$code" = 0 ] || failed=1
  summary+=("$name: $how, $((SECONDS - begun)) s")
  tail -n 12 "$out/log.txt" | cut -c1-300
}

# benchmark <name> <most seconds> <override>...: a stage that runs the command benchmark, whose files go to $OUT.
benchmark() {
  local name=$1 limit=$2 file
  shift 2
  stage "$name" "$limit" "$python" experiments/benchmark.py "${measure[@]}" "$@" "hydra.run.dir=$work/$name"
  for file in "$work/$name"/benchmark.json "$work/$name"/benchmark.md; do
    [ -f "$file" ] && cp "$file" "$out/$name-${file##*/}"
  done
  [ -f "$work/$name/benchmark.md" ] && head -n 60 "$work/$name/benchmark.md"
}

nvidia-smi --query-gpu=name,memory.total,driver_version --format=csv,noheader 2>/dev/null
stage tests "$limit_tests" "$python" -m pytest tests/gpu -m gpu --device "$device" -p no:cacheprovider -rs --show-capture=no \
  --durations=10 -o junit_family=xunit1 --junitxml "$out/tests.xml"
benchmark sd14 "$limit_sd14" "${sd14[@]}"
stage network "$limit_network" "$python" experiments/studies/network_speed.py "${network[@]}"
benchmark sdxl "$limit_sdxl" "${sdxl[@]}"

echo "=== in all $(($(date +%s) - RUN_BEGAN)) s"
printf '%s\n' "${summary[@]}"
[ "$failed" = 0 ] && [ "$ran" = 1 ]
