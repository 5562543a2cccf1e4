#!/usr/bin/env bash
# Counts instructions (counts.rs) and compares them with those that are kept (counts.json).
#
#   benches/counts.sh           fails when one has grown
#   benches/counts.sh record    keeps the present ones
#
# Installs what is missing: valgrind, and gungraun's runner beneath target/.
set -euo pipefail
cd "$(dirname "$0")/.."
target=$(realpath --canonicalize-missing "${CARGO_TARGET_DIR:-target}")

if ! command -v valgrind >/dev/null; then
    sudo=$([ "$(id -u)" = 0 ] || echo sudo)
    $sudo apt-get update
    $sudo apt-get install --yes --no-install-recommends valgrind
fi

# The runner must be of the library's own version.
version=$(sed -n '/^name = "gungraun"$/ { n; s/^version = "\(.*\)"$/\1/p }' Cargo.lock)
tools=$target/tools/gungraun-$version
if [ ! -x "$tools/bin/gungraun-runner" ]; then
    # It starts valgrind and reads what that has written: not optimized it is as quick, and built in half the time.
    # Cargo takes a temporary target directory of its own, so that only the program stays.
    env -u CARGO_TARGET_DIR CARGO_PROFILE_DEV_DEBUG=0 \
        cargo install gungraun-runner --version "=$version" --locked --debug --root "$tools"
fi

# Results of benchmarks that are no more would be taken for present ones.
results=$target/counts
rm -rf "$results"
PATH=$tools/bin:$PATH GUNGRAUN_HOME=$results \
    cargo bench --locked --bench counts -- --save-summary=json --callgrind-metrics=ir --nosummary
python3 benches/counts.py "${1:-compare}" "$results"
