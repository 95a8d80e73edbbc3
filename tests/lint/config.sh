#!/bin/sh
# docs/config.md is what quantd prints, and the example settings are accepted: config.sh SOURCE_DIR QUANTD.
set -eu
cd "$1"
"$2" --config-reference | diff -u docs/config.md - || {
    echo "config: docs/config.md is not what the table says; make it anew: quantd --config-reference > docs/config.md"
    exit 1
}
"$2" --config deploy/quantd.conf --check
echo "config: $(grep -c '^## ' docs/config.md) settings"
