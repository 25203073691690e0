from __future__ import annotations

import os
import shutil
import signal
import subprocess
import sys
from pathlib import Path
from types import ModuleType

import pytest

RECEIVE = """
import os, socket, sys
server = socket.create_server((sys.argv[1], 5000))
print(os.environ["GLOO_SOCKET_IFNAME"], flush=True)
connection, peer = server.accept()
received = 0
while data := connection.recv(1 << 20):
    received += len(data)
print(peer[0], received)
"""
SEND = """
import socket, sys, time
connection = socket.create_connection((sys.argv[1], 5000))
start = time.monotonic()
connection.sendall(bytes(int(sys.argv[2])))
connection.shutdown(socket.SHUT_WR)
connection.recv(1)
print(time.monotonic() - start)
"""
WAIT = """
import sys, time
from network_namespaces import Hosts
with Hosts(1) as hosts:
    hosts.run(0, ["sleep", "60"])
    print("ready", flush=True)
    time.sleep(60)
"""


def why_not() -> str:
    if sys.platform != "linux" or os.geteuid() != 0:
        return "network namespaces need Linux and root"
    path = f"{os.environ.get('PATH', '')}:/usr/sbin:/sbin"
    if shutil.which("ip", path=path) is None or shutil.which("tc", path=path) is None:
        return "network namespaces need the programs ip and tc"
    if subprocess.run(["unshare", "--net", "--mount", "true"], capture_output=True).returncode != 0:
        return "this root may not make network namespaces"
    return ""


needs_namespaces = pytest.mark.skipif(bool(why_not()), reason=why_not())


def names(prefix: str) -> list[str]:
    folder = Path("/run/netns")
    return [path.name for path in folder.iterdir() if path.name.startswith(prefix)] if folder.is_dir() else []


@needs_namespaces
def test_hosts_have_addresses_counters_and_limited_links(network_namespaces: ModuleType) -> None:
    nbytes, rate_mbit = 1_000_000, 100
    with network_namespaces.Hosts(2, rate_mbit=rate_mbit) as hosts:
        assert [hosts.address(i) for i in range(2)] == ["10.77.0.1", "10.77.0.2"]
        receiver = hosts.run(1, [sys.executable, "-c", RECEIVE, hosts.address(1)], stdout=subprocess.PIPE)
        assert receiver.stdout.readline() == "eth0\n"
        before = hosts.bytes_sent(0), hosts.bytes_received(1), hosts.bytes_sent(1)
        sender = hosts.run(0, [sys.executable, "-c", SEND, hosts.address(1), str(nbytes)], stdout=subprocess.PIPE)
        seconds = float(sender.communicate()[0])
        assert receiver.communicate()[0].split() == ["10.77.0.1", str(nbytes)]
        after = hosts.bytes_sent(0), hosts.bytes_received(1), hosts.bytes_sent(1)
        sent, received, back = (b - a for a, b in zip(before, after, strict=True))
        left = hosts.run(0, ["sleep", "60"])
    # The token bucket lets 70 kB pass at once; how much longer it takes is up to the machine.
    assert seconds > 8 * (nbytes - 100_000) / (rate_mbit * 1e6)
    assert nbytes < sent < 1.02 * nbytes
    assert received == sent
    assert 0 < back < 0.02 * nbytes
    assert left.returncode is not None
    assert names(f"adperception-{os.getpid()}-") == []


@needs_namespaces
def test_nothing_is_left_after_an_error(network_namespaces: ModuleType) -> None:
    def fail_inside() -> None:
        with network_namespaces.Hosts(1):
            assert len(names(f"adperception-{os.getpid()}-")) == 2
            raise KeyError

    with pytest.raises(KeyError):
        fail_inside()
    assert names(f"adperception-{os.getpid()}-") == []


@needs_namespaces
@pytest.mark.parametrize(("number", "status"), [(signal.SIGTERM, 143), (signal.SIGINT, -signal.SIGINT)])
def test_nothing_is_left_after_a_signal(repository: Path, number: int, status: int) -> None:
    environment = os.environ | {"PYTHONPATH": str(repository / "benchmarks")}
    process = subprocess.Popen(
        [sys.executable, "-c", WAIT], env=environment, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True
    )
    assert process.stdout is not None
    assert process.stdout.readline() == "ready\n"
    assert len(names(f"adperception-{process.pid}-")) == 2
    process.send_signal(number)
    assert process.wait(20) == status
    assert names(f"adperception-{process.pid}-") == []


@needs_namespaces
def test_the_next_run_removes_what_a_killed_one_left(network_namespaces: ModuleType, repository: Path) -> None:
    environment = os.environ | {"PYTHONPATH": str(repository / "benchmarks")}
    process = subprocess.Popen([sys.executable, "-c", WAIT], env=environment, stdout=subprocess.PIPE, text=True)
    assert process.stdout is not None
    assert process.stdout.readline() == "ready\n"
    process.kill()
    process.wait()
    left = names(f"adperception-{process.pid}-")
    assert len(left) == 2
    with network_namespaces.Hosts(1):
        assert names(f"adperception-{process.pid}-") == []
    assert network_namespaces.remove_leftovers() == []


@needs_namespaces
def test_a_latency_is_kept_or_refused(network_namespaces: ModuleType) -> None:
    hosts = network_namespaces.Hosts(2, rate_mbit=100, latency_ms=20)
    try:
        with hosts:
            receiver = hosts.run(1, [sys.executable, "-c", RECEIVE, hosts.address(1)], stdout=subprocess.PIPE)
            assert receiver.stdout.readline() == "eth0\n"
            sender = hosts.run(0, [sys.executable, "-c", SEND, hosts.address(1), "1"], stdout=subprocess.PIPE)
            assert float(sender.communicate()[0]) > 0.04
    except network_namespaces.NetworkSetupError as error:
        assert "latency_ms=20 needs a kernel with netem" in str(error)  # noqa: PT017
    assert names(f"adperception-{os.getpid()}-") == []


def test_without_root_it_says_what_it_needs(
    network_namespaces: ModuleType,
    network_time: ModuleType,
    distributed_bytes: ModuleType,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(sys, "platform", "linux")
    monkeypatch.setattr(os, "geteuid", lambda: 1000)
    monkeypatch.setenv("PATH", "")
    monkeypatch.setattr(network_namespaces, "SYSTEM_FOLDERS", ())
    scripts = [lambda script=script: script.main([]) for script in (network_time, distributed_bytes)]
    for call in (network_namespaces.require_root, *scripts):
        # A SystemExit with a text prints it and ends with status 1.
        with pytest.raises(
            SystemExit, match=r"root \(this is user 1000\).*; and the program `ip`.*; and.*`tc`"
        ) as error:
            call()
        assert isinstance(error.value.code, str)


def test_impossible_values_are_refused(network_namespaces: ModuleType) -> None:
    with pytest.raises(ValueError, match="count: 0 hosts"):
        network_namespaces.Hosts(0)
    with pytest.raises(ValueError, match="rate_mbit: 0 is not positive"):
        network_namespaces.Hosts(2, rate_mbit=0)
    with pytest.raises(IndexError, match="host 2 of 2"):
        network_namespaces.Hosts(2).address(2)
