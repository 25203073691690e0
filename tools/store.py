"""Host the store that workers agree through, in a process that outlives them: python tools/store.py --port 29400

For runs whose survivors go on without lost workers: each worker then has a launcher of its own, so that a dead one
takes nobody with it, and the store may not live in any of them. Start it first; it ends with Ctrl-C or SIGTERM.

Whoever reaches the port can read and change what workers agree on: use a trusted network, or --host 127.0.0.1.
"""

from __future__ import annotations

import argparse
import signal
import socket
import sys
from collections.abc import Sequence

_USE = """store on {host}:{port}. Each worker, W of them, with I from 0 to W - 1:
  store = torch.distributed.TCPStore("{host}", {port}, is_master=False)
  communicator = TorchCommunicator(store=store, worker_id=I, workers=W, on_failure="regroup")
A new store for each run, or TorchCommunicator(..., name="another"). Ctrl-C or SIGTERM ends it."""


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command line; returns the exit code."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--port", type=int, default=29400, help="0: any free one, which is printed")
    parser.add_argument("--host", help="address to listen on, and the one printed (default: all; prints the host name)")
    options = parser.parse_args(arguments)
    try:
        # IPv4: on an IPv6 socket the store asks name servers even about 127.0.0.1, and serves nobody meanwhile.
        listener = socket.create_server((options.host or "", options.port))
    except (OSError, OverflowError) as error:
        print(f"error: cannot listen on {options.host or 'any address'}, port {options.port}: {error}", file=sys.stderr)
        return 1
    # Before torch, which takes seconds: a signal that comes earlier ends the process as well.
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    try:
        _serve(listener, options.host)
    except KeyboardInterrupt:
        print("store ended", flush=True)
    return 0


def _serve(listener: socket.socket, host: str | None) -> None:
    from torch.distributed import TCPStore  # type: ignore[attr-defined]

    port = listener.getsockname()[1]
    store = TCPStore(
        host or "localhost", port, is_master=True, wait_for_workers=False, master_listen_fd=listener.detach()
    )
    print(_USE.format(host=host or socket.gethostname(), port=store.port), flush=True)
    while True:
        signal.pause()


if __name__ == "__main__":
    sys.exit(main())
