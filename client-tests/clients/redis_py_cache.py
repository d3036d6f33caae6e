"""Uses the client-side cache of redis-py on the server on the port given as argument."""

import sys
import time

import redis
from redis.cache import CacheConfig


def until(condition):
    """Messages about changes come a little later than the replies to whoever has made them."""
    end = time.monotonic() + 30
    while not condition():
        assert time.monotonic() < end, "the cache keeps an old value"


def main(port):
    other = redis.Redis(port=port)
    other.flushall()
    client = redis.Redis(port=port, protocol=3, cache_config=CacheConfig(), decode_responses=True)
    cache = client.get_cache()

    def reads_sent():
        return other.info("commandstats").get("cmdstat_get", {"calls": 0})["calls"]

    client.set("name", "first")
    assert client.get("name") == "first"
    before = reads_sent()
    assert all(client.get("name") == "first" for _ in range(100))
    assert reads_sent() == before, "the reads come from the cache"
    assert cache.size == 1

    other.set("name", "second")
    until(lambda: client.get("name") == "second")
    other.delete("name")
    until(lambda: client.get("name") is None)

    for number in range(100):
        other.hset("hash", "field", number)
        until(lambda: client.hget("hash", "field") == str(number))
        until(lambda: client.hgetall("hash") == {"field": str(number)})
        other.rpush("list", number)
        until(lambda: client.lrange("list", -1, -1) == [str(number)])
    other.mset({"a": 1, "b": 2})
    until(lambda: client.mget("a", "b") == ["1", "2"])
    other.set("b", 3)
    until(lambda: client.mget("a", "b") == ["1", "3"])
    other.flushall()
    until(lambda: client.mget("a", "b") == [None, None])
    client.close()


main(int(sys.argv[1]))
print("redis-py ok")
