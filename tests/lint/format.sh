#!/bin/sh
# C files are as clang-format 14 leaves them: format.sh SOURCE_DIR. Exit 77 where clang-format 14 is missing.
set -eu
cd "$1"
tool=$(command -v clang-format-14 || true)
if [ -z "$tool" ]; then
    echo "format: left out, no clang-format-14 found"
    exit 77
fi
list=$(find access base bus calib catalog ckpt cli daemon engine gateway gpu jobs proto quant tests -name '*.[ch]' -o -name '*.cu' | sort)
[ -n "$list" ] || { echo "format: no files found"; exit 1; }
# shellcheck disable=SC2086
"$tool" --dry-run -Werror $list
echo "format: $(echo "$list" | wc -l) files"
