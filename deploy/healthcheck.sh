#!/usr/bin/env bash
# Asks the health endpoint of `tol serve` whether the process is well; the image has no other HTTP client.
#
#   tol-healthcheck [PATH] [HOST] [PORT]      /healthz, 127.0.0.1, 9090 when left out
set -euo pipefail

path=${1:-/healthz}
host=${2:-127.0.0.1}
port=${3:-9090}

exec 3<> "/dev/tcp/$host/$port"
printf 'GET %s HTTP/1.1\r\nHost: %s\r\nConnection: close\r\n\r\n' "$path" "$host" >&3
IFS=' ' read -r -t 3 _ status _ <&3
if [ "$status" != 200 ]; then
  echo "$path answers $status" >&2
  exit 1
fi
