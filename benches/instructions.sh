#!/bin/sh
# Counts instructions instead of seconds: the same on a busy machine as on a quiet one.
# Usage: benches/instructions.sh [NAME…]   (names as in `cargo bench --bench engine`; needs valgrind)
set -eu
cd "$(dirname "$0")/.."
command -v valgrind > /dev/null || { echo "valgrind is not installed: apt-get install valgrind" >&2; exit 2; }
binary=$(cargo bench --bench engine --no-run --message-format=json |
  sed -n 's/.*"executable":"\([^"]*engine-[^"]*\)".*/\1/p' | tail -n 1)
[ $# -gt 0 ] || set -- scheduler_step replay_million compile_million
for name in "$@"; do
  total=$(valgrind --tool=callgrind --callgrind-out-file=/dev/null "$binary" "$name" 2>&1 |
    sed -n 's/.*Collected : \([0-9]*\).*/\1/p')
  printf '%-20s %15s instructions\n' "$name" "$total"
done
