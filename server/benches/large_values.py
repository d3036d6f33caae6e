#!/usr/bin/env python3
"""Delays caused by single commands on large values, beside redis-server.

    cargo build --release && server/benches/large_values.py [--elements N] [--rounds N]

For each type: the longest command while a value grows and shrinks element by element; RENAME, COPY,
UNLINK and DEL of the value; and the delay of another client after UNLINK and DEL. Times of single
commands are measured by the client; the longest command of a growth is taken from SLOWLOG. Prints
the median of all rounds. --peer and --binary select other servers. Needs two cores: the servers run
on core 0, the client on core 1.
"""

import argparse
import os
import socket
import statistics
import subprocess
import tempfile
import time

PORT = 16397
ROOT = os.path.join(os.path.dirname(os.path.abspath(__file__)), "..", "..")
BATCH = 500
NAMES = 16

GROW = {
    "hash": lambda i: ("HSET", "hash", f"field:{i}", str(i)),
    "set": lambda i: ("SADD", "set", f"member:{i}"),
    "sorted set": lambda i: ("ZADD", "sorted set", str(i * 7919 % 1000003), f"member:{i}"),
    "list": lambda i: ("RPUSH", "list", f"element:{i}"),
    "stream": lambda i: ("XADD", "stream", f"{i + 1}-1", "field", str(i)),
}
SHRINK = {
    "hash": lambda i: ("HDEL", "hash", f"field:{i}"),
    "set": lambda i: ("SREM", "set", f"member:{i}"),
    "sorted set": lambda i: ("ZPOPMIN", "sorted set"),
    "list": lambda i: ("LPOP", "list"),
    "stream": lambda i: ("XDEL", "stream", f"{i + 1}-1"),
}


class Client:
    """Connection with blocking commands and pipelines."""

    def __init__(self):
        self.socket = socket.create_connection(("127.0.0.1", PORT))
        self.socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self.replies = self.socket.makefile("rb", 1 << 16)

    def read(self):
        line = self.replies.readline()
        kind, rest = line[:1], line[1:].strip()
        if kind == b"-":
            raise RuntimeError(rest.decode())
        if kind == b"$":
            return None if rest == b"-1" else self.replies.read(int(rest) + 2)[:-2]
        if kind == b"*":
            return [self.read() for _ in range(int(rest))]
        return rest

    def ask(self, *words):
        self.socket.sendall(request(words))
        return self.read()

    def milliseconds(self, *words):
        begun = time.perf_counter()
        self.ask(*words)
        return (time.perf_counter() - begun) * 1e3

    def pipeline(self, commands):
        self.socket.sendall(b"".join(map(request, commands)))
        for _ in commands:
            self.read()


def request(words):
    encoded = [word.encode() for word in words]
    return b"*%d\r\n" % len(encoded) + b"".join(b"$%d\r\n%s\r\n" % (len(w), w) for w in encoded)


def longest(client):
    """Milliseconds of the slowest command since the last call."""
    entries = client.ask("SLOWLOG", "GET", "-1")
    client.ask("SLOWLOG", "RESET")
    small = [int(entry[2]) for entry in entries if entry[3][0] != b"SLOWLOG"]
    return max(small, default=0) / 1e3


def each(client, command, elements):
    for first in range(0, elements, BATCH):
        client.pipeline([command(i) for i in range(first, min(elements, first + BATCH))])
    return longest(client)


def others(client):
    """Longest of the next hundred commands of another client, in milliseconds."""
    return max(client.milliseconds("PING") for _ in range(100))


def measure(command, elements):
    """All times of one server, by action and type."""
    figures = {}
    with tempfile.TemporaryDirectory() as folder:
        slowlog = ["--slowlog-log-slower-than", "100", "--slowlog-max-len", "100000"]
        server = subprocess.Popen(
            ["taskset", "-c", "0", *command, "--port", str(PORT), "--dir", folder, "--save", "", *slowlog],
            stdout=subprocess.DEVNULL,
        )
        try:
            client = started(server)
            other = Client()
            for kind in GROW:
                figures["grow", kind] = each(client, GROW[kind], elements)
                names = [kind] + [f"{kind}:{i}" for i in range(NAMES)] + [kind]
                renames = [client.milliseconds("RENAME", *two) for two in zip(names, names[1:])]
                figures["RENAME", kind] = max(renames)
                for word in ["UNLINK", "DEL"]:
                    figures["COPY", kind] = client.milliseconds("COPY", kind, "copy")
                    figures[word, kind] = client.milliseconds(word, "copy")
                    figures[f"PING after {word}", kind] = others(other)
                longest(client)
                figures["shrink", kind] = each(client, SHRINK[kind], elements)
        finally:
            server.kill()
            server.wait()
    return figures


def started(server):
    while server.poll() is None:
        try:
            client = Client()
            client.ask("PING")
            return client
        except (OSError, RuntimeError):
            time.sleep(0.02)
    raise SystemExit("the server did not start")


def main():
    parser = argparse.ArgumentParser(description=__doc__.split("\n", 1)[0])
    parser.add_argument("--elements", type=int, default=300_000)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--peer", default="redis-server")
    parser.add_argument("--binary", default=os.path.join(ROOT, "target/release/cowherd"))
    options = parser.parse_args()
    os.sched_setaffinity(0, {1})
    cowherd = [options.binary, "--metrics-port", "0", "--maxmemory", "4gb"]
    servers = {"cowherd": cowherd, os.path.basename(options.peer): [options.peer]}
    rounds = {name: [] for name in servers}
    for _ in range(options.rounds):
        for name, command in servers.items():
            rounds[name].append(measure(command, options.elements))
    version = subprocess.run([options.peer, "--version"], capture_output=True, text=True).stdout
    print(f"{version.split(' sha')[0]}, kernel {os.uname().release}, {options.elements} elements")
    print("| milliseconds, Cowherd / peer |", " | ".join(GROW), "|")
    print("|---|" + "---|" * len(GROW))
    for action in dict.fromkeys(action for action, _ in rounds["cowherd"][0]):
        cells = []
        for kind in GROW:
            medians = [
                statistics.median(figures[action, kind] for figures in measured)
                for measured in rounds.values()
            ]
            cells.append(" / ".join(f"{median:.2f}" for median in medians))
        print(f"| {action} |", " | ".join(cells), "|")


if __name__ == "__main__":
    main()
