#!/usr/bin/env bash
# Stops what scripts/start_n_servers.sh has started, the gateway first. The data stays in DKV_DIR.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."

dir=${DKV_DIR:-data/servers}
if [[ ! -e $dir/pids ]]; then
    echo "nothing runs in $dir"
    exit 0
fi
mapfile -t pids <"$dir/pids"
for ((i = ${#pids[@]} - 1; i >= 0; i--)); do
    pid=${pids[i]}
    # Another process may have the number by now.
    [[ $(ps -o args= -p "$pid" 2>/dev/null) == *dkv* ]] || continue
    kill "$pid" 2>/dev/null || continue
    for _ in {1..150}; do
        # One that nobody has waited for yet has ended all the same.
        state=$(ps -o stat= -p "$pid" || true)
        [[ -n $state && $state != Z* ]] || break
        sleep 0.1
    done
done
rm "$dir/pids"
