#!/usr/bin/env bash
# Memory of a million small hashes, and of a list, a set, a sorted set and a stream of a million elements, beside
# redis-server: the growth of the process's memory, and the growth that the server reports.
#
#   cargo build --release && server/benches/memory_of_types.sh
#
# PEER selects another redis-server, COWHERD_BIN another binary, COUNT another number.
set -euo pipefail
cd "$(dirname "$0")/../.."
count=${COUNT:-1000000}
peer=${PEER:-redis-server}
dir=$(mktemp -d)
server=
stop() { [ -z "$server" ] || { kill -9 "$server" 2>/dev/null || true; wait "$server" 2>/dev/null || true; }; server=; }
trap 'stop; rm -rf "$dir"' EXIT

# start COMMAND...: a server on port 7621
start() {
    "$@" --port 7621 --dir "$dir" --save '' >"$dir/log" 2>&1 &
    server=$!
    until [ "$(redis-cli -p 7621 ping 2>/dev/null)" = PONG ]; do
        kill -0 $server 2>/dev/null || { cat "$dir/log" >&2; exit 1; }
        sleep 0.02
    done
}
# Without the program's text, which is paged in on use.
resident() { awk '/RssAnon|RssShmem|HugetlbPages/ { kib += $2 } END { print kib * 1024 }' "/proc/$server/status"; }
used() { redis-cli -p 7621 info memory | tr -d '\r' | awk -F: '$1 == "used_memory" { print $2 }'; }

# Requests that fill a type, converted from words to RESP.
requests() {
    seq 0 $((count - 1)) | case $1 in
    hashes) awk '{ printf "HSET user:%d name n%d age %d mail m%d@example.com city c%d visits %d\n",
        $1, $1, $1 % 90, $1, $1 % 500, $1 % 1000 }' ;;
    list) awk '{ printf "RPUSH list element:%d\n", $1 }' ;;
    set) awk '{ printf "SADD set element:%d\n", $1 }' ;;
    'sorted set') awk '{ printf "ZADD zset %d.5 element:%d\n", $1 * 7919 % 1000003, $1 }' ;;
    stream) awk '{ printf "XADD stream 1700000%06d-0 sensor s%d value %d\n", $1, $1 % 100, $1 * 7919 % 100003 }' ;;
    esac | awk '{ printf "*%d\r\n", NF; for (i = 1; i <= NF; i++) printf "$%d\r\n%s\r\n", length($i), $i }'
}

# measure KIND COMMAND...: growth of memory in bytes, and growth reported by the server
measure() {
    local kind=$1 before_r before_u
    shift
    start "$@"
    # Creates the connection buffers before the measurement.
    seq 100000 | sed 's/.*/PING/' | redis-cli -p 7621 --pipe >/dev/null
    before_r=$(resident) before_u=$(used)
    requests "$kind" | redis-cli -p 7621 --pipe >/dev/null
    echo $(($(resident) - before_r)) $(($(used) - before_u))
    stop
}

echo "$("$peer" --version | cut -d' ' -f3) beside cowherd, kernel $(uname -r), $count each"
printf '%-12s %14s %14s %7s %14s %14s\n' kind 'cowherd MB' "${peer##*/} MB" ratio 'reported' "${peer##*/}"
for kind in hashes list set 'sorted set' stream; do
    c=$(measure "$kind" "${COWHERD_BIN:-target/release/cowherd}" --metrics-port 0 --maxmemory 2gb \
        ${COWHERD_ARGS:-})
    o=$(measure "$kind" "$peer" --appendonly no)
    echo "$c $o" | awk -v kind="$kind" '{ printf "%-12s %14.1f %14.1f %7.2f %14.1f %14.1f\n",
        kind, $1 / 1e6, $3 / 1e6, $1 / $3, $2 / 1e6, $4 / 1e6 }'
done
