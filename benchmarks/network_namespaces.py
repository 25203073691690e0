"""Hosts on one machine: network namespaces with their own addresses, counters and rate-limited links.

``with Hosts(4, rate_mbit=200) as hosts: hosts.run(0, [sys.executable, "worker.py"])``

Every host is a namespace with one interface, ``eth0``, at 10.77.0.(index + 1). A virtual cable joins it to a switch, a
bridge in a namespace of its own at 10.77.0.254, where a store can run that outlives the workers. Both ends of a cable
are limited (``tc tbf``), so sending and receiving have ``rate_mbit`` each, as on full-duplex Ethernet. Frames are of
9000 bytes and packets are counted before they are cut into frames, so headers are about 0.1 % of what the counters
show. IPv6 is off (its chatter would be counted), TCP uses cubic where the kernel has it.

What was made is removed at the end, also after an error, Ctrl-C or SIGTERM; what a run left that was killed outright
(SIGKILL) is removed by the next run. Needs root, ``ip`` and ``tc``: :func:`require_root` says so.
"""

from __future__ import annotations

import itertools
import json
import os
import re
import shutil
import signal
import subprocess
import sys
import threading
from collections.abc import Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from types import FrameType, TracebackType
from typing import Any

PREFIX = "adperception"
INTERFACE = "eth0"
SUBNET = "10.77.0"
SWITCH_ADDRESS = f"{SUBNET}.254"
MTU = 9000
MOST_HOSTS = 250
# A token bucket lets this much pass at once after a pause. Less than an offloaded packet (64 KiB) would be cut.
BURST_BYTES = 70_000
# Deep enough that TCP's largest default window waits and is not dropped: what is sent again would be counted as sent.
QUEUE_BYTES = 16 << 20
SECONDS_TO_TERMINATE = 3.0
SYSTEM_FOLDERS = ("/usr/sbin", "/sbin")

_run_numbers = itertools.count()


class NetworkSetupError(RuntimeError):
    """The kernel refused to build a part of the network."""


def require_root() -> None:
    """Return if namespaces can be made here.

    Raises:
        SystemExit: status 1 and, on standard error, everything that is missing.
    """
    missing = []
    if sys.platform != "linux":
        missing.append(f"Linux (this is {sys.platform})")
    elif os.geteuid() != 0:
        missing.append(f"root (this is user {os.geteuid()}): use sudo, or a container started with --privileged")
    missing += [f"the program `{tool}` (package iproute2)" for tool in ("ip", "tc") if _find(tool) is None]
    if missing:
        raise SystemExit("network namespaces with rate-limited links need " + "; and ".join(missing))


class Hosts:
    """``count`` network namespaces joined by a switch.

    Args:
        count: of hosts, 1 to 250.
        rate_mbit: of every link in either direction, 10^6 bits per second; ``None``: as fast as the machine is.
        latency_ms: from host to host, one way (``tc netem``, which not every kernel has); ``None``: the machine's own.

    Raises:
        ValueError: a value out of range.
        SystemExit: on entering, without root or tools.
        NetworkSetupError: on entering, where the kernel refuses.
    """

    def __init__(self, count: int, rate_mbit: float | None = None, latency_ms: float | None = None) -> None:
        if not 1 <= count <= MOST_HOSTS:
            raise ValueError(f"count: {count} hosts; 1 to {MOST_HOSTS} are possible")
        for name, value in (("rate_mbit", rate_mbit), ("latency_ms", latency_ms)):
            if value is not None and not value > 0:
                raise ValueError(f"{name}: {value} is not positive; None stands for no limit")
        self.count = count
        self.rate_mbit = rate_mbit
        self.latency_ms = latency_ms
        self._prefix = f"{PREFIX}-{os.getpid()}-{next(_run_numbers)}"
        self._switch = f"{self._prefix}-switch"
        self._processes: list[subprocess.Popen[str]] = []
        self._handlers: dict[int, Any] = {}

    def __enter__(self) -> Hosts:
        require_root()
        remove_leftovers()
        self._handle_signals()
        try:
            for name in _namespaces(self._prefix + "-"):  # of a dead run whose process number this one got
                _remove(name)
            self._build()
        except BaseException:
            self.close()
            raise
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self.close()

    def address(self, index: int) -> str:
        """IPv4 address of a host."""
        self._check(index)
        return f"{SUBNET}.{index + 1}"

    def run(
        self, index: int, argv: Sequence[str], env: Mapping[str, str] | None = None, **options: Any
    ) -> subprocess.Popen[str]:
        """Start a process on a host; it ends with the hosts at the latest.

        Args:
            index: of the host.
            argv: program and arguments.
            env: environment; default: this process's. ``GLOO_SOCKET_IFNAME`` is added to it.
            options: further ones of ``subprocess.Popen``.
        """
        self._check(index)
        return self._start(self._host(index), argv, env, options)

    def run_on_switch(
        self, argv: Sequence[str], env: Mapping[str, str] | None = None, **options: Any
    ) -> subprocess.Popen[str]:
        """Like :meth:`run`, at the address ``SWITCH_ADDRESS``, whose own link is not limited."""
        return self._start(self._switch, argv, env, options)

    def bytes_sent(self, index: int) -> int:
        """By the host's interface since it exists, headers of all layers included."""
        return self._counted(index, "tx")

    def bytes_received(self, index: int) -> int:
        """By the host's interface since it exists, headers of all layers included."""
        return self._counted(index, "rx")

    def close(self) -> None:
        """End all processes and remove all namespaces. A second call does nothing."""
        for number in self._handlers:  # a second Ctrl-C must not interrupt this
            signal.signal(number, signal.SIG_IGN)
        try:
            for process in self._processes:
                process.terminate()
            for process in self._processes:
                with suppress(subprocess.TimeoutExpired):
                    process.wait(SECONDS_TO_TERMINATE)
            for name in _namespaces(self._prefix + "-"):
                _remove(name)
            for process in self._processes:
                process.wait()
            self._processes.clear()
        finally:
            for number, handler in self._handlers.items():
                signal.signal(number, handler)
            self._handlers.clear()

    def _build(self) -> None:
        _command("ip", "netns", "add", self._switch)
        _set_up(self._switch)
        _command("ip", "-n", self._switch, "link", "add", INTERFACE, "mtu", str(MTU), "type", "bridge")
        _command("ip", "-n", self._switch, "addr", "add", f"{SWITCH_ADDRESS}/24", "dev", INTERFACE)
        _command("ip", "-n", self._switch, "link", "set", INTERFACE, "up")
        for index in range(self.count):
            host, port = self._host(index), f"port{index}"
            _command("ip", "netns", "add", host)
            _set_up(host)
            ends = ("name", INTERFACE, "mtu", str(MTU), "netns", host, "type", "veth")
            _command("ip", "link", "add", *ends, "peer", "name", port, "mtu", str(MTU), "netns", self._switch)
            _command("ip", "-n", self._switch, "link", "set", port, "master", INTERFACE, "up")
            _command("ip", "-n", host, "addr", "add", f"{self.address(index)}/24", "dev", INTERFACE)
            _command("ip", "-n", host, "link", "set", INTERFACE, "up")
            self._limit(self._switch, port)
            self._limit(host, INTERFACE)
            if self.latency_ms is not None:
                self._delay(host)

    def _limit(self, namespace: str, interface: str) -> None:
        if self.rate_mbit is not None:
            limits = ("rate", f"{self.rate_mbit}mbit", "burst", str(BURST_BYTES), "limit", str(QUEUE_BYTES))
            _command("tc", "-n", namespace, "qdisc", "add", "dev", interface, "root", "handle", "1:", "tbf", *limits)

    def _delay(self, host: str) -> None:
        """At the sender only, so that a way from host to host has it once."""
        parent = ("root",) if self.rate_mbit is None else ("parent", "1:1")
        try:
            options = ("netem", "delay", f"{self.latency_ms}ms", "limit", "100000")
            _command("tc", "-n", host, "qdisc", "add", "dev", INTERFACE, *parent, *options)
        except NetworkSetupError as error:
            message = f"latency_ms={self.latency_ms} needs a kernel with netem (CONFIG_NET_SCH_NETEM); use None here"
            raise NetworkSetupError(f"{message}. {error}") from error

    def _start(
        self, namespace: str, argv: Sequence[str], env: Mapping[str, str] | None, options: dict[str, Any]
    ) -> subprocess.Popen[str]:
        environment = dict(os.environ if env is None else env) | {"GLOO_SOCKET_IFNAME": INTERFACE}
        command = [_path("ip"), "netns", "exec", namespace, *argv]
        process: subprocess.Popen[str] = subprocess.Popen(command, env=environment, text=True, **options)
        self._processes.append(process)
        return process

    def _counted(self, index: int, direction: str) -> int:
        self._check(index)
        (link,) = json.loads(_command("ip", "-n", self._host(index), "-s", "-j", "link", "show", "dev", INTERFACE))
        return int(link["stats64"][direction]["bytes"])

    def _host(self, index: int) -> str:
        return f"{self._prefix}-{index}"

    def _check(self, index: int) -> None:
        if not 0 <= index < self.count:
            raise IndexError(f"host {index} of {self.count}")

    def _handle_signals(self) -> None:
        """Signals end the program like an exception does, also a SIGINT that a background shell has turned off."""
        if threading.current_thread() is threading.main_thread():
            for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
                self._handlers[number] = signal.signal(number, _leave)


def remove_leftovers() -> list[str]:
    """Remove namespaces of runs that are no more, with the processes in them; their names."""
    pattern = re.compile(rf"{PREFIX}-(\d+)-")
    dead = []
    for name in _namespaces(f"{PREFIX}-"):
        match = pattern.match(name)
        if match is not None and not Path("/proc", match.group(1)).exists():
            _remove(name)
            dead.append(name)
    return dead


def _leave(number: int, frame: FrameType | None) -> None:
    if number == signal.SIGINT:
        raise KeyboardInterrupt
    raise SystemExit(128 + number)


def _set_up(namespace: str) -> None:
    _command("ip", "-n", namespace, "link", "set", "lo", "up")
    # The settings of /proc/sys/net are those of the namespace of whoever writes.
    settings = "cd /proc/sys/net; echo 1 >ipv6/conf/all/disable_ipv6; echo 1 >ipv6/conf/default/disable_ipv6"
    settings += "; echo cubic >ipv4/tcp_congestion_control; true"
    _command("ip", "netns", "exec", namespace, "sh", "-c", f"({settings}) 2>/dev/null")


def _namespaces(prefix: str) -> list[str]:
    return [line.split()[0] for line in _command("ip", "netns", "list").splitlines() if line.startswith(prefix)]


def _remove(namespace: str) -> None:
    for pid in _command("ip", "netns", "pids", namespace).split():
        with suppress(ProcessLookupError):
            os.kill(int(pid), signal.SIGKILL)
    _command("ip", "netns", "delete", namespace)


def _find(tool: str) -> str | None:
    return shutil.which(tool, path=os.pathsep.join((os.environ.get("PATH", os.defpath), *SYSTEM_FOLDERS)))


def _path(tool: str) -> str:
    return _find(tool) or tool


def _command(tool: str, *arguments: str) -> str:
    result = subprocess.run([_path(tool), *arguments], capture_output=True, text=True)
    if result.returncode != 0:
        reason = result.stderr.strip() or f"exit status {result.returncode}"
        hint = "in a container, root needs CAP_NET_ADMIN and CAP_SYS_ADMIN as well"
        raise NetworkSetupError(f"`{tool} {' '.join(arguments)}`: {reason}; {hint}")
    return result.stdout
