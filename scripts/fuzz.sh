#!/usr/bin/env bash
# Runs every fuzz target for the time given.
set -euo pipefail
cd "$(dirname "$0")/.."
git grep -hlE '^func Fuzz' -- '*_test.go' | xargs -n1 dirname | sort -u | while read -r package; do
	grep -hoE '^func Fuzz\w+' "$package"/*_test.go | sed 's/^func //' | while read -r name; do
		echo "$package $name"
		go test "./$package" -run '^$' -fuzz "^$name\$" -fuzztime "$1" </dev/null
	done
done
