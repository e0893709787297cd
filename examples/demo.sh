#!/bin/sh
# The main job from beginning to end, in a home of its own (.demo): enqueue, run, watch, compare.
set -eu
cd "$(dirname "$0")/.."
FTD_HOME="${FTD_DEMO_HOME:-$PWD/.demo}"
export FTD_HOME
mkdir -p "$FTD_HOME"

say() { printf '\n\033[1m$ %s\033[0m\n' "$*"; "$@"; }

say ftd enqueue examples/solar-cells.yaml
printf '\nA daemon works on it (log: %s/daemon.out). Ctrl-C is safe: a later "make demo" goes on.\n' \
  "$FTD_HOME"
ftd daemon --until-idle 2>>"$FTD_HOME/daemon.out" &
daemon=$!
trap 'kill "$daemon" 2>/dev/null || true' INT TERM
say ftd wait solar-cells
wait "$daemon"
say ftd summary solar-cells

cat <<END

What to type next (in this home: export FTD_HOME=$FTD_HOME PATH=$PWD/.venv/bin:\$PATH):
  ftd runs solar-cells                  every run with its numbers
  ftd show r1                           one run: parameters, provenance, attempts
  ftd export solar-cells --output runs.csv
  ftd layers efficientnet_lite0         what F(...), FT(...) and R(...) count
  ftd enqueue examples/solar-cells.yaml --set train.lr=0.003 --dry-run
END
