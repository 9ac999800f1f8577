#!/bin/bash
# supply-chain.sh vulnerabilities | licences | sbom OUT | reproducible
#
# What goes into the program, checked with the tools that people use for it, in the versions named here. They come through
# `go run`; nothing is installed.
#
#   vulnerabilities  known ones in what the program calls. Exit code 3: the database is out of reach, and nothing was checked
#   licences         writes docs/licences.md; an unknown licence, or one that is not on the list below, is an error
#   sbom OUT         software bill of materials, CycloneDX 1.6 JSON
#   reproducible     builds this commit twice, in two folders and with two build caches, CPU-only and full, and compares the bytes. The full
#                    program's bytes depend on the C compiler and its library as well
set -euo pipefail
cd "$(dirname "$0")/.."

govulncheck=golang.org/x/vuln/cmd/govulncheck@v1.9.0
golicenses=github.com/google/go-licenses@v1.6.0
cyclonedx=github.com/CycloneDX/cyclonedx-gomod/cmd/cyclonedx-gomod@v1.10.0
allowed='^(MIT|BSD-2-Clause|BSD-3-Clause|Apache-2.0|MPL-2.0|ISC)$'

tmp=$(mktemp -d)
trap 'chmod -R u+w "$tmp"; rm -rf "$tmp"' EXIT

vulnerabilities() {
	local code=0
	go run "$govulncheck" "$@" ./... >"$tmp/out" 2>"$tmp/err" || code=$?
	cat "$tmp/out" "$tmp/err"
	if grep -qE 'fetching vulnerabilities|vuln.go.dev.*(no such host|timeout|refused|unreachable)' "$tmp/err"; then
		echo "NOT CHECKED: the vulnerability database cannot be reached from here; nothing is known about vulnerabilities" >&2
		exit 3
	fi
	exit "$code"
}

licences() {
	printf '{{range .}}{{.Name}}\t{{.Version}}\t{{.LicenseName}}\n{{end}}' >"$tmp/template"
	scripts/go-cuda run "$golicenses" report ./cmd/lorad --ignore lorad --template "$tmp/template" 2>"$tmp/err" | LC_ALL=C sort -u >"$tmp/list"
	[ -s "$tmp/list" ] || { cat "$tmp/err" >&2; exit 1; }
	if cut -f3 "$tmp/list" | grep -vE "$allowed"; then echo "a licence that is not on the list in $0" >&2; exit 1; fi
	{
		echo "# Licences"
		echo
		echo "Of everything that is linked into the program, as \`scripts/supply-chain.sh licences\` finds them (go-licenses). The Go standard library"
		echo "is under BSD-3-Clause. \`go test ./internal/archtest\` fails when a module is missing here."
		echo
		echo "| Package | Version | Licence |"
		echo "|---|---|---|"
		awk -F'\t' '{ printf "| `%s` | %s | %s |\n", $1, $2, $3 }' "$tmp/list"
	} >docs/licences.md
	echo "docs/licences.md: $(wc -l <"$tmp/list") packages"
}

sbom() { # from a clone: the tool does not find the commit in a linked worktree
	git clone -q --no-hardlinks . "$tmp/source"
	CGO_ENABLED=0 go run "$cyclonedx" app -json -noserial -output-version 1.6 -main cmd/lorad -output "$(realpath "${1:?where to}")" "$tmp/source"
}

reproducible() {
	git clone -q --no-hardlinks . "$tmp/one"
	git clone -q --no-hardlinks . "$tmp/somewhere-else"
	for kind in --cpu ""; do
		"$tmp/one/scripts/build.sh" $kind "$tmp/a"
		GOCACHE="$tmp/cache" "$tmp/somewhere-else/scripts/build.sh" $kind "$tmp/b"
		cmp "$tmp/a" "$tmp/b"
		sha256sum <"$tmp/a" | sed "s/ .*/  the same bytes twice${kind:+ ($kind)}/"
	done
}

verb=${1:?vulnerabilities, licences, sbom OUT or reproducible}
shift
case $verb in
vulnerabilities | licences | sbom | reproducible) "$verb" "$@" ;;
*) echo "no such verb: $verb" >&2; exit 2 ;;
esac
