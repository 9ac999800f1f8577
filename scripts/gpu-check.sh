#!/bin/bash
# Everything that is to be seen on a machine with an NVIDIA GPU, in under nine minutes.
#
#   scripts/gpu-check.sh [OUT]             builds and runs, here
#   scripts/gpu-check.sh build DIR         builds the programs and tests into DIR, for a machine without Go
#   scripts/gpu-check.sh run DIR [OUT]     runs what is in DIR, on that machine
#   scripts/gpu-check.sh stand-in [OUT]    runs on the stand-in GPU, with tiny sizes: that the check itself works
#
# Steps: driver and symbols; conformance of the kernels; whole training steps against the CPU engine, their bits against themselves, losses against
# PEFT's recorded ones; the benchmark; tuning of products, and a case of the benchmark with that; the same steps by transformers + PEFT where PYTHON (default python3) has them
# with CUDA. Each step has its time limit, 530 s for all, and the rest is done if one fails. OUT (default gpu-check-out) gets a log of each step and the numbers; docs/gpu.md says what to do with them.
set -uo pipefail
root=$(cd "$(dirname "$0")/.." && pwd)
python=${PYTHON:-python3}
mode=here
case "${1:-}" in build | run | stand-in) mode=$1 && shift ;; esac

build() {
	mkdir -p "$1" && cd "$root" && scripts/go-cuda build -o "$1/lorad" ./cmd/lorad || return 1
	local p
	for p in engine/cuda engine/cuda/kernels node/recipe node/tally; do
		scripts/go-cuda test -c -o "$1/${p//\//-}.test" "./$p" || return 1
		mkdir -p "$1/src/$p" && { [ ! -d "$p/testdata" ] || cp -r "$p/testdata" "$1/src/$p/"; }
	done
	cp scripts/oracle/gpu_peer.py scripts/gpu-check.sh "$1/"
}

failed=0
step() { # NAME LIMIT COMMAND...: runs a step; its output goes to the log and, the end of it, to the screen
	local name=$1 limit=$2 began=$SECONDS
	if [ "$mode" = stand-in ]; then limit=$((6 * limit)); fi
	shift 2
	timeout "$limit" "$@" >"$out/$name.log" 2>&1
	local rc=$?
	if [ $rc = 0 ]; then echo "ok    $name ($((SECONDS - began)) s)"; else echo "FAIL  $name: exit $rc ($((SECONDS - began)) s)" && failed=1; fi
	tail -n "${show:-4}" "$out/$name.log" | sed 's/^/      /'
}
test_in() { # PACKAGE ARGS...
	local p=$1
	shift
	cd "$dir/src/$p" && exec "$dir/${p//\//-}.test" "$@"
}

if [ "$mode" = build ]; then build "$(mkdir -p "$1" && cd "$1" && pwd)"; exit; fi
if [ "$mode" = run ]; then dir=$(cd "$1" && pwd) && shift; else dir=$(mktemp -d) && trap 'rm -rf "$dir"' EXIT; fi
out=$(mkdir -p "${1:-gpu-check-out}" && cd "${1:-gpu-check-out}" && pwd)
[ "$mode" = run ] || build "$dir" >"$out/build.log" 2>&1 || { tail "$out/build.log" && exit 1; }
export -f test_in
export dir

tiny=() gpu=(-gpu) cases=(--budget 205)
if [ "$mode" = stand-in ]; then
	LD_LIBRARY_PATH=$(cd "$root" && go run ./scripts/standin) || exit 1
	export LD_LIBRARY_PATH
	tiny=(--tiny) gpu=(-gpu -test.short) cases=(--case bf16/2x64 --steps 4 --no-compile)
fi
date -u +'%Y-%m-%d %H:%M UTC' | tee "$out/when"
command -v nvidia-smi >/dev/null && nvidia-smi --query-gpu=name,driver_version,memory.total,clocks.sm,temperature.gpu --format=csv | tee "$out/nvidia-smi"
show=12 step doctor 20 "$dir/lorad" doctor
step kernels 40 bash -c 'test_in engine/cuda/kernels -test.v "$@"' - "${gpu[@]}"
show=12 step steps "$(if [ "$mode" = stand-in ]; then echo 90; else echo 40; fi)" bash -c 'test_in engine/cuda -test.run OnGPU -test.v "$@"' - "${gpu[@]}"
step sums 30 bash -c 'test_in node/tally -test.run GPUs -test.v "$@"' - "${gpu[@]}"
step peft-losses 30 bash -c 'test_in node/recipe -test.run "GPUCurve|ReplicasOfCPUAndGPU" -test.v "$@"' - "${gpu[@]}"
if [ "$mode" = stand-in ]; then show=8 step bench 120 "$dir/lorad" bench --gpu bf16/2x64 --quick "${tiny[@]}"; else show=12 step bench 90 "$dir/lorad" bench --gpu all --quick; fi
show=60 step tune 45 env XDG_CACHE_HOME="$out/cache" "$dir/lorad" bench --gpu "$(if [ "$mode" = stand-in ]; then echo bf16/2x64; else echo bf16/16x512; fi)" --quick --tune "${tiny[@]}"
if "$python" -c 'import torch, peft, transformers' 2>/dev/null && { [ "$mode" = stand-in ] || "$python" -c 'import torch; assert torch.cuda.is_available()' 2>/dev/null; }; then
	show=40 step against-peft 235 "$python" "$dir/gpu_peer.py" "$dir/lorad" "${cases[@]}" "${tiny[@]}" -o "$out/against-peft.json"
else
	echo "----  against-peft: $python has no torch with CUDA, peft and transformers: not measured"
fi
exit $failed
