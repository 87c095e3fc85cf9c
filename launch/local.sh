#!/usr/bin/env bash
# Train on this machine, one process per GPU, and start again after a crash, a hang or a kill:
#   bash launch/local.sh NUM_GPUS RECIPE [flags of `tinyworld train`]
set -eu
if [ $# -lt 2 ]; then
  echo "usage: bash launch/local.sh NUM_GPUS RECIPE [flags of tinyworld train]" >&2
  exit 2
fi
gpus=$1
recipe=$2
shift 2
exec tinyworld supervise "$recipe" --processes "$gpus" "$@"
