#!/usr/bin/env bash
# CPU time of the server per request, beside redis-server: SET and GET of 64 bytes over 1,000,000
# random keys of 16 bytes, without pipelining and with 16 and 64 requests per write; then GET while one
# client monitors (MONITOR). Each server is pinned to core 0 with one thread, the load generator to
# core 1; the servers take turns.
#
#   cargo build --release && server/benches/cpu_per_request.sh [ROUNDS]
#
# COWHERD_BIN selects another binary of Cowherd, PEER another redis-server.
#
# Prints the median of the rounds in microseconds of server CPU time (user + system) per request, the
# range, the ratio of the medians, and resident memory after loading.
set -euo pipefail
source "$(dirname "$0")/side_by_side.sh"
rounds=${1:-5}
requests=${REQUESTS:-1000000}
start_servers

rss() { awk '/VmRSS|HugetlbPages/ {kib += $2} END {print kib}' "/proc/$1/status"; }
key=key:__rand_int__ # redis-benchmark writes twelve digits: 16 bytes
value=$(head -c 64 /dev/zero | tr '\0' x)
before_c=$(rss $cowherd) before_o=$(rss $other)
for port in 7601 7602; do
    # Loaded by redis-cli --pipe, because redis-benchmark cannot set each key of a sequence once.
    seq -f '%012.0f' 0 999999 | awk -v v="$value" \
        '{printf "*3\r\n$3\r\nSET\r\n$16\r\nkey:%s\r\n$64\r\n%s\r\n", $1, v}' |
        redis-cli -p $port --pipe >/dev/null
done
printf 'resident bytes a key: cowherd %.1f, %s %.1f\n' \
    "$(echo "($(rss $cowherd) - 0 * $before_c) * 1024 / 1000000" | bc -l)" "$peer" \
    "$(echo "($(rss $other) - 0 * $before_o) * 1024 / 1000000" | bc -l)"

# measure PORT PID PIPELINE COMMAND...: microseconds of server CPU time per request
measure() {
    local port=$1 pid=$2 depth=$3
    shift 3
    local n=$requests
    if [ "$depth" = 1 ]; then n=$((requests / 4)); fi
    local start end
    start=$(ticks "$pid")
    taskset -c 1 redis-benchmark -p "$port" -c 50 -n $n -r 1000000 -P "$depth" -q "$@" >/dev/null 2>&1
    end=$(ticks "$pid")
    echo "scale=4; ($end - $start) * 10000 / $n" | bc
}

# compare LABEL PIPELINE COMMAND...: one row
compare() {
    local label=$1 depth=$2
    shift 2
    : >"$dir/c" && : >"$dir/o"
    for _ in $(seq "$rounds"); do
        measure 7601 $cowherd "$depth" "$@" >>"$dir/c"
        measure 7602 $other "$depth" "$@" >>"$dir/o"
    done
    local c o
    c=$(median_and_range <"$dir/c") o=$(median_and_range <"$dir/o")
    printf '%-20s -P %-3s cowherd %s us, %s %s us, ratio %.2f\n' \
        "$label" "$depth" "$c" "$peer" "$o" "$(echo "${c%% *} / ${o%% *}" | bc -l)"
}

for depth in 1 16 64; do
    compare set $depth SET "$key" "$value"
    compare get $depth GET "$key"
done
for port in 7601 7602; do
    taskset -c 1 redis-cli -p $port monitor >/dev/null &
    until redis-cli -p $port client list | grep -q 'flags=O'; do sleep 0.1; done
done
for depth in 1 16; do
    compare 'get with one monitor' $depth GET "$key"
done
