#!/usr/bin/env bash
# CPU time of the server per GET while clients track keys, beside another server: 64 bytes, 100,000
# random keys, 16 requests per write. Each server is pinned to core 0 with one thread, the load
# generator to core 1; the servers take turns.
#
#   off      nobody tracks keys
#   others   another client tracks keys: reads of clients that do not
#   on       the clients that read track what they read
#
#   cargo build --release && server/benches/tracking.sh [ROUNDS]
#
# COWHERD_BIN selects another binary of Cowherd, PEER another redis-server.
#
# Prints the resident memory for each tracked key of 16 bytes that one client has read; then the
# median of the rounds in microseconds of server CPU time (user + system) per request, the range, and
# the ratio to `off` of the same server.
set -euo pipefail
source "$(dirname "$0")/side_by_side.sh"
rounds=${1:-5}
requests=${REQUESTS:-1000000}
start_servers
for port in 7601 7602; do
    redis-benchmark -p $port -n 1000000 -r 100000 -P 64 -q SET key:__rand_int__ \
        "$(head -c 64 /dev/zero | tr '\0' x)" >/dev/null 2>&1
done

# measure PORT PID OPTION...: microseconds of server CPU time per request
measure() {
    local port=$1 pid=$2
    shift 2
    local start end
    start=$(ticks "$pid")
    taskset -c 1 redis-benchmark -p "$port" -c 50 -n "$requests" -r 100000 -P 16 -q -3 "$@" \
        GET key:__rand_int__ >/dev/null 2>&1
    end=$(ticks "$pid")
    echo "scale=4; ($end - $start) * 10000 / $requests" | bc
}

rss() { awk '/VmRSS|HugetlbPages/ {kib += $2} END {print kib}' "/proc/$1/status"; }

# begin_tracking PORT: starts a client that tracks keys until end_tracking
begin_tracking() {
    mkfifo "$dir/input"
    redis-cli -p "$1" -3 <"$dir/input" >/dev/null &
    client=$!
    exec 3>"$dir/input"
    echo 'CLIENT TRACKING ON' >&3
    until redis-cli -p "$1" info clients | grep -q 'tracking_clients:1'; do sleep 0.1; done
}
end_tracking() {
    exec 3>&-
    wait $client
    rm "$dir/input"
}

for server in "cowherd 7601 $cowherd" "$peer 7602 $other"; do
    read -r name port pid <<<"$server"
    begin_tracking "$port"
    before=$(rss "$pid")
    redis-benchmark -p "$port" -c 1 -P 64 -3 --enable-tracking -n 2000000 -r 100000 -q \
        GET key:__rand_int__ >/dev/null 2>&1
    after=$(rss "$pid")
    keys=$(redis-cli -p "$port" info stats | awk -F: '/tracking_total_keys/ {print $2 + 0}')
    echo "$name: $(((after - before) * 1024 / keys)) bytes for each of $keys tracked keys"
    end_tracking
done

for _ in $(seq "$rounds"); do
    for server in "cowherd 7601 $cowherd" "peer 7602 $other"; do
        read -r name port pid <<<"$server"
        measure "$port" "$pid" >>"$dir/$name.off"
        begin_tracking "$port"
        measure "$port" "$pid" >>"$dir/$name.others"
        end_tracking
        measure "$port" "$pid" --enable-tracking >>"$dir/$name.on"
    done
done
for name in cowherd peer; do
    shown=$([ $name = peer ] && echo "$peer" || echo $name)
    off=$(median_and_range <"$dir/$name.off")
    for state in off others on; do
        cost=$(median_and_range <"$dir/$name.$state")
        printf '%-20s %-7s %s us, ratio %.2f\n' "$shown" $state "$cost" \
            "$(echo "${cost%% *} / ${off%% *}" | bc -l)"
    done
done
