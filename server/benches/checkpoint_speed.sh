#!/usr/bin/env bash
# Speed of checkpoints on this machine and disk:
#   write    MB/s of BGSAVE for about 2 GiB, beside dd of the same size to the same disk
#   restore  seconds to start with 3,000,000 keys of 512 bytes, beside redis-server with an RDB file
#   fork     latest_fork_usec for 1, 2, 4 and 8 GiB in each page kind (hugetlb kinds need root)
#
# KINDS and SIZES select page kinds and sizes of fork, ISOLATION another checkpoint-isolation than
# undo-log, COWHERD_BIN another binary.
#
#   cargo build --release && server/benches/checkpoint_speed.sh [write|restore|fork ...]
set -euo pipefail
cd "$(dirname "$0")/../.."
[ $# -gt 0 ] || set -- write restore fork
bin=$(realpath "${COWHERD_BIN:-target/release/cowherd}")
dir=$(mktemp -d -p "${BENCH_DIR:-$PWD/target}")
pool=$(cat /proc/sys/vm/nr_hugepages)
gib_pool=/sys/kernel/mm/hugepages/hugepages-1048576kB/nr_hugepages
gibs=$(cat $gib_pool 2>/dev/null || echo 0)
server=
stop() { if [ -n "$server" ]; then kill -9 "$server" 2>/dev/null || true; wait "$server" 2>/dev/null || true; server=; fi; }
cleanup() {
    stop
    rm -rf "$dir"
    if [ "$(id -u)" = 0 ]; then
        sysctl -q vm.nr_hugepages="$pool" || true
        [ ! -e $gib_pool ] || echo "$gibs" >$gib_pool || true
    fi
}
trap cleanup EXIT

cli() { redis-cli -p 7611 "$@"; }
start() { # start BINARY ARGS...
    "$@" --port 7611 --dir "$dir" --save '' >"$dir/log" 2>&1 &
    server=$!
    until [ "$(cli ping 2>/dev/null)" = PONG ]; do
        kill -0 $server 2>/dev/null || { cat "$dir/log"; exit 1; }
        sleep 0.02
    done
}
cowherd() { start "$bin" --metrics-port 0 --maxmemory "${1:-6gb}" --arena-pages "${2:-thp}" --threads 2 \
    --checkpoint-isolation "${ISOLATION:-undo-log}"; }
fill() { # fill KEYS BYTES: incompressible values
    seq -f '%012.0f' 0 $(($1 - 1)) | awk -v n="$2" 'BEGIN {
            srand(7); for (i = 0; i < 256; i++) { s = ""; while (length(s) < n)
                s = s sprintf("%08x", rand() * 4294967295); v[i] = substr(s, 1, n) } }
        { printf "*3\r\n$3\r\nSET\r\n$16\r\nkey:%s\r\n$%d\r\n%s\r\n", $1, n, v[NR % 256] }' |
        cli --pipe >/dev/null 2>&1
}
field() { cli info "$1" | tr -d '\r' | awk -F: -v f="$2" '$1 == f {print $2}'; }
bgsave() {
    cli bgsave >/dev/null
    until [ "$(field persistence rdb_bgsave_in_progress)" = 0 ]; do sleep 0.05; done
    [ "$(field persistence rdb_last_bgsave_status)" = ok ]
}
seconds() { date +%s.%N; }
calc() { echo "scale=${2:-2}; $1" | bc; }

write() {
    cowherd
    fill 3600000 512
    for round in 1 2 3; do
        rm -f "$dir/dump.cow"
        bgsave
        bytes=$(stat -c %s "$dir/dump.cow")
        took=$(field persistence cowherd_last_checkpoint_seconds)
        t0=$(seconds)
        dd if=/dev/zero of="$dir/dd" bs=2M count=$((bytes / 2097152)) conv=fsync 2>/dev/null
        t1=$(seconds)
        rm -f "$dir/dd"
        dd if=/dev/zero of="$dir/dd" bs=2M count=$((bytes / 2097152)) oflag=direct conv=fsync 2>/dev/null
        t2=$(seconds)
        rm -f "$dir/dd"
        echo "write round $round: image $((bytes >> 20)) MiB in $took s," \
            "$(calc "$bytes / 1000000 / $took") MB/s; dd $(calc "$bytes / 1000000 / ($t1 - $t0)") MB/s," \
            "dd oflag=direct $(calc "$bytes / 1000000 / ($t2 - $t1)") MB/s"
    done
    stop
}

restore() {
    cowherd
    fill 3000000 512
    bgsave
    stop
    for cache in kept dropped; do
        for _ in 1 2 3; do
            [ "$cache" = kept ] || { sync; echo 3 >/proc/sys/vm/drop_caches; }
            t0=$(seconds)
            cowherd
            t1=$(seconds)
            [ "$(cli dbsize)" = 3000000 ]
            echo "restore cowherd (cache $cache): $(calc "$t1 - $t0") s"
            stop
        done
    done
    start redis-server --appendonly no
    fill 3000000 512
    cli save >/dev/null
    stop
    for _ in 1 2 3; do
        t0=$(seconds)
        start redis-server --appendonly no
        t1=$(seconds)
        [ "$(cli dbsize)" = 3000000 ]
        echo "restore $(redis-server --version | cut -d' ' -f3): $(calc "$t1 - $t0") s"
        stop
    done
    rm -f "$dir"/dump.*
}

fork() {
    for kind in ${KINDS:-small thp huge-2mb huge-1gb}; do
        for gib in ${SIZES:-1 2 4 8}; do
            # Headers and tables take about an eighth of the values' size.
            needed=$((gib * 9 / 8 + 1))
            capacity=${needed}gb
            case $kind in
            huge-2mb) sysctl -q vm.nr_hugepages=$(((needed + 1) * 512)) || continue ;;
            huge-1gb)
                echo $needed >$gib_pool 2>/dev/null || true
                if [ "$(cat $gib_pool 2>/dev/null || echo 0)" -lt $needed ]; then
                    echo "fork $kind, $gib GiB: the machine has no $needed pages"
                    continue
                fi
                ;;
            esac
            cowherd $capacity $kind
            fill $((gib * 1800000)) 512
            times=
            for _ in 1 2 3; do
                bgsave
                times="$times $(field stats latest_fork_usec)"
            done
            echo "fork $kind, $(($(field memory used_memory) >> 20)) MiB used: latest_fork_usec$times"
            stop
            rm -f "$dir/dump.cow"
            sysctl -q vm.nr_hugepages="$pool" || true
            echo "$gibs" >$gib_pool 2>/dev/null || true
        done
    done
}

for part in "$@"; do $part; done
