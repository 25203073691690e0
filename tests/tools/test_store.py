from __future__ import annotations

import re
import signal
import socket
import subprocess
import sys
from datetime import timedelta
from pathlib import Path

import pytest
from torch import distributed as dist


@pytest.mark.multi_process
def test_serves_until_it_is_told_to_end(repository: Path) -> None:
    command = [sys.executable, str(repository / "tools" / "store.py"), "--port", "0", "--host", "127.0.0.1"]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        address = re.match(r"store on 127\.0\.0\.1:(\d+)\. ", process.stdout.readline())
        assert address is not None
        store = dist.TCPStore("127.0.0.1", int(address[1]), is_master=False, timeout=timedelta(seconds=5))
        store.set("key", "value")
        assert store.get("key") == b"value"
        process.send_signal(signal.SIGTERM)
        output = process.stdout.read()
    assert f'TCPStore("127.0.0.1", {address[1]}, is_master=False)' in output
    assert output.endswith("store ended\n")
    assert process.returncode == 0


def test_port_in_use(tool: object, capsys: pytest.CaptureFixture[str]) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = str(taken.getsockname()[1])
        assert tool("store")(["--host", "127.0.0.1", "--port", port]) == 1  # type: ignore[operator]
    assert f"error: cannot listen on 127.0.0.1, port {port}: " in capsys.readouterr().err
