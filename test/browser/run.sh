#!/usr/bin/env bash
# Runs the browser test. What it needs and is missing is installed: Chromium from Debian, clients and tools from npm.
# What cannot be had fails the test.
set -euo pipefail
cd "$(dirname "$0")"
root=$(cd ../.. && pwd)

as_root() {
	if [ "$(id -u)" = 0 ]; then
		"$@"
	elif command -v sudo >/dev/null; then
		if [ -t 0 ]; then sudo "$@"; else sudo -n "$@"; fi
	else
		return 1
	fi
}

# install COMMAND PACKAGE: makes sure that COMMAND is there.
install() {
	command -v "$1" >/dev/null && return
	echo "$1 is missing: installing $2" >&2
	if command -v apt-get >/dev/null &&
		as_root apt-get -o DPkg::Lock::Timeout=120 -qq update >&2 &&
		as_root env DEBIAN_FRONTEND=noninteractive apt-get -o DPkg::Lock::Timeout=120 -qq install -y --no-install-recommends "$2" >&2 &&
		command -v "$1" >/dev/null; then
		return
	fi
	echo "could not get $1, which the browser test needs (apt-get, and root or sudo)" >&2
	exit 1
}

install chromium chromium
install npm npm
npm ci --ignore-scripts --no-progress --loglevel=error
(cd "$root" && bin/buf generate --template test/browser/buf.gen.yaml)
node build.mjs
CHROMIUM=$(command -v chromium) go test -tags browser -count 1 -timeout 5m -v "$@" .
