#!/usr/bin/env bash
# Generates into a temporary directory and compares that with gen/.
set -euo pipefail
cd "$(dirname "$0")/.."
fresh=$(mktemp -d)
trap 'rm -rf "$fresh"' EXIT
buf generate -o "$fresh"
if ! diff -ru gen "$fresh/gen"; then
	echo "gen/ is not what proto/ says; run make generate" >&2
	exit 1
fi
