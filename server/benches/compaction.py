#!/usr/bin/env python3
"""Memory that scattered deletes leave behind, and what compaction makes of it.

    cargo build --release && server/benches/compaction.py [--megabytes N] [--keep N] [--binary PATH]

Fills an arena with values of 20 to 900 bytes until a write is refused, deletes all but one of N
keys at random, and then, in three servers:

- on demand: how long SETs of growing size take right after the deletes, until one is refused;
- in the background: the time until chunks in use and resident memory stop falling, and meanwhile
  the latency of another client's GETs, beside those of a server with compaction turned off.

Needs two cores: the server runs on core 0, the client on core 1.
"""

import argparse
import os
import random
import socket
import subprocess
import tempfile
import time

PORT = 16398
ROOT = os.path.join(os.path.dirname(os.path.abspath(__file__)), "..", "..")
BATCH = 64
SETTLED = 3.0


class Client:
    """Connection with blocking commands and pipelines."""

    def __init__(self):
        self.socket = socket.create_connection(("127.0.0.1", PORT))
        self.socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self.replies = self.socket.makefile("rb", 1 << 16)

    @staticmethod
    def encode(words):
        words = [word if isinstance(word, bytes) else str(word).encode() for word in words]
        parts = [b"*%d\r\n" % len(words)]
        parts += [b"$%d\r\n%s\r\n" % (len(word), word) for word in words]
        return b"".join(parts)

    def read(self):
        line = self.replies.readline()
        if line[:1] == b"$" and line != b"$-1\r\n":
            return self.replies.read(int(line[1:]) + 2)[:-2]
        return line.strip()

    def call(self, *words):
        self.socket.sendall(self.encode(words))
        return self.read()

    def pipeline(self, commands):
        """Sends commands in batches; returns the replies that are errors."""
        errors = []
        for first in range(0, len(commands), BATCH):
            some = commands[first : first + BATCH]
            self.socket.sendall(b"".join(self.encode(words) for words in some))
            errors += [reply for reply in (self.read() for _ in some) if reply[:1] == b"-"]
        return errors

    def info(self):
        lines = self.call("INFO", "everything").decode().splitlines()
        return dict(line.split(":", 1) for line in lines if ":" in line)


class Server:
    def __init__(self, options, *more):
        self.folder = tempfile.TemporaryDirectory()
        binary = os.path.join(ROOT, options.binary)
        arguments = ["--port", str(PORT), "--maxmemory", f"{options.megabytes}mb", "--save", ""]
        arguments += ["--arena-pages", "small", "--metrics-port", "0", "--threads", "1", *more]
        self.process = subprocess.Popen(
            ["taskset", "-c", "0", binary, *arguments],
            cwd=self.folder.name,
            stdout=subprocess.DEVNULL,
        )
        for _ in range(100):
            try:
                self.client = Client()
                return
            except OSError:
                time.sleep(0.05)
        raise SystemExit("the server does not start")

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.process.terminate()
        self.process.wait()
        self.folder.cleanup()

    def fill(self):
        """Fills the arena; returns the number of keys."""
        keys = 0
        while True:
            lengths = ((key, 20 + key * 7919 % 881) for key in range(keys, keys + 6400))
            keys += 6400
            if self.client.pipeline([("SET", f"key:{key}", b"x" * n) for key, n in lengths]):
                return keys

    def delete(self, keys, keep):
        """Deletes all but one of `keep` keys at random; returns one that is left."""
        choice = random.Random(3)
        gone = [key for key in range(keys) if choice.randrange(keep)]
        self.client.pipeline([("UNLINK", f"key:{key}") for key in gone])
        return next(key for key in range(keys) if self.client.call("EXISTS", f"key:{key}") == b":1")

    def state(self):
        info = self.client.info()
        return {
            "used_mib": int(info["used_memory"]) / 2**20,
            "chunks_mib": int(info["cowherd_arena_used_chunks"]) * 2,
            "resident_mib": int(info["used_memory_rss"]) / 2**20,
            "moved": int(info["active_defrag_hits"]),
        }


def show(what, state):
    print(
        f"{what:<28} used {state['used_mib']:8.1f} MiB, chunks {state['chunks_mib']:6} MiB, "
        f"resident {state['resident_mib']:8.1f} MiB, {state['moved']} objects moved"
    )


def on_demand(options):
    with Server(options, "--active-defrag-cycle-max", "1") as server:
        show("empty", server.state())
        keys = server.fill()
        show(f"{keys} keys", server.state())
        server.delete(keys, options.keep)
        show("after the deletes", server.state())
        size = 500_000
        while True:
            begun = time.monotonic()
            reply = server.client.call("SET", "large", b"x" * size)
            took = (time.monotonic() - begun) * 1e3
            print(f"SET of {size / 1e6:8.1f} MB: {took:8.1f} ms, {reply.decode()[:4]}")
            server.client.call("UNLINK", "large")
            if reply != b"+OK":
                break
            size = size * 2 if size * 2 < options.megabytes * 2**20 else size + size // 8
        show("after the SETs", server.state())


def in_background(options, enabled):
    with Server(options, "--activedefrag", "yes" if enabled else "no") as server:
        keys = server.fill()
        left = server.delete(keys, options.keep)
        begun, changed, last, times = time.monotonic(), time.monotonic(), None, []
        while time.monotonic() - changed < SETTLED:
            for _ in range(200):
                sent = time.monotonic()
                server.client.call("GET", f"key:{left}")
                times.append(time.monotonic() - sent)
            state = server.state()
            now = (state["chunks_mib"], round(state["resident_mib"]))
            if now != last:
                last, changed = now, time.monotonic()
        times.sort()
        show(f"background, activedefrag {'yes' if enabled else 'no'}", state)
        quantiles = [times[int(len(times) * part)] * 1e6 for part in (0.5, 0.99, 0.999)]
        print(
            f"settled after {changed - begun:.1f} s; GET p50 {quantiles[0]:.0f}, p99 "
            f"{quantiles[1]:.0f}, p99.9 {quantiles[2]:.0f}, longest {times[-1] * 1e6:.0f} us"
        )


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--megabytes", type=int, default=64)
    parser.add_argument("--keep", type=int, default=100, help="one key of so many is left")
    parser.add_argument("--binary", default="target/release/cowherd")
    options = parser.parse_args()
    os.sched_setaffinity(0, {1})
    on_demand(options)
    in_background(options, False)
    in_background(options, True)


main()
