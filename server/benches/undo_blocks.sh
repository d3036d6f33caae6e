#!/usr/bin/env bash
# Cost of each block size of the undo log: latency during a checkpoint, captured bytes, and memory of the log.
# The sizes take turns; `cowherd ... undo-log` has blocks of 512 bytes.
#
#   cargo build --release && server/benches/undo_blocks.sh [ROUNDS] [PAGES]
set -euo pipefail
cd "$(dirname "$0")/../.."
rounds=${1:-3}
pages=${2:-huge-2mb}
bin=$(realpath "${COWHERD_BIN:-target/release/cowherd}")
work=$(mktemp -d)
servers=()
for block in 256 1024 4096; do
    cat >"$work/cowherd-$block" <<SCRIPT
#!/bin/sh
exec "$bin" --checkpoint-isolation undo-log --checkpoint-undo-block $block --arena-pages $pages \\
    --maxmemory 1536mb --metrics-port 0 "\$@"
SCRIPT
    chmod +x "$work/cowherd-$block"
    servers+=(--server "blocks of $block=$work/cowherd-$block")
done
pool=/sys/kernel/mm/hugepages/hugepages-2048kB/nr_hugepages
before=$(cat $pool)
trap 'echo "$before" >$pool; rm -rf "$work"' EXIT
[ "$pages" != huge-2mb ] || echo $((before + 800)) >$pool
"$bin" bench snapshot --spawn --no-peers --pages "$pages" --isolation undo-log "${servers[@]}" --rate 60000 --keys 1500000 \
    --value-size 512 --rounds "$rounds" --duration 2 --warm-up 1
