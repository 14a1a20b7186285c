#!/usr/bin/env bash
# Proves and times every kernel on a machine with an NVIDIA GPU, in one command:
#
#     tests/gpu_check.sh [-o FOLDER] [-d DEVICE] [-f] [STAGE ...]
#
#   -o FOLDER   where results go (default: gpu_check); a stage that is done there is not run again
#   -d DEVICE   cuda:0 (default); emulated:0 rehearses everything but the sanitizers on a machine without a GPU
#   -f          run the named stages again although they are done
#   CIFAR=DIR   binary batches of CIFAR-10 for the stage cifar;  PYTHON=python3;  BATCH=128;  COMMIT=HASH where there is no .git
#   LIMIT=N     seconds for each stage (default: of each its own, 20 to 420);  BUDGET=N  seconds for all: what has no time left waits
#
# Stages, in order: machine build step determinism tests columns ops train memcheck racecheck initcheck synccheck cifar summary page
# By name only: best, the step with PyTorch compiled too; large, that at a batch of 1,024 in bf16; ops1024, conv3 there.  `speed` is all
# that docs/PERFORMANCE.md wants: machine build step ops large ops1024 columns best summary page.
# Each writes FOLDER/STAGE.txt and FOLDER/STAGE.json (status, seconds, command); summary puts all of them with the ends of their logs
# and the tables into FOLDER/gpu_check.json, page puts that into benchmarks/results and writes docs/PERFORMANCE.md (a rehearsal: both
# in FOLDER).  Nothing is installed and nothing is downloaded: CuPy, pybind11, CMake, pytest and nvcc must be there, PyTorch for the
# peers.  Exit status 1 if a stage failed.
set -uo pipefail
cd "$(dirname "$0")/.."
out=gpu_check device=cuda:0 again=
while getopts "o:d:fh" flag; do
  case $flag in
    o) out=$OPTARG ;; d) device=$OPTARG ;; f) again=yes ;;
    *) sed -n '2,23p' "$0"; exit 2 ;;
  esac
done
shift $((OPTIND - 1))
every=(machine build step determinism tests columns ops train memcheck racecheck initcheck synccheck cifar summary page)
speed=(machine build step ops large ops1024 columns best summary page)
declare -A seconds=([machine]=60 [build]=300 [step]=240 [determinism]=180 [tests]=400 [columns]=240 [ops]=420 [train]=120 [memcheck]=240 [racecheck]=240
                    [initcheck]=240 [synccheck]=150 [cifar]=240 [best]=420 [large]=420 [ops1024]=240 [summary]=20 [page]=60)
stages=("${@:-${every[@]}}")
[ "${stages[*]}" = speed ] && stages=("${speed[@]}")
python=${PYTHON:-python3} backend=${device%%:*} batch=${BATCH:-128}
[ "$backend" = cuda ] || batch=${BATCH:-1}
mkdir -p "$out"
export PYTHONPATH=$PWD PYTHONUNBUFFERED=1 MINIALEX_COMMIT=${COMMIT:-}

# run STAGE COMMAND...: the log and a line of JSON; 0 passed, 77 skipped, anything else failed
run() {
  local stage=$1 status begin=$SECONDS limit=${LIMIT:-${seconds[$1]}} left=$((${BUDGET:-86400} - SECONDS)); shift
  [ "$left" -lt 30 ] && [ "$stage" != summary ] && [ "$stage" != page ] && { echo "$stage: not begun, of $BUDGET s are $left left"; return; }
  [ "$limit" -gt "$left" ] && [ "$left" -gt 20 ] && limit=$left
  timeout -k 10 "$limit" "$@" >"$out/$stage.txt" 2>&1
  status=$?
  local word=passed
  [ $status -eq 77 ] && word=skipped
  [ $status -ne 0 ] && [ $status -ne 77 ] && word=failed
  [ $status -eq 124 ] && word="out of time"
  "$python" - "$out/$stage.json" "$stage" "$word" "$status" $((SECONDS - begin)) "$*" <<'PY'
import json, sys
path, stage, word, status, seconds, command = sys.argv[1:]
with open(path, "w") as file:
    json.dump({"stage": stage, "status": word, "exit": int(status), "seconds": int(seconds), "command": command}, file, indent=1)
PY
  echo "$stage: $word in $((SECONDS - begin)) s"
  [ $status -eq 0 ] || [ $status -eq 77 ] || tail -n 15 "$out/$stage.txt"
}

machine() {
  date -u; echo "commit ${COMMIT:-$(git rev-parse HEAD 2>/dev/null || echo unknown, not a repository)}"; uname -a
  nvidia-smi 2>/dev/null || echo "no nvidia-smi"
  nvcc --version 2>/dev/null | tail -n 2
  "$python" -c 'import sys; print("Python", sys.version)'
  for package in numpy cupy torch pybind11 pytest; do
    "$python" -c "import $package; print('$package', $package.__version__)" 2>/dev/null || echo "$package is missing"
  done
}

build() {   # for this GPU's architecture alone, in place, without pip
  local arch
  arch=$(nvidia-smi --query-gpu=compute_cap --format=csv,noheader 2>/dev/null | head -n 1 | tr -d .)
  MINIALEX_CUDA=$([ "$backend" = cuda ] && echo on || echo auto) MINIALEX_CUDA_ARCHS=${arch:-90} CUDAFLAGS="-Werror all-warnings" \
    "$python" setup.py build_ext --inplace && "$python" -m minialex doctor
}

# What needs this backend, and nothing that runs elsewhere: each file in a process of its own, so that an error which ends a GPU's context
# fails that file alone, 6 at a time.
tests() {
  mkdir -p "$out/tests"
  printf '%s\0' tests/test_*.py | xargs -0 -n 1 -P 6 bash -c 'tests_of "$1"' tests
}

tests_of() {
  local log="$out/tests/$(basename "$1" .py).txt" status
  MINIALEX_REQUIRE=$backend "$python" -m pytest -q "$1" -k "$backend" -p no:cacheprovider -p no:benchmark --tb=short --maxfail=10 \
    >"$log" 2>&1
  status=$?
  [ $status -eq 5 ] && return 0                         # it has no test of this backend
  [ $status -ne 0 ] && tail -n 40 "$log"
  echo "$(basename "$1"): $(tail -n 1 "$log")"
  return $status
}

determinism() {
  "$python" tests/determinism.py --device "$device" --batch "$batch"
}

# Every variant of every op on small shapes, and random shapes with all their tails, with CuPy's memory pool off so that each
# array is an allocation of its own that the sanitizer can see the end of.
sanitizer() {
  [ "$backend" = cuda ] || { echo "compute-sanitizer needs a GPU; the emulator's own checker runs in tests/test_checked.py"; return 77; }
  local tool
  tool=$(command -v compute-sanitizer || ls /usr/local/cuda*/bin/compute-sanitizer 2>/dev/null | head -n 1)
  [ -n "$tool" ] || { echo "compute-sanitizer is not here"; return 77; }
  local strict=(); [ "$1" = memcheck ] && strict=(--leak-check no --report-api-errors no)    # libraries ask for symbols that a driver lacks
  MINIALEX_CUDA_POOL=0 "$tool" --tool "$1" "${strict[@]}" --error-exitcode 9 \
    "$python" tests/run_kernels.py --device "$device"
}

ops() {
  local peer=none; "$python" -c 'import torch' 2>/dev/null && peer=torch
  if [ "$backend" = cuda ]; then
    "$python" -m minialex.bench ops --device "$device" --batch "$batch" --rounds 9 --peer $peer \
      --json "$out/ops_table.json" --chart "$out/ops.png"
  else
    "$python" -m minialex.bench ops --device "$device" --recipe tiny --batch 2 --verify-only
  fi
}

step() {
  local peer=none; "$python" -c 'import torch' 2>/dev/null && peer=torch
  if [ "$backend" = cuda ]; then
    "$python" -m minialex.bench step --device "$device" --batch "$batch" --rounds 15 --peer $peer --json "$out/step_table.json"
  else
    "$python" -m minialex.bench step --device "$device" --recipe tiny --batch 2 --rounds 1 --peer none --json "$out/step_table.json"
  fi
}

# The columns on two devices, or on two logical ones of a single GPU: the bits of one device, and what the exchange costs.
columns() {
  local second=${device%:*}:1 recipe=tiny rounds=1 few=2
  [ "$backend" = cuda ] && [ "$(nvidia-smi -L 2>/dev/null | wc -l)" -lt 2 ] && second=$device
  [ "$backend" = cuda ] && { recipe=paper; rounds=9; few=$batch; }
  "$python" examples/two_columns.py --device "$device,$second" --steps 50 --picture "$out/two_columns.png" &&
    "$python" -m minialex.bench exchange --device "$device,$second" --recipe $recipe --batch "$few" --rounds $rounds \
      --json "$out/exchange_table.json"
}

best() { compiled "$batch" 9 "" best; }
large() { compiled 1024 7 bf16 large; }
compiled() {    # compiled BATCH ROUNDS WORD NAME: the step beside all forms of PyTorch, or those of a precision
  [ "$backend" = cuda ] || { echo "the compiled peers need a GPU"; return 77; }
  "$python" -m minialex.bench step --device "$device" --batch "$1" --rounds "$2" --peer torch --best --only "$3" --json "$out/$4_table.json"
}

ops1024() {
  local peer=none; "$python" -c 'import torch' 2>/dev/null && peer=torch
  if [ "$backend" = cuda ]; then
    "$python" -m minialex.bench ops --device "$device" --batch 1024 --only conv3 --rounds 7 --peer $peer --json "$out/ops1024_table.json"
  else
    "$python" -m minialex.bench ops --device "$device" --recipe tiny --batch 3 --only conv3 --verify-only --json "$out/ops1024_table.json"
  fi
}

page() {
  local results=benchmarks/results written=docs/PERFORMANCE.md
  [ "$backend" = cuda ] || { results="$out/results" written="$out/PERFORMANCE.md"; mkdir -p "$results"; cp benchmarks/results/*.json "$results"; }
  cp "$out/gpu_check.json" "$results/gpu_check.json" && "$python" -m minialex.bench.page --results "$results" --out "$written"
}

train() {
  local epochs=(); [ "$backend" = cuda ] || epochs=(--epochs 1 --limit-batches 2)
  rm -rf "$out/tiny"
  "$python" -m minialex train --device "$device" --store "$out/store" --output-dir "$out/tiny" "${epochs[@]}"
}

cifar() {
  [ -n "${CIFAR:-}" ] || { echo "CIFAR=DIR was not given"; return 77; }
  local few=(); [ "$backend" = cuda ] || few=(--limit-batches 1)
  rm -rf "$out/cifar18"
  "$python" -m minialex train "$CIFAR" --recipe cifar18 --epochs 1 --device "$device" --store "$out/cifar-store" \
    --output-dir "$out/cifar18" "${few[@]}"
}

summary() {
  "$python" - "$out" <<'PY'
import json, pathlib, sys
folder = pathlib.Path(sys.argv[1])
stages = [json.loads(path.read_text()) for path in sorted(folder.glob("*.json")) if not path.name.endswith("_table.json")]
stages = [stage for stage in stages if stage.get("stage", "summary") not in ("summary", "page")]
machine = (folder / "machine.txt").read_text() if (folder / "machine.txt").exists() else ""
result = {"machine": machine.splitlines(), "stages": stages}
for stage in stages:
    log = folder / f"{stage['stage']}.txt"
    kept = {"ops": 600, "ops1024": 200, "tests": 400}.get(stage["stage"], 60)           # an ops stage cut short has its table in the log alone
    stage["log"] = log.read_text(errors="replace").splitlines()[-kept:] if log.exists() else []
for table in folder.glob("*_table.json"):
    result[table.stem] = json.loads(table.read_text())
(folder / "gpu_check.json").write_text(json.dumps(result, indent=1))
for stage in stages:
    print(f"{stage['stage']:<14}{stage['status']:<12}{stage['seconds']:>5} s")
sys.exit(any(stage["status"] not in ("passed", "skipped") for stage in stages))
PY
}

export -f machine build tests tests_of columns determinism sanitizer ops step best large compiled ops1024 train cifar summary page
export out device backend batch python CIFAR=${CIFAR:-}
for stage in "${stages[@]}"; do
  case " ${every[*]} ${speed[*]} " in *" $stage "*) ;; *) echo "there is no stage $stage; there are: ${every[*]} best large ops1024"; exit 2 ;; esac
  if [ -z "$again" ] && [ "$stage" != summary ] && [ "$stage" != page ] && grep -qs '"passed"\|"skipped"' "$out/$stage.json"; then
    echo "$stage: done before"
    continue
  fi
  case $stage in
    memcheck | racecheck | initcheck | synccheck) run "$stage" bash -c "sanitizer $stage" ;;
    *) run "$stage" bash -c "$stage" ;;
  esac
done
cat "$out/summary.txt" 2>/dev/null
for stage in "${every[@]}" "${speed[@]}"; do ! grep -qs '"failed"\|"out of time"' "$out/$stage.json" || exit 1; done
