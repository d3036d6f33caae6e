"""Talks to the server on the port given as argument through redis-py, as an application would."""

import sys

import redis


def check(protocol, port):
    client = redis.Redis(port=port, protocol=protocol, client_name=f"py{protocol}")
    client.flushall()
    assert client.ping()
    assert client.set("name", "bytes \x00 and \u00fcmlaut")
    assert client.get("name").decode() == "bytes \x00 and \u00fcmlaut"
    assert client.set("name", "other", nx=True) is None
    assert client.set("name", "other", get=True).decode() == "bytes \x00 and \u00fcmlaut"
    assert client.get("missing") is None
    assert client.mset({"a": 1, "b": 2})
    assert client.mget("a", "missing", "b") == [b"1", None, b"2"]
    assert client.incrby("a", 41) == 42
    assert abs(client.incrbyfloat("f", "0.5") - 0.5) < 1e-9
    assert client.append("b", "34") == 3
    assert client.getrange("b", 1, 2) == b"34"
    assert client.setbit("bits", 7, 1) == 0 and client.bitcount("bits") == 1
    assert client.expire("a", 100) and 0 < client.ttl("a") <= 100
    assert client.persist("a") and client.ttl("a") == -1
    assert client.exists("a", "b", "missing") == 2
    assert client.type("a") == b"string"
    assert client.rename("a", "c") and client.delete("c", "missing") == 1
    assert sorted(client.scan_iter(match="b*", count=2)) == [b"b", b"bits"]
    assert client.client_getname() in (f"py{protocol}", f"py{protocol}".encode())
    assert client.info("persistence")["rdb_bgsave_in_progress"] == 0
    assert client.info()["redis_mode"] == "standalone"
    assert client.config_get("maxmemory")["maxmemory"]
    check_errors(client)
    check_pipelines(client)
    check_messages(client)
    client.close()


def check_messages(client):
    def messages(pubsub, count):
        found = []
        while len(found) < count:
            message = pubsub.get_message(ignore_subscribe_messages=True, timeout=20)
            if message:
                found.append((message["type"], message["channel"], message["data"]))
        return found

    client.config_set("notify-keyspace-events", "KEA")
    with client.pubsub() as pubsub:
        pubsub.subscribe("news")
        pubsub.psubscribe("n*")
        for kind in ["subscribe", "psubscribe"]:
            assert pubsub.get_message(timeout=20)["type"] == kind
        assert client.pubsub_numsub("news") == [(b"news", 1)]
        for number in range(1000):
            assert client.publish("news", number) == 2
        expected = []
        for number in range(1000):
            data = str(number).encode()
            expected += [("message", b"news", data), ("pmessage", b"news", data)]
        assert messages(pubsub, 2000) == expected
        pubsub.unsubscribe()
        pubsub.punsubscribe()
        while pubsub.subscribed:
            pubsub.get_message(timeout=20)
        pubsub.psubscribe("__keyevent@0__:*")
        client.set("noted", 1, ex=100)
        client.delete("noted")
        assert messages(pubsub, 3) == [
            ("pmessage", b"__keyevent@0__:set", b"noted"),
            ("pmessage", b"__keyevent@0__:expire", b"noted"),
            ("pmessage", b"__keyevent@0__:del", b"noted"),
        ]
    client.config_set("notify-keyspace-events", "")


def check_errors(client):
    for broken, words in [
        (("INCR", "name"), "value is not an integer or out of range"),
        (("NOSUCH", "command"), "unknown command"),
        (("GET",), "wrong number of arguments"),
    ]:
        try:
            client.execute_command(*broken)
        except redis.ResponseError as error:
            assert words in str(error), error
        else:
            raise AssertionError(f"{broken} was accepted")


def check_pipelines(client):
    with client.pipeline(transaction=False) as pipe:
        for number in range(1000):
            pipe.set(f"key:{number}", number)
        assert all(pipe.execute())
    with client.pipeline(transaction=False) as pipe:
        for number in range(1000):
            pipe.get(f"key:{number}")
        assert pipe.execute() == [str(number).encode() for number in range(1000)]
    assert len(set(client.scan_iter(match="key:*"))) == 1000
    assert client.dbsize() >= 1000


for version in (2, 3):
    check(version, int(sys.argv[1]))
print("redis-py", redis.__version__, "ok")
