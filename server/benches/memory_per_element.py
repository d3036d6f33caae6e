#!/usr/bin/env python3
"""Resident memory for each key, field, member, element and entry, beside other servers.

    cargo build --release -p cowherd && server/benches/memory_per_element.py

Each row is measured on a fresh server: the growth of the resident memory from the empty server,
connection buffers included, to the server that holds the data, divided by the number of elements.
Cowherd runs with `arena-pages small`. The peers are those of server/benches/peers.sh; one that was
built without jemalloc gets it preloaded (Debian package libjemalloc2).

    --scale 0.1     a tenth of the elements
    --row TEXT      only the rows whose name contains TEXT
    --cowherd NAME=PROGRAM  one more Cowherd to compare with; may be given several times
    --no-peers      Cowherd alone
"""

import argparse
import glob
import os
import platform
import socket
import subprocess
import tempfile
import time

MILLION = 1_000_000


def string_with(value):
    return lambda i: ("SET", f"key:{i:012d}", value(i))


def words(i, count):
    return " ".join(f"{(i * 7919 + n) % 99991:05d}" for n in range(count))


def filler(i, length):
    return f"{i:08d}".ljust(length, "x")


# Name, number of elements, requests before the elements, the request of element i.
ROWS = [
    ("string, key 16 + value 64", MILLION, string_with(lambda i: filler(i, 64))),
    ("string, key 16 + 8-digit integer", MILLION, string_with(lambda i: str(10_000_000 + i))),
    ("string, key 16 + value 512", MILLION // 2, string_with(lambda i: filler(i, 512))),
    (
        "string, key 16 + value 64, with TTL",
        MILLION,
        lambda i: ("SET", f"key:{i:012d}", filler(i, 64), "EX", str(100_000 + i % 1000)),
    ),
    (
        "hash of 5 fields, about 70 bytes",
        MILLION // 4,
        lambda i: (
            "HSET", f"user:{i:08d}",
            "name", f"name{i % 9973:06d}", "age", str(i % 90), "mail", f"m{i}@example.com",
            "city", f"city{i % 500}", "visits", str(i % 1000),
        ),
    ),
    ("member of one sorted set, 20 bytes", MILLION,
     lambda i: ("ZADD", "zset", f"{i * 7919 % 1000003}.5", f"member:{i:013d}")),
    ("member of one set, 20 bytes", MILLION, lambda i: ("SADD", "set", f"member:{i:013d}")),
    ("element of one list, 20 bytes", MILLION, lambda i: ("RPUSH", "list", f"element:{i:012d}")),
    ("field of one hash, 20 + 20 bytes", MILLION,
     lambda i: ("HSET", "hash", f"field:{i:014d}", f"value:{i:014d}")),
    (
        "entry of one stream, 2 short fields",
        MILLION,
        lambda i: ("XADD", "stream", f"{1_700_000_000_000 + i}-0",
                   "sensor", f"s{i % 100}", "value", str(i * 7919 % 100_003)),
    ),
]


def encode(request):
    parts = [b"*%d\r\n" % len(request)]
    for word in request:
        data = word.encode()
        parts.append(b"$%d\r\n%s\r\n" % (len(data), data))
    return b"".join(parts)


class Server:
    """A server with an empty keyspace on a free port."""

    def __init__(self, program, is_cowherd):
        self.folder = tempfile.TemporaryDirectory()
        with socket.socket() as free:
            free.bind(("127.0.0.1", 0))
            port = free.getsockname()[1]
        command = [program, "--port", str(port), "--dir", self.folder.name, "--save", ""]
        if is_cowherd:
            command += ["--metrics-port", "0", "--arena-pages", "small", "--maxmemory", "2gb"]
        else:
            command += ["--appendonly", "no"]
        environment = dict(os.environ)
        jemalloc = glob.glob("/usr/lib/*/libjemalloc.so.2")
        if not is_cowherd and "jemalloc" not in version(program) and jemalloc:
            environment["LD_PRELOAD"] = jemalloc[0]
        self.process = subprocess.Popen(
            command, env=environment, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
        )
        deadline = time.monotonic() + 30
        while True:
            try:
                self.socket = socket.create_connection(("127.0.0.1", port))
                break
            except OSError:
                if self.process.poll() is not None or time.monotonic() > deadline:
                    raise SystemExit(f"{program} does not start") from None
                time.sleep(0.02)

    def send(self, requests):
        """Sends (request, ...) and waits for as many replies, none of them an error."""
        batch, count = [], 0
        for request in requests:
            batch.append(encode(request))
            count += 1
            if count == 500:
                self.exchange(batch, count)
                batch, count = [], 0
        if batch:
            self.exchange(batch, count)

    def exchange(self, batch, count):
        self.socket.sendall(b"".join(batch))
        data = b""
        while True:
            lines = data.count(b"\r\n") - data.count(b"\r\n$") - data.startswith(b"$")
            if lines >= count and data.endswith(b"\r\n"):
                break
            received = self.socket.recv(1 << 16)
            if not received:
                raise SystemExit("the server closed the connection")
            data += received
            if data.startswith(b"-") or b"\r\n-" in data:
                raise SystemExit(f"error reply: {data[:200]!r}")

    def resident(self):
        """Bytes of memory without those of the program file."""
        with open(f"/proc/{self.process.pid}/status", encoding="ascii") as status:
            kib = [int(line.split()[1]) for line in status if line.startswith(("RssAnon", "RssShmem"))]
        return sum(kib) * 1024

    def stop(self):
        self.socket.close()
        self.process.kill()
        self.process.wait()
        self.folder.cleanup()


def version(program):
    return subprocess.run([program, "--version"], capture_output=True, text=True, check=True).stdout


def measure(program, is_cowherd, count, request):
    server = Server(program, is_cowherd)
    try:
        server.send(("PING",) for _ in range(2000))
        before = server.resident()
        server.send(request(i) for i in range(count))
        return (server.resident() - before) / count
    finally:
        server.stop()


def main():
    options = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    options.add_argument("--scale", type=float, default=1)
    options.add_argument("--row", default="")
    options.add_argument("--cowherd", action="append", default=[], metavar="NAME=PROGRAM")
    options.add_argument("--no-peers", action="store_true")
    options = options.parse_args()
    here = os.path.dirname(os.path.abspath(__file__))
    servers = [("cowherd", os.path.join(here, "../../target/release/cowherd"), True)]
    for named in options.cowherd:
        name, _, program = named.partition("=")
        servers.append((name, program, True))
    if not options.no_peers:
        peers = subprocess.run([f"{here}/peers.sh"], capture_output=True, text=True, check=True)
        for line in peers.stdout.splitlines():
            name, _, program = line.partition("=")
            servers.append((name, program, False))
    print(f"Resident bytes for each, kernel {platform.release()}\n")
    print("| | " + " | ".join(name for name, _, _ in servers) + " |")
    print("|---" * (len(servers) + 1) + "|")
    for name, count, request in ROWS:
        if options.row not in name:
            continue
        count = max(1, int(count * options.scale))
        figures = [measure(program, is_cowherd, count, request) for _, program, is_cowherd in servers]
        print(f"| {name} | " + " | ".join(f"{figure:.1f}" for figure in figures) + " |", flush=True)


if __name__ == "__main__":
    main()
