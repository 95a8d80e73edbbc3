#!/bin/sh
# Units are understood by systemd without a word, the worker's exposure stays at 2.0 or below and the gateway's at 1.2: units.sh SOURCE_DIR.
# Exit 77 where systemd-analyze is missing.
set -eu
command -v systemd-analyze >/dev/null || {
    echo "units: left out, no systemd-analyze found"
    exit 77
}
dir=$(mktemp -d)
trap 'rm -rf "$dir"' EXIT
n=0
for unit in "$1"/deploy/systemd/*.service "$1"/deploy/systemd/*.socket "$1"/deploy/systemd/*.target "$1"/deploy/systemd/*.slice; do
    # The programs are not installed where the tests run.
    sed 's|^\(ExecStart=\)/usr/bin/[a-z-]*|\1/bin/true|' "$unit" >"$dir/$(basename "$unit")"
    n=$((n + 1))
done
[ "$n" -ge 3 ] || { echo "units: no units found"; exit 1; }
cp "$dir/quantd@.service" "$dir/quantd@cpu.service"
cd "$dir"
said=$(systemd-analyze verify ./quantd@cpu.service ./quant-gateway.service ./*.socket ./*.target ./*.slice 2>&1 || true)
[ -z "$said" ] || { echo "$said"; exit 1; }
systemd-analyze security --offline=yes --threshold=20 ./quantd@.service >security.txt 2>&1 || { tail -3 security.txt; exit 1; }
tail -1 security.txt
systemd-analyze security --offline=yes --threshold=12 ./quant-gateway.service >security.txt 2>&1 || { tail -3 security.txt; exit 1; }
tail -1 security.txt
echo "units: $n files"
