"""Uses the server on the port given as argument through redis-py, as an application does."""

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
    check_types(client)
    check_sketches(client)
    check_places(client)
    check_transactions(client)
    check_messages(client)
    check_streams(client)
    client.close()


def check_messages(client):
    def messages(pubsub, count):
        found = []
        while len(found) < count:
            message = pubsub.get_message(ignore_subscribe_messages=True, timeout=20)
            assert message, f"only {len(found)} of {count} messages came"
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
        assert pubsub.get_message(timeout=20)["type"] == "psubscribe"
        client.set("noted", 1, ex=100)
        client.delete("noted")
        assert messages(pubsub, 3) == [
            ("pmessage", b"__keyevent@0__:set", b"noted"),
            ("pmessage", b"__keyevent@0__:expire", b"noted"),
            ("pmessage", b"__keyevent@0__:del", b"noted"),
        ]
    client.config_set("notify-keyspace-events", "")


def check_types(client):
    assert client.hset("hash", mapping={"a": 1, "b": "two"}) == 2
    assert client.hgetall("hash") == {b"a": b"1", b"b": b"two"}
    assert client.hincrby("hash", "a", 4) == 5 and client.hmget("hash", "a", "x") == [b"5", None]
    assert client.hexpire("hash", 100, "a") == [1] and client.httl("hash", "a", "b")[1] == -1
    assert client.rpush("list", *range(5)) == 5 and client.lpop("list", 2) == [b"0", b"1"]
    assert client.lrange("list", 0, -1) == [b"2", b"3", b"4"]
    assert client.blpop(["missing", "list"], timeout=5) == (
        [b"list", b"2"] if client.get_connection_kwargs().get("protocol") == 3 else (b"list", b"2")
    )
    assert client.lmove("list", "other", "LEFT", "RIGHT") == b"3"
    assert client.sadd("set", "a", "b", "c") == 3 and client.srem("set", "b", "x") == 1
    assert client.smembers("set") == {b"a", b"c"} and client.smismember("set", "a", "b") == [1, 0]
    assert client.zadd("zset", {"one": 1, "two": 2.5, "three": 3}) == 3
    assert client.zincrby("zset", 1, "one") == 2.0 and client.zscore("zset", "two") == 2.5
    assert client.zrange("zset", 2.2, "+inf", byscore=True) == [b"two", b"three"]
    assert [score for _, score in client.zpopmin("zset", 2)] in ([2.0, 2.5], [[2.0], [2.5]])
    for number in range(1000):
        client.hset("large", f"field:{number}", number)
    assert len(dict(client.hscan_iter("large", count=50))) == 1000
    assert client.sort("other", alpha=True) == [b"3"]
    assert client.object("encoding", "large") == b"hashtable"
    names = ["hash", "list", "other", "set", "zset", "large"]
    assert [client.type(name) for name in names] == [
        b"hash", b"list", b"list", b"set", b"zset", b"hash"
    ]
    assert client.unlink(*names) == len(names)


def check_sketches(client):
    assert client.pfadd("visitors", *range(1000)) == 1 and client.pfadd("visitors", 7) == 0
    assert client.pfadd("more", 7, "new") == 1
    assert 970 < client.pfcount("visitors") < 1030 and client.pfcount("more") == 2
    assert client.pfcount("visitors", "more") == client.pfcount("visitors") + 1
    assert client.pfmerge("all", "visitors", "more")
    assert client.pfcount("all") == client.pfcount("visitors", "more")
    assert client.set("copy", client.get("all")) and client.pfadd("copy", "new") == 0
    assert client.delete("visitors", "more", "all", "copy") == 4


def check_places(client):
    towns = (13.361389, 38.115556, "Palermo", 15.087269, 37.502669, "Catania")
    assert client.geoadd("places", towns) == 2 and client.geoadd("places", towns, nx=True) == 0
    assert client.geodist("places", "Palermo", "Catania", "km") == 166.2742
    assert client.geodist("places", "Palermo", "missing") is None
    position, missing = client.geopos("places", "Palermo", "missing")
    assert missing is None and abs(position[0] - 13.361389) < 1e-5, position
    assert abs(position[1] - 38.115556) < 1e-5, position
    assert client.geohash("places", "Palermo")[0] in ("sqc8b49rny0", b"sqc8b49rny0")
    near = {"longitude": 15, "latitude": 37, "radius": 200, "unit": "km", "sort": "ASC"}
    assert client.geosearch("places", **near) == [b"Catania", b"Palermo"]
    found = client.geosearch("places", **near, count=1, withdist=True, withcoord=True, withhash=True)
    assert found[0][:3] == [b"Catania", 56.4413, 3479447370796909], found
    assert abs(found[0][3][0] - 15.087269) < 1e-5, found
    box = {"member": "Palermo", "width": 400, "height": 400, "unit": "km"}
    assert client.geosearchstore("near", "places", **box, storedist=True) == 2
    assert abs(client.zscore("near", "Catania") - 166.2742) < 1e-3
    assert client.georadiusbymember("places", "Palermo", 100, "km") == [b"Palermo"]
    assert client.georadius("places", 15, 37, 200, "km", store="near") == 2
    assert client.delete("places", "near") == 2


def check_transactions(client):
    client.set("balance", 10)
    tries = 0
    with client.pipeline() as pipe:
        while True:
            try:
                pipe.watch("balance")
                balance = int(pipe.get("balance"))
                if tries == 0:
                    client.incr("balance")
                tries += 1
                pipe.multi()
                pipe.set("balance", balance + 5)
                pipe.rpush("log", balance)
                assert pipe.execute() == [True, 1]
                break
            except redis.WatchError:
                continue
    assert tries == 2 and client.get("balance") == b"16"

    def add(pipe):
        pipe.multi()
        pipe.incrby("balance", 4)

    assert client.transaction(add, "balance") == [20]
    client.delete("log")


def check_streams(client):
    ids = [client.xadd("stream", {"number": number}) for number in range(100)]
    assert client.xlen("stream") == 100 and client.type("stream") == b"stream"
    assert client.xadd("stream", {"number": 100, "more": "x"}, maxlen=100, approximate=False)
    assert client.xrange("stream", max=ids[1]) == [(ids[1], {b"number": b"1"})]
    assert client.xrevrange("stream", count=1)[0][1] == {b"number": b"100", b"more": b"x"}
    assert client.xdel("stream", ids[1], "0-1") == 1
    assert client.xgroup_create("stream", "group", id="0")
    found = client.xreadgroup("group", "bob", {"stream": ">"}, count=3)
    assert entries(found, "stream") == ids[2:5], found
    assert client.xack("stream", "group", ids[2]) == 1
    pending = client.xpending("stream", "group")
    assert pending["pending"] == 2 and pending["min"] == ids[3] and pending["max"] == ids[4]
    assert pending["consumers"] == [{"name": b"bob", "pending": 2}]
    rows = client.xpending_range("stream", "group", "-", "+", 10)
    rows = [(row["message_id"], row["times_delivered"]) for row in rows]
    assert rows == [(ids[3], 1), (ids[4], 1)]
    claimed = client.xclaim("stream", "group", "alice", 0, [ids[3]])
    assert claimed == [(ids[3], {b"number": b"3"})], claimed
    claimed = client.xautoclaim("stream", "group", "carol", 0)
    assert [entry for entry, _ in claimed[1]] == ids[3:5], claimed
    info = client.xinfo_stream("stream")
    assert info["length"] == 99 and info["last-entry"][1][b"more"] == b"x", info
    group = client.xinfo_groups("stream")[0]
    assert group["name"] == b"group" and group["consumers"] == 3 and group["lag"] == 96, group
    names = [consumer["name"] for consumer in client.xinfo_consumers("stream", "group")]
    assert names == [b"alice", b"bob", b"carol"]
    assert client.xinfo_stream("stream", full=True)["groups"][0]["pel-count"] == 2
    found = client.xread({"stream": ids[98], "missing": "0"}, block=1000)
    assert len(entries(found, "stream")) == 2, found
    assert not client.xread({"stream": "$"}, block=1)
    assert client.xtrim("stream", minid=ids[99], approximate=False) == 97
    assert client.xgroup_destroy("stream", "group") == 1
    try:
        client.xreadgroup("group", "bob", {"stream": ">"})
    except redis.ResponseError as error:
        assert "NOGROUP" in str(error), error
    else:
        raise AssertionError("a deleted group was read")


def entries(found, key):
    """Ids of the entries read from a stream, in either protocol."""
    if isinstance(found, dict):
        rows = found[key.encode()]
        rows = rows[0] if rows and isinstance(rows[0], list) else rows
    else:
        rows = dict(found)[key.encode()]
    return [entry for entry, _ in rows]


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
