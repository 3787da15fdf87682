"""Network namespaces of our own: hosts, links between them that can be cut, and a container network on a host."""

import contextlib
import ctypes
import os
import subprocess
from collections.abc import Iterator, Sequence
from pathlib import Path

NEW_NETWORK = 0x40000000  # CLONE_NEWNET, which Python names from 3.12 on


class Network:
    """Everything that was made is gone after `close`; nothing outside these namespaces is touched."""

    def __init__(self, prefix: str) -> None:
        self._prefix = prefix
        self._hosts: list[str] = []

    def inside(self, host: str) -> tuple[str, ...]:
        """What a command must begin with to run on a host."""
        return ("ip", "netns", "exec", self._prefix + host)

    def add(self, host: str, *, forwards: bool = False) -> None:
        _run("ip", "netns", "add", self._prefix + host)
        self._hosts.append(host)
        self._ip(host, "link", "set", "lo", "up")
        if forwards:
            # As Docker sets it up; the last one lets a port be answered by a server on the host's loopback.
            for name in ("net.ipv4.ip_forward", "net.ipv4.conf.all.route_localnet"):
                self.run(host, "sysctl", "-qw", f"{name}=1")

    def link(self, name: str, one: str, address: str, other: str, its_address: str) -> None:
        """A cable with the same interface name at both ends; addresses as 10.0.0.1/24."""
        peer = ("peer", "name", name, "netns", self._prefix + other)
        _run("ip", "link", "add", name, "netns", self._prefix + one, "type", "veth", *peer)
        for host, at in ((one, address), (other, its_address)):
            self._ip(host, "address", "add", at, "dev", name)
            self._ip(host, "link", "set", name, "up")

    def cut(self, name: str, host: str) -> None:
        self._ip(host, "link", "set", name, "down")

    def mend(self, name: str, host: str) -> None:
        self._ip(host, "link", "set", name, "up")

    def narrow(self, name: str, host: str, bits: int) -> None:
        """From now on so many bits a second leave the host by this link; what would wait longer than 2 s is dropped."""
        rate = ("rate", str(bits), "burst", "4kb", "latency", "2s")
        self.run(host, "tc", "qdisc", "replace", "dev", name, "root", "tbf", *rate)

    def widen(self, name: str, host: str) -> None:
        self.run(host, "tc", "qdisc", "del", "dev", name, "root")

    @contextlib.contextmanager
    def entered(self, host: str) -> Iterator[None]:
        """This thread, and what it starts, on a host."""
        with Path("/proc/thread-self/ns/net").open() as back:
            with Path(f"/run/netns/{self._prefix}{host}").open() as there:
                _enter(there.fileno())
            try:
                yield
            finally:
                _enter(back.fileno())

    def bridge(self, host: str, name: str, address: str, network: str) -> None:
        """A container network, whose members reach what the host reaches, as coming from it."""
        self._ip(host, "link", "add", name, "type", "bridge")
        self._ip(host, "address", "add", address, "dev", name)
        self._ip(host, "link", "set", name, "up")
        outward = ("-s", network, "!", "-o", name, "-j", "MASQUERADE")
        self.run(host, "iptables", "-w", "-t", "nat", "-A", "POSTROUTING", *outward)

    def attach(self, member: str, number: int, host: str, bridge: str, address: str, gateway: str) -> None:
        """Put a namespace on a container network, with eth0 and a way out by the gateway."""
        near = f"port{number}"
        peer = ("peer", "name", "eth0", "netns", self._prefix + member)
        _run("ip", "link", "add", near, "netns", self._prefix + host, "type", "veth", *peer)
        self._ip(host, "link", "set", near, "master", bridge, "up")
        self._ip(member, "address", "add", address, "dev", "eth0")
        self._ip(member, "link", "set", "eth0", "up")
        self._ip(member, "route", "add", "default", "via", gateway)

    def publish(self, host: str, port: int, target: str) -> None:
        """A port of a host is answered at another address, 172.18.0.3:8080."""
        to = ("--dport", str(port), "-j", "DNAT", "--to-destination", target)
        self.run(host, "iptables", "-w", "-t", "nat", "-A", "PREROUTING", "-p", "tcp", *to)

    def run(self, host: str, *command: str) -> str:
        return _run(*self.inside(host), *command)

    def close(self) -> None:
        for host in reversed(self._hosts):
            subprocess.run(["ip", "netns", "delete", self._prefix + host], check=False)
        self._hosts.clear()

    def _ip(self, host: str, *arguments: str) -> None:
        _run("ip", "-n", self._prefix + host, *arguments)


def _enter(namespace: int) -> None:
    libc = ctypes.CDLL(None, use_errno=True)
    if libc.setns(namespace, NEW_NETWORK):
        raise OSError(ctypes.get_errno(), os.strerror(ctypes.get_errno()))


def _run(*command: str) -> str:
    return run(command)


def run(command: Sequence[str]) -> str:
    """The output of a command; AssertionError with what it said when it fails."""
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, f"{' '.join(command)}: {done.stderr.strip()}"
    return done.stdout
