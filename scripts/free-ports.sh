#!/usr/bin/env bash
# Prints ports that are free for TCP and UDP, within the range that the flags allow and below the ones that Linux gives
# to outgoing connections.
#
# usage: scripts/free-ports.sh COUNT
set -euo pipefail
exec python3 - "$1" <<'PY'
import random, socket, sys
ports = set()
while len(ports) < int(sys.argv[1]):
    port = random.randint(20000, 32000)
    try:
        for kind in (socket.SOCK_STREAM, socket.SOCK_DGRAM):
            with socket.socket(socket.AF_INET, kind) as probe:
                probe.bind(("0.0.0.0", port))
    except OSError:
        continue
    ports.add(port)
print(*ports)
PY
