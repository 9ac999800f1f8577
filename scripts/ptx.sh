#!/bin/bash
# Makes the kernels' PTX again with NVIDIA's NVRTC 11.8, from Debian's non-free packages (16 MB, unpacked into a cache folder, not installed).
#   scripts/ptx.sh             writes engine/cuda/kernels/*.ptx
#   scripts/ptx.sh -check      compares them with what is committed
#   scripts/ptx.sh -cubin sm_90    what ptxas says of registers and spills on an architecture
set -euo pipefail
cd "$(dirname "$0")/.."
cache=${XDG_CACHE_HOME:-$HOME/.cache}/lorad/nvrtc-11.8
if [ ! -e "$cache/libnvrtc.so.11.2" ]; then
	work=$(mktemp -d)
	trap 'rm -rf "$work"' EXIT
	mkdir -p "$work/lists/partial" "$work/cache/archives/partial"
	echo "deb [signed-by=/usr/share/keyrings/debian-archive-keyring.gpg] http://deb.debian.org/debian bookworm non-free" >"$work/sources.list"
	apt=(apt-get -qq -o "Dir::Etc::sourcelist=$work/sources.list" -o Dir::Etc::sourceparts=- -o "Dir::State::lists=$work/lists" -o "Dir::Cache=$work/cache" -o APT::Sandbox::User=root)
	"${apt[@]}" update
	(cd "$work" && "${apt[@]}" download libnvrtc11.2 libnvrtc-builtins11.8)
	for package in "$work"/*.deb; do dpkg -x "$package" "$work/files"; done
	mkdir -p "$cache"
	find "$work/files" -name 'libnvrtc*.so*' -exec cp -a {} "$cache" \;
fi
LD_LIBRARY_PATH=$cache exec go run ./engine/cuda/kernels/gen "$@"
