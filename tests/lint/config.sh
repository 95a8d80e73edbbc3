#!/bin/sh
# A page of settings is what its program prints, and the example settings are accepted: config.sh SOURCE_DIR PROGRAM PAGE.
set -eu
cd "$1"
name=$(basename "$2")
"$2" --config-reference | diff -u "$3" - || {
    echo "config: $3 is not what the table says; make it anew: $name --config-reference > $3"
    exit 1
}
"$2" --config "deploy/$name.conf" --check
echo "config: $(grep -c '^## ' "$3") settings"
