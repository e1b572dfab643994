#!/bin/sh
# Feeds made-up bytes to each fuzz target (fuzz/src/bin/), for so many seconds each, beginning with its seeds. The first one
# that fails ends it; the bytes that did it are then in fuzz/artifacts/TARGET.
#   scripts/fuzz.sh SECONDS
set -eu

readonly seconds=${1:?how many seconds for each target}
# One input may take this long, and all of it this much memory: more is a finding.
readonly INPUT_SECONDS=10
readonly MEMORY_MIB=1024
# How much is shown of what a target says that fails.
readonly SHOWN_LINES=60

cd "$(dirname "$0")/../fuzz"
# What is locked is what is built; cargo-fuzz itself does not ask.
cargo fetch --locked --quiet
for file in src/bin/*.rs; do
    target=$(basename "$file" .rs)
    mkdir -p "corpus/$target"
    echo "fuzz: $target, $seconds s" >&2
    # No sanitizer: those need a nightly compiler, and there is no unsafe code here for them to watch.
    cargo fuzz run --sanitizer none "$target" "corpus/$target" "seeds/$target" -- \
        -max_total_time="$seconds" -timeout="$INPUT_SECONDS" -rss_limit_mb="$MEMORY_MIB" -print_funcs=0 \
        >"corpus/$target.log" 2>&1 || {
        tail -n "$SHOWN_LINES" "corpus/$target.log" >&2
        echo "error: $target fails; the bytes are in fuzz/artifacts/$target, all that was said in fuzz/corpus/$target.log" >&2
        echo "hint: mend it, and keep the bytes as a seed: fuzz/seeds/$target/NAME" >&2
        exit 1
    }
done
