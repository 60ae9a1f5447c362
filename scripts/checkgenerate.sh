#!/usr/bin/env bash
# Generates into a temporary directory and compares that with gen/ and with the
# OpenAPI document.
set -euo pipefail
cd "$(dirname "$0")/.."
fresh=$(mktemp -d)
trap 'rm -rf "$fresh"' EXIT
buf generate -o "$fresh"
if ! diff -ru gen "$fresh/gen"; then
	echo "gen/ is not what proto/ says; run make generate" >&2
	exit 1
fi
go run ./internal/openapi/generate -o "$fresh/openapi.json"
if ! diff -u admin/openapi.json "$fresh/openapi.json"; then
	echo "admin/openapi.json is not what proto/ says; run make generate" >&2
	exit 1
fi
