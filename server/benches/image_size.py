#!/usr/bin/env python3
"""Size of images, and the time to write and to read them, on a full and on a sparse keyspace.

    cargo build --release && server/benches/image_size.py [--binary PATH ...] [--rounds N]

Loads keys with values of 20 to 900 random bytes until the arena is full, writes images, deletes 99 %
of the keys at random, and writes images again; after each, restarts from the image. For each
isolation, with and without compression. Prints used_memory, the bytes of the image, the median
seconds of BGSAVE, the mean milliseconds of the child's processor time in it, and the median seconds
of reading at the restart. Several binaries are measured one after the other.
"""

import argparse
import os
import random
import re
import signal
import socket
import statistics
import subprocess
import tempfile
import time

PORT = 16398
ROOT = os.path.join(os.path.dirname(os.path.abspath(__file__)), "..", "..")


class Client:
    """Connection with pipelines."""

    def __init__(self):
        self.socket = socket.create_connection(("127.0.0.1", PORT))
        self.replies = self.socket.makefile("rb", 1 << 16)

    def read(self):
        line = self.replies.readline()
        if line[:1] == b"$":
            return self.replies.read(int(line[1:]) + 2)[:-2]
        return line.strip()

    def batch(self, commands):
        data = bytearray()
        for words in commands:
            data += b"*%d\r\n" % len(words)
            for word in words:
                data += b"$%d\r\n%s\r\n" % (len(word), word)
        self.socket.sendall(data)
        return [self.read() for _ in commands]

    def info(self, name):
        text = self.batch([(b"INFO", b"all")])[0].decode()
        return re.search(rf"^{name}:(.*?)\r?$", text, re.M)[1]


def start(binary, folder, isolation, compression, megabytes):
    arguments = ["--port", str(PORT), "--dir", folder, "--maxmemory", f"{megabytes}mb",
                 "--maxmemory-policy", "noeviction", "--checkpoint-isolation", isolation,
                 "--rdbcompression", compression, "--arena-pages", "small", "--save", ""]
    log = open(os.path.join(folder, "log"), "wb")
    server = subprocess.Popen([binary, *arguments], stdout=log, stderr=log)
    for _ in range(2000):
        try:
            client = Client()
            if client.batch([(b"PING",)])[0] == b"+PONG":
                return server, client
        except OSError:
            pass
        time.sleep(0.01)
    raise RuntimeError(open(os.path.join(folder, "log")).read())


def fill(client, rng):
    keys = 0
    noise = rng.randbytes(1 << 20)
    while True:
        commands = []
        for key in range(keys, keys + 200):
            at = rng.randrange(len(noise) - 900)
            commands.append((b"SET", b"key:%09d" % key, noise[at:at + rng.randrange(20, 901)]))
        full = sum(reply != b"+OK" for reply in client.batch(commands))
        keys += 200
        if full:
            return keys


def child_cpu(pid):
    """User and system time of the ended children of a process, in seconds."""
    fields = open(f"/proc/{pid}/stat").read().rsplit(")", 1)[1].split()
    return (int(fields[13]) + int(fields[14])) / os.sysconf("SC_CLK_TCK")


def save(client, pid, folder, rounds):
    seconds, before = [], child_cpu(pid)
    for _ in range(rounds):
        client.batch([(b"BGSAVE",)])
        while client.info("rdb_bgsave_in_progress") != "0":
            time.sleep(0.01)
        line = dict(pair.split("=") for pair in client.info("checkpoint_1").split(","))
        seconds.append(float(line["usec"]) / 1e6)
    cpu = (child_cpu(pid) - before) / rounds * 1e3
    size = os.path.getsize(os.path.join(folder, "dump.cow"))
    return size, statistics.median(seconds), cpu


def measure(options, binary, isolation, compression):
    rng = random.Random(16)
    rows = []
    with tempfile.TemporaryDirectory(dir=options.dir) as folder:
        arguments = (binary, folder, isolation, compression, options.megabytes)
        server, client = start(*arguments)
        keys = fill(client, rng)
        for name in ("full", "sparse"):
            if name == "sparse":
                gone = [b"key:%09d" % key for key in range(keys) if rng.random() < 0.99]
                for at in range(0, len(gone), 500):
                    client.batch([(b"DEL", key) for key in gone[at:at + 500]])
            used = int(client.info("used_memory"))
            size, seconds, cpu = save(client, server.pid, folder, options.rounds)
            reads = []
            for _ in range(options.rounds):
                server.send_signal(signal.SIGKILL)
                server.wait()
                server, client = start(*arguments)
                log = open(os.path.join(folder, "log")).read()
                reads.append(float(re.findall(r"read_seconds=([0-9.e-]+)", log)[-1]))
            rows.append((name, used, size, seconds, cpu, statistics.median(reads)))
        server.send_signal(signal.SIGKILL)
        server.wait()
    return rows


def main():
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    default = os.path.join(ROOT, "target", "release", "cowherd")
    parser.add_argument("--binary", action="append")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--megabytes", type=int, default=512)
    parser.add_argument("--dir", help="the directory in which images are written")
    options = parser.parse_args()
    print("binary isolation compression keyspace | used MB | image MB | save s | child ms | read s")
    for isolation in ("undo-log", "kernel-cow"):
        for compression in ("no", "yes"):
            for binary in options.binary or [default]:
                for name, used, size, seconds, cpu, read in measure(
                    options, binary, isolation, compression
                ):
                    print(f"{binary} {isolation} {compression} {name} | {used / 1e6:.2f} | "
                          f"{size / 1e6:.2f} | {seconds:.3f} | {cpu:.0f} | {read:.3f}", flush=True)


if __name__ == "__main__":
    main()
