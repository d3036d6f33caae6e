#!/usr/bin/env bash
# CPU time of the server per script, beside the servers of peers.sh: EVALSHA of a GET, of a
# compare-and-delete of a lock that another client holds, and of 1,000 calls, over 100,000 keys of 16
# bytes with values of 64. Each server is pinned to core 0 with one thread, redis-benchmark to core 1;
# the servers take turns.
#
#   cargo build --release && server/benches/scripts.sh [ROUNDS]
#
# COWHERD_BIN selects another binary of Cowherd; PEERS (NAME=PROGRAM ...) other servers. Prints the
# medians of the rounds in microseconds of server CPU time per request with their range, user + system
# and user alone, and the ratios of Cowherd's medians to those of the best other server.
set -euo pipefail
cd "$(dirname "$0")/../.."
rounds=${1:-5}
dir=$(mktemp -d)
trap 'kill $(jobs -p) 2>/dev/null || true; wait 2>/dev/null || true; rm -rf "$dir"' EXIT

names=(cowherd)
mkdir "$dir/cowherd"
taskset -c 0 "${COWHERD_BIN:-target/release/cowherd}" --port 7601 --metrics-port 0 --threads 1 --save '' \
    --dir "$dir/cowherd" >"$dir/cowherd.log" 2>&1 &
pids=($!)
for entry in ${PEERS:-$(server/benches/peers.sh)}; do
    name=${entry%%=*}
    names+=("$name")
    mkdir "$dir/$name"
    taskset -c 0 "${entry#*=}" --port $((7600 + ${#names[@]})) --save '' --appendonly no --dir "$dir/$name" \
        >"$dir/$name.log" 2>&1 &
    pids+=($!)
done

declare -A scripts=(
    [get]="return redis.call('GET', KEYS[1])"
    [unlock]="if redis.call('GET', KEYS[1]) == ARGV[1] then return redis.call('DEL', KEYS[1]) else return 0 end"
    [calls]="for i = 1, 1000 do redis.call('GET', KEYS[1]) end"
)
declare -A sha
key=key:__rand_int__ # redis-benchmark writes twelve digits
value=$(head -c 64 /dev/zero | tr '\0' x)
for i in "${!names[@]}"; do
    port=$((7601 + i))
    until [ "$(redis-cli -p $port ping 2>/dev/null)" = PONG ]; do sleep 0.1; done
    seq -f '%012.0f' 0 99999 | awk -v v="$value" \
        '{printf "*3\r\n$3\r\nSET\r\n$16\r\nkey:%s\r\n$64\r\n%s\r\n", $1, v}' |
        redis-cli -p $port --pipe >/dev/null
    for name in "${!scripts[@]}"; do
        sha[$name]=$(redis-cli -p $port SCRIPT LOAD "${scripts[$name]}")
    done
done
echo "kernel $(uname -r), $rounds rounds"

# CPU time of a process in ticks of 10 ms: total and user.
ticks() { awk '{ print $14 + $15, $14 }' "/proc/$1/stat"; }

# measure SERVER DEPTH SCRIPT: microseconds of server CPU time per request, total and user
measure() {
    local i=$1 depth=$2 name=$3 n=200000 start
    [ "$depth" = 1 ] || n=600000
    [ "$name" != calls ] || n=4000
    start=$(ticks "${pids[$i]}")
    taskset -c 1 redis-benchmark -p $((7601 + i)) -c 50 -n $n -r 100000 -P "$depth" -q \
        EVALSHA "${sha[$name]}" 1 "$key" other >/dev/null 2>&1
    echo "$start $(ticks "${pids[$i]}")" |
        awk -v n=$n '{ printf "%.4f %.4f\n", ($3 - $1) * 10000 / n, ($4 - $2) * 10000 / n }'
}

# median FILE COLUMN
median() {
    cut -d' ' -f"$2" "$1" | sort -n |
        awk '{a[NR] = $1} END {printf "%.2f [%.2f..%.2f]", a[int((NR + 1) / 2)], a[1], a[NR]}'
}

for test in "get 1" "get 16" "unlock 1" "unlock 16" "calls 1"; do
    read -r name depth <<<"$test"
    for i in "${!names[@]}"; do : >"$dir/$i"; done
    for _ in $(seq "$rounds"); do
        for i in "${!names[@]}"; do measure "$i" "$depth" "$name" >>"$dir/$i"; done
    done
    declare -A own=() best=()
    for i in "${!names[@]}"; do
        line=''
        for column in 1 2; do
            figure=$(median "$dir/$i" $column)
            line+="$figure us$([ $column = 2 ] || echo ', user ')"
            middle=${figure%% *}
            if [ "$i" = 0 ]; then
                own[$column]=$middle
            elif [ -z "${best[$column]:-}" ] || [ "$(echo "$middle < ${best[$column]}" | bc)" = 1 ]; then
                best[$column]=$middle
            fi
        done
        printf '%-7s -P %-3s %-14s %s\n' "$name" "$depth" "${names[$i]}" "$line"
    done
    printf '%-7s -P %-3s ratios to the best other: %.2f, user %.2f\n' "$name" "$depth" \
        "$(echo "${own[1]} / ${best[1]}" | bc -l)" "$(echo "${own[2]} / ${best[2]}" | bc -l)"
done
