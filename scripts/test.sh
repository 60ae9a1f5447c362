#!/usr/bin/env bash
# Runs every test against a real redis-server, which is installed when missing.
# What cannot be had is said here in plain words; nothing is skipped for it.
set -euo pipefail
cd "$(dirname "$0")/.."

as_root() {
	if [ "$(id -u)" = 0 ]; then
		"$@"
	elif command -v sudo >/dev/null; then
		if [ -t 0 ]; then sudo "$@"; else sudo -n "$@"; fi
	else
		return 1
	fi
}

# install COMMAND PACKAGE...: makes sure that COMMAND is there.
install() {
	local command=$1
	shift
	command -v "$command" >/dev/null && return
	echo "$command is missing: installing $*" >&2
	if command -v apt-get >/dev/null &&
		as_root apt-get -o DPkg::Lock::Timeout=120 -qq update >&2 &&
		as_root env DEBIAN_FRONTEND=noninteractive apt-get -o DPkg::Lock::Timeout=120 -qq install -y --no-install-recommends "$@" >&2 &&
		command -v "$command" >/dev/null; then
		return
	fi
	echo "could not get $command (needs apt-get, and root or sudo)" >&2
	return 1
}

install redis-server redis-server || echo "the tests that need Redis will fail" >&2
install curl curl || echo "the tests with curl will fail" >&2
race=-race
if ! install gcc gcc libc6-dev; then
	echo "running without -race, which needs a C compiler" >&2
	race=
fi

# shellcheck disable=SC2086 # $race is one flag or none
exec bin/gotestsum --format pkgname-and-test-fails --format-hide-empty-pkg -- $race -shuffle=on -timeout 15m "$@" ./...
