#!/usr/bin/env python3
"""Effect of scrapes on commands: times of commands under full load, in turns with and without ten
scrapes per second.

    server/benches/scrape_delay.py [--rounds N] [--keys N] [--scrapes-per-second N] [--binary PATH]

The server holds a million keys in an arena of 10 GiB, and measures the times itself (LATENCY
HISTOGRAM). Needs redis-benchmark and two cores: the server runs on core 0, load and scraper on core
1.
"""

import argparse
import os
import socket
import statistics
import subprocess
import tempfile
import threading
import time
import urllib.request

PORT, METRICS = 16399, 16398
ROOT = os.path.join(os.path.dirname(os.path.abspath(__file__)), "..", "..")


def ask(*words):
    """Executes one command and returns the bytes of the reply, followed by that of QUIT."""
    with socket.create_connection(("127.0.0.1", PORT)) as stream:
        request = b"*%d\r\n" % len(words)
        for word in (w.encode() for w in words):
            request += b"$%d\r\n%s\r\n" % (len(word), word)
        stream.sendall(request + b"*1\r\n$4\r\nQUIT\r\n")
        reply = b""
        while chunk := stream.recv(1 << 16):
            reply += chunk
    return reply


def histogram():
    """Number of calls of GET and SET by upper bound in microseconds, not cumulative."""
    lines = ask("LATENCY", "HISTOGRAM", "get", "set").split(b"\r\n")
    numbers = [int(line[1:]) for line in lines if line.startswith(b":")]
    counts = {}
    while numbers:
        calls, numbers, below = numbers[0], numbers[1:], 0
        while below < calls:
            counts[numbers[0]] = counts.get(numbers[0], 0) + numbers[1] - below
            below, numbers = numbers[1], numbers[2:]
    return counts


def quantile(counts, share):
    """Upper bound of this share of all calls."""
    left = share * sum(counts.values())
    for border in sorted(counts):
        left -= counts[border]
        if left <= 0:
            return border
    return max(counts)


def load(requests):
    subprocess.run(
        ["taskset", "-c", "1", "redis-benchmark", "-p", str(PORT), "-q", "-t", "set,get"]
        + ["-n", str(requests), "-r", "1000000", "-P", "16", "-d", "512"],
        check=True,
        stdout=subprocess.DEVNULL,
    )


def scrape_until(stop, per_second, times):
    os.sched_setaffinity(0, {1})
    while not stop.wait(1 / per_second):
        begun = time.monotonic()
        urllib.request.urlopen(f"http://127.0.0.1:{METRICS}/metrics").read()
        times.append(time.monotonic() - begun)


def measure(scrapes_per_second, requests):
    """p99.9 and p99.99 in microseconds, calls above 122 us per million, maximum, time of a scrape."""
    times, stop = [], threading.Event()
    ask("CONFIG", "RESETSTAT")
    scraper = threading.Thread(target=scrape_until, args=(stop, scrapes_per_second or 1, times))
    if scrapes_per_second:
        scraper.start()
    load(requests)
    if scrapes_per_second:
        stop.set()
        scraper.join()
    counts = histogram()
    slow = sum(count for border, count in counts.items() if border > 123)
    scrape = statistics.median(times) * 1e3 if times else 0
    share = slow * 1e6 / sum(counts.values())
    return quantile(counts, 0.999), quantile(counts, 0.9999), share, max(counts), scrape


def main():
    options = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    options.add_argument("--rounds", type=int, default=7)
    options.add_argument("--keys", type=int, default=1_000_000)
    options.add_argument("--requests", type=int, default=1_000_000)
    options.add_argument("--scrapes-per-second", type=float, default=10)
    options.add_argument("--binary", default=os.path.join(ROOT, "target/release/cowherd"))
    options = options.parse_args()
    folder = tempfile.TemporaryDirectory()
    server = subprocess.Popen(
        ["taskset", "-c", "0", options.binary, "--port", str(PORT), "--metrics-port", str(METRICS)]
        + ["--threads", "1", "--save", "", "--dir", folder.name, "--maxmemory", "10gb"],
        stdout=subprocess.DEVNULL,
    )
    try:
        while True:
            try:
                ask("PING")
                break
            except OSError:
                time.sleep(0.05)
        subprocess.run(
            ["taskset", "-c", "1", "redis-benchmark", "-p", str(PORT), "-q", "-n", str(options.keys)]
            + ["-P", "64", "-r", str(options.keys * 100), "SET", "key:__rand_int__", "x" * 512],
            check=True,
            stdout=subprocess.DEVNULL,
        )
        keys = ask("DBSIZE").split(b"\r\n")[0][1:].decode()
        print(f"{keys} keys")
        results = {True: [], False: []}
        for number in range(options.rounds):
            for scraped in (True, False) if number % 2 else (False, True):
                rate = options.scrapes_per_second if scraped else 0
                results[scraped].append(measure(rate, options.requests))
        for scraped, name in ((False, "alone"), (True, "scraped")):
            columns = list(zip(*results[scraped]))
            p999, p9999, slow, worst, scrape = (statistics.median(column) for column in columns)
            print(
                f"{name}: p99.9 <= {p999:.0f} us, p99.99 <= {p9999:.0f} us, above 122 us: "
                f"{slow:.1f} of a million ({min(columns[2]):.1f}-{max(columns[2]):.1f}), longest <= "
                f"{worst:.0f} us ({min(columns[3])}-{max(columns[3])}), a scrape {scrape:.1f} ms"
            )
    finally:
        server.kill()
        server.wait()


if __name__ == "__main__":
    main()
