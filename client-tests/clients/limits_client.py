"""Limits rates with the package limits, whose strategies are scripts, on the given port."""

import sys
import threading
import time
from unittest import mock

import redis
from limits import RateLimitItemPerDay, RateLimitItemPerHour, strategies
from limits.storage import RedisStorage


def main(port):
    client = redis.Redis(port=port)
    client.flushall()
    client.script_flush()
    storage = RedisStorage(f"redis://127.0.0.1:{port}")
    assert storage.check()
    check_fixed_window(storage, client)
    check_moving_window(storage)
    check_sliding_window(storage, client)
    check_concurrency(port)
    check_reset(storage, client)
    client.close()


def check_fixed_window(storage, client):
    limiter, item = strategies.FixedWindowRateLimiter(storage), RateLimitItemPerDay(5)
    assert [limiter.hit(item, "ann") for _ in range(7)] == [True] * 5 + [False] * 2
    assert not limiter.test(item, "ann") and limiter.get_window_stats(item, "ann").remaining == 0
    assert limiter.hit(item, "bob", cost=4) and not limiter.hit(item, "bob", cost=2)
    key = f"LIMITS:{item.key_for('ann')}"
    assert client.get(key) == b"7" and 80_000 < client.ttl(key) <= 86_400
    limiter.clear(item, "ann")
    assert limiter.hit(item, "ann") and limiter.get_window_stats(item, "ann").remaining == 4


def check_moving_window(storage):
    """The entries carry times of the client, so that a mocked clock decides."""
    limiter, item = strategies.MovingWindowRateLimiter(storage), RateLimitItemPerHour(4)
    start = time.time()
    with mock.patch("time.time") as now:
        for offset, allowed, remaining in [
            (0, True, 3),
            (100, True, 2),
            (200, True, 1),
            (300, True, 0),
            (400, False, 0),
            (3599, False, 0),
            (3601, True, 0),
            (3650, False, 0),
            (3701, True, 0),
            (7000, True, 1),
        ]:
            now.return_value = start + offset
            assert limiter.test(item, "ann") is allowed, offset
            assert limiter.hit(item, "ann") is allowed, offset
            assert limiter.get_window_stats(item, "ann").remaining == remaining, offset
        oldest = limiter.get_window_stats(item, "ann").reset_time
        assert abs(oldest - (start + 3601 + 3600)) < 1, oldest - start
        # More entries than Lua's unpack takes at once.
        large = RateLimitItemPerHour(20_000)
        assert limiter.hit(large, "bob", cost=12_000)
        assert not limiter.hit(large, "bob", cost=8_001) and limiter.hit(large, "bob", cost=8_000)
        assert limiter.get_window_stats(large, "bob").remaining == 0


def check_sliding_window(storage, client):
    limiter, item = strategies.SlidingWindowCounterRateLimiter(storage), RateLimitItemPerDay(10)
    client.flushall()
    assert all(limiter.hit(item, "ann", cost=2) for _ in range(5))
    assert not limiter.hit(item, "ann") and limiter.get_window_stats(item, "ann").remaining == 0
    [current] = client.keys()
    # The end of the window: it becomes the previous one, and counts by its remaining time, half.
    client.pexpire(current, 43_200_000)
    assert limiter.hit(item, "ann", cost=5)
    assert not limiter.hit(item, "ann", cost=2)
    assert client.get(current) == b"5"
    assert 86_400_000 < client.pttl(current) <= 86_400_000 + 43_200_000
    limiter.clear(item, "ann")
    assert limiter.get_window_stats(item, "ann").remaining == 10


def check_concurrency(port):
    """Four threads hit one limit 50 times each; exactly the limit is allowed."""
    for strategy in (
        strategies.FixedWindowRateLimiter,
        strategies.MovingWindowRateLimiter,
        strategies.SlidingWindowCounterRateLimiter,
    ):
        item, allowed = RateLimitItemPerDay(70), []

        def work(strategy=strategy, item=item, allowed=allowed):
            limiter = strategy(RedisStorage(f"redis://127.0.0.1:{port}"))
            name = strategy.__name__
            allowed.append(sum(limiter.hit(item, "crowd", name) for _ in range(50)))

        threads = [threading.Thread(target=work) for _ in range(4)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        assert len(allowed) == 4 and sum(allowed) == 70, (strategy, allowed)


def check_reset(storage, client):
    """The script finds the keys itself, by KEYS, and deletes them in pieces."""
    client.set("other", 1)
    with client.pipeline() as pipe:
        for number in range(11_000):
            pipe.set(f"LIMITS:many:{number}", 1)
        pipe.execute()
    before = len(client.keys("LIMITS:*"))
    assert before > 11_000
    assert storage.reset() == before
    assert client.keys() == [b"other"]


main(int(sys.argv[1]))
print("limits ok")
