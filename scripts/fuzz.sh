#!/bin/bash
# fuzz.sh [TIME] [PACKAGE...]: runs every fuzz target for TIME (default 30s) and keeps what it found to reach new code, the
# smallest first, in testdata/fuzz of its package, where `go test` tries it from then on.
set -euo pipefail
cd "$(dirname "$0")/.."
time=${1:-30s}
shift || true
keep=25 # inputs per target
limit=4096 # bytes of one
for dir in $(grep -rl --include='*_test.go' '^func Fuzz' "${@:-.}" | xargs -n1 dirname | sort -u); do
	for target in $(grep -h -o '^func Fuzz[A-Za-z]*' "$dir"/*_test.go | sed 's/func //'); do
		echo "=== $dir $target"
		go test "./$dir" -run xxx -fuzz "^$target\$" -fuzztime "$time" -test.fuzzcachedir "$PWD/.fuzz/$dir"
		mkdir -p "$dir/testdata/fuzz/$target" ".fuzz/$dir/$target" # Go makes the second only when it finds something
		find ".fuzz/$dir/$target" -type f -size "-${limit}c" -printf '%s %p\n' 2>/dev/null | sort -n | head -n "$keep" | cut -d' ' -f2 |
			xargs -r cp -t "$dir/testdata/fuzz/$target"
	done
done
