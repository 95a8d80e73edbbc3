#!/bin/sh
# Writes a nats-server.conf for one machine, as this nats-server understands it:
#   nats-conf.sh DATA_DIR [PORT [HOST [NATS_SERVER]]] > nats-server.conf
# sync_interval: always (a write is on disk before it is acknowledged) goes in where the server knows it; where it does
# not, a warning goes to stderr.
set -eu
[ $# -ge 1 ] || {
    echo "nats-conf.sh: usage: nats-conf.sh DATA_DIR [PORT [HOST [NATS_SERVER]]]" >&2
    exit 2
}
data=$1 port=${2:-4222} host=${3:-127.0.0.1} server=${4:-nats-server}
command -v "$server" >/dev/null || {
    echo "nats-conf.sh: no $server found" >&2
    exit 78
}

conf() {
    cat <<END
server_name: "quantd"
host: "$host"
port: $port
max_payload: 1MB
write_deadline: "10s"
ping_interval: "20s"
jetstream {
  store_dir: "$data"
$1}
END
}

try=$(mktemp)
trap 'rm -f "$try"' EXIT
conf "  sync_interval: always
" >"$try"
if "$server" -t -c "$try" >/dev/null 2>&1; then
    cat "$try"
else
    echo "nats-conf.sh: $("$server" --version) does not know sync_interval: always: a power failure can lose the last" \
        "two minutes of what it acknowledged" >&2
    conf ""
fi
