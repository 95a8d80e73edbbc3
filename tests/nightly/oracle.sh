#!/bin/sh
# Scalar numerics against NVIDIA's headers, for all 2^32 floats (one to two minutes on two cores). Exit 77 where nvcc is missing.
set -eu
root=$(cd "$(dirname "$0")/../.." && pwd)
nvcc=$(command -v nvcc || true)
if [ -z "$nvcc" ]; then
    echo "oracle: left out, no nvcc found"
    exit 77
fi
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
"$nvcc" -std=c++17 -O2 -Xcompiler -ffp-contract=off,-pthread -I"$root" -o "$work/oracle" "$root/tests/nightly/oracle.cc"
"$work/oracle"
