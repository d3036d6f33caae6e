#!/usr/bin/env bash
# The cost of the shard locks with one and with two workers: requests per second of CPU time of the
# server, for SETs of random keys (all 64 locks in use) and of one key (one lock in use), 16 requests
# per write, 64-byte values.
#
#   cargo build --release && server/benches/shard_locks.sh [ROUNDS]
#
# On two cores the load generator shares them with the server, so the figures are CPU time per
# request, not throughput. Prints the median of the rounds, the range, and the ratio to one worker
# with random keys.
set -euo pipefail
cd "$(dirname "$0")/../.."
rounds=${1:-5}
requests=${REQUESTS:-2000000}
dir=$(mktemp -d)
server=
trap '[ -z "$server" ] || kill "$server" 2>/dev/null || true; wait 2>/dev/null || true; rm -rf "$dir"' EXIT

ticks() { awk '{print $14 + $15}' "/proc/$1/stat"; }
median() { sort -n | awk '{a[NR] = $1} END {printf "%.3f %.3f %.3f", a[int((NR + 1) / 2)], a[1], a[NR]}'; }
value=$(head -c 64 /dev/zero | tr '\0' x)

# measure THREADS KEYS: microseconds of server CPU time per request
measure() {
    local threads=$1 keys=$2 start end
    target/release/cowherd --port 7603 --metrics-port 0 --threads "$threads" --save '' \
        --dir "$dir" >"$dir/log" 2>&1 &
    server=$!
    until redis-cli -p 7603 ping >/dev/null 2>&1; do sleep 0.1; done
    redis-benchmark -p 7603 -c 50 -n $((requests / 4)) -r "$keys" -P 16 -q \
        SET key:__rand_int__ "$value" >/dev/null 2>&1
    start=$(ticks $server)
    redis-benchmark -p 7603 -c 50 -n "$requests" -r "$keys" -P 16 -q \
        SET key:__rand_int__ "$value" >/dev/null 2>&1
    end=$(ticks $server)
    kill $server
    wait $server 2>/dev/null || true
    server=
    echo "scale=4; ($end - $start) * 10000 / $requests" | bc
}

for round in $(seq "$rounds"); do
    for threads in 1 2; do
        for keys in 1000000 1; do
            measure $threads $keys >>"$dir/$threads-$keys"
        done
    done
    echo "round $round of $rounds" >&2
done
base=$(median <"$dir/1-1000000")
for threads in 1 2; do
    for keys in 1000000 1; do
        figures=($(median <"$dir/$threads-$keys"))
        printf '%s worker(s), %7s key(s): %s us [%s..%s], ratio %.2f\n' "$threads" "$keys" \
            "${figures[0]}" "${figures[1]}" "${figures[2]}" \
            "$(echo "${figures[0]} / ${base%% *}" | bc -l)"
    done
done
