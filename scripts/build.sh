#!/bin/bash
# build.sh [OUT]: the program as it is released. The same commit gives the same bytes on any machine with the Go version of
# go.mod, wherever the source lies: no C compiler, no paths, no build id of the linker's.
set -euo pipefail
cd "$(dirname "$0")/.."
export CGO_ENABLED=0 GOFLAGS= GOTOOLCHAIN="$(go env GOVERSION)" GOAMD64=v1
exec go build -trimpath -buildvcs=true -ldflags=-buildid= -o "${1:-lorad}" ./cmd/lorad
