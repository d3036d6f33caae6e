# The usual commands, for https://just.systems: `just` lists them. Each also works when typed; ./test
# needs no `just`.

# Lists the recipes.
default:
    @just --list --unsorted

# Builds server and benchmarks, optimised.
build:
    cargo build --locked --release -p cowherd -p cowherd-bench

# Runs an optimised server: just run --port 7000 --maxmemory 1gb
run *ARGS:
    cargo run --locked --release -p cowherd -- {{ ARGS }}

# Checks everything, as before a merge; installs what the tests need (root, or sudo).
test:
    ./test

# Checks everything, with fewer rounds of the randomised tests.
quick:
    ./test --quick

# Reports all that Clippy finds.
lint:
    cargo clippy --locked --workspace --all-targets -- -D warnings

# Formats the whole tree.
fmt:
    cargo fmt --all

# Builds the documentation of the crates; just doc --open shows it.
doc *ARGS:
    RUSTDOCFLAGS="-D warnings" cargo doc --locked --workspace --no-deps {{ ARGS }}

# Runs under Miri what it can run: code without mmap, fork and threads in system calls
# (rustup toolchain install nightly --component miri,rust-src).
miri *ARGS:
    PROPTEST_CASES=4 MIRIFLAGS=-Zmiri-disable-isolation cargo +nightly miri test --locked -p cowherd-resp -p cowherd-rdb {{ ARGS }}
    PROPTEST_CASES=4 MIRIFLAGS=-Zmiri-disable-isolation cargo +nightly miri test --locked -p cowherd-arena --lib {{ ARGS }} -- allocator:: barrier::blocks containers::packed shard:: stats::

# Fuzzes a target (protocol, image, commands, lua_cjson, lua_cmsgpack, lua_struct, rdb) until it fails: just fuzz protocol -max_total_time=60
fuzz TARGET *ARGS:
    cargo +nightly fuzz run --fuzz-dir server/fuzz {{ TARGET }} -- {{ ARGS }}

# Drops the inputs of a fuzz target that reach no code of their own.
fuzz-minimize TARGET:
    cargo +nightly fuzz cmin --fuzz-dir server/fuzz {{ TARGET }}

# Checks histories of concurrent clients; COWHERD_HISTORY_SECONDS sets the time of each test.
history:
    cargo build --locked --profile tested -p cowherd
    COWHERD_HISTORY_SECONDS=${COWHERD_HISTORY_SECONDS:-300} cargo test --locked --profile tested -p client-tests --test history

# Runs a benchmark: just bench snapshot --help
bench *ARGS:
    cargo build --locked --release -p cowherd -p cowherd-bench
    cargo run --locked --release -p cowherd-bench -- {{ ARGS }}

# Builds the Debian package in target/debian/ (needs dpkg-dev).
deb:
    server/cowherd/packaging/build-deb.sh

# Checks dependencies: advisories, licences, versions, sources (cargo install cargo-deny --locked).
deny *ARGS:
    cargo deny --locked check {{ ARGS }}
