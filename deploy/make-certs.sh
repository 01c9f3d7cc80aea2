#!/usr/bin/env bash
# Makes a private certificate authority and a certificate for a gateway, for a trial or a small private network.
#
#   deploy/make-certs.sh DIR NAME[,NAME…] [WORKER]
#
# DIR then holds ca.pem, gateway.pem and gateway-key.pem for the names or addresses by which the gateway is reached. With
# WORKER it also holds worker.pem and worker-key.pem, a client certificate for `GRPC_TLS_CLIENT_CA`. An existing
# authority in DIR is used again.
set -euo pipefail

if [ $# -lt 2 ]; then
  sed -n 's/^#   //p' "$0" >&2
  exit 2
fi
dir=$1
names=$2
worker=${3:-}

alternatives() { # subjectAltName of a list of names and addresses
  local name out=()
  local IFS=,
  for name in $1; do
    if [[ $name =~ ^[0-9.]+$ || $name == *:* ]]; then out+=("IP:$name"); else out+=("DNS:$name"); fi
  done
  printf '%s' "${out[*]}"
}

certificate() { # FILE COMMON-NAME USAGE [SUBJECT-ALT-NAME]
  local file=$1 extensions
  extensions=$(printf 'basicConstraints=critical,CA:FALSE\nkeyUsage=critical,digitalSignature\nextendedKeyUsage=%s\n' "$3")
  if [ $# -gt 3 ]; then extensions+=$'\n'"subjectAltName=$4"; fi
  openssl req -new -newkey ec -pkeyopt ec_paramgen_curve:P-256 -nodes -subj "/CN=$2" \
    -keyout "$dir/$file-key.pem" -out "$dir/$file.csr" 2> /dev/null
  openssl x509 -req -in "$dir/$file.csr" -CA "$dir/ca.pem" -CAkey "$dir/ca-key.pem" -CAcreateserial -days 365 \
    -extfile <(printf '%s\n' "$extensions") -out "$dir/$file.pem" 2> /dev/null
  rm -f "$dir/$file.csr"
}

# The folder is for its owner alone. The files in it are not: a container sees a single file, under its own user.
mkdir -p "$dir"
chmod 700 "$dir"
if ! [ -e "$dir/ca.pem" ]; then
  openssl req -x509 -newkey ec -pkeyopt ec_paramgen_curve:P-256 -nodes -days 3650 -subj '/CN=tol private authority' \
    -addext 'basicConstraints=critical,CA:TRUE,pathlen:0' -addext 'keyUsage=critical,keyCertSign,cRLSign' \
    -keyout "$dir/ca-key.pem" -out "$dir/ca.pem" 2> /dev/null
fi
certificate gateway "${names%%,*}" serverAuth "$(alternatives "$names")"
if [ -n "$worker" ]; then certificate worker "$worker" clientAuth; fi
chmod 644 "$dir"/*.pem
chmod 600 "$dir/ca-key.pem"
