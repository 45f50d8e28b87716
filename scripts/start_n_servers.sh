#!/usr/bin/env bash
# Starts a network of N nodes and its gateway on this machine: /set, /fetch, /query and the rest at
# HTTP (127.0.0.1:8080). Usage: scripts/start_n_servers.sh [N]; scripts/stop_servers.sh stops all.
#
# The first start in a folder creates the network, with four shards for each of its nodes, each of them
# on three nodes: so no node of many has all the data, and any of three or more may be lost.
#
#   DKV       the dkv command       [dkv if it is in the PATH, else target/release/dkv]
#   DKV_DIR   where everything is   [data/servers]; what is there is gone on with
#   HTTP      where HTTP is served  [127.0.0.1:8080]
#   SERVER    where the server is   [127.0.0.1:4400]
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."

number=${1:-3}
if ! [[ $number =~ ^[1-9][0-9]?$ || $number == 100 ]]; then
    echo "usage: $0 [1 to 100]" >&2
    exit 2
fi
dkv=${DKV:-$(command -v dkv || echo target/release/dkv)}
dir=${DKV_DIR:-data/servers}
server=${SERVER:-127.0.0.1:4400}
mkdir -p "$dir"
dir=$(cd "$dir" && pwd)
if [[ -e $dir/pids ]]; then
    echo "servers run in $dir already; stop them with scripts/stop_servers.sh" >&2
    exit 1
fi
: >"$dir/pids"
if [[ ! -e $dir/config.json ]]; then
    echo "{ \"data_dir\": \"server\", \"shards\": $((4 * number)) }" >"$dir/config.json"
fi

# start NAME ARGUMENTS...: waits until the process says that it is ready.
start() {
    local name=$1 pid
    shift
    : >"$dir/$name.out"
    nohup "$dkv" "$@" >"$dir/$name.out" 2>>"$dir/$name.log" </dev/null &
    pid=$!
    echo "$pid" >>"$dir/pids"
    for _ in {1..600}; do
        if grep -q '^ready ' "$dir/$name.out"; then
            echo "$name  $(sed -n 's/^ready //p' "$dir/$name.out")"
            return
        fi
        kill -0 "$pid" 2>/dev/null || break
        sleep 0.1
    done
    echo "$name did not start; see $dir/$name.log" >&2
    scripts/stop_servers.sh
    exit 1
}

export DKV_DIR=$dir
start server server --config "$dir/config.json" --listen "$server"
server=$(sed -n 's/^ready //p' "$dir/server.out")
for ((i = 1; i <= number; i++)); do
    start "n$i" node "$server" --name "n$i" --data-dir "$dir/n$i"
done
start gateway gateway "$server" --http "${HTTP:-127.0.0.1:8080}"
