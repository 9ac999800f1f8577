#!/bin/bash
# build.sh [--cpu] [OUT]: the program as it is released; version control and compilers leave no trace but the commit.
#
# With a C compiler it is the full program, GPUs included: the same commit gives the same bytes wherever the source lies, on any machine with the Go
# version of go.mod and the same C compiler and C library. It runs on Linux with that C library or a newer one, with or without a GPU.
# Without one, or with --cpu, it is the CPU-only program: static, and the same bytes on any machine with that Go version.
set -euo pipefail
cd "$(dirname "$0")/.."
export GOFLAGS= GOTOOLCHAIN="$(go env GOVERSION)" GOAMD64=v1
full=yes
if [ "${1:-}" = --cpu ]; then full=no && shift; fi
cc=$(go env CC)
if [ "$(go env GOOS)" != linux ] || [ "$(go env GOOS)/$(go env GOARCH)" != "$(go env GOHOSTOS)/$(go env GOHOSTARCH)" ]; then full=no; fi
if [ $full = yes ] && ! command -v "${cc%% *}" >/dev/null; then
	echo "no C compiler (${cc%% *}): this is the CPU-only program; install gcc for the one that uses GPUs" >&2
	full=no
fi
if [ $full = yes ]; then
	exec scripts/go-cuda build -trimpath -buildvcs=true -ldflags='-buildid= -B=none -extldflags=-Wl,--build-id=none' -o "${1:-lorad}" ./cmd/lorad
fi
CGO_ENABLED=0 exec go build -trimpath -buildvcs=true -ldflags=-buildid= -o "${1:-lorad}" ./cmd/lorad
