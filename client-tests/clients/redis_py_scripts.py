"""Uses locks, scripts and functions of redis-py on the server on the port given as argument."""

import sys
import threading
import time

import redis
from redis.exceptions import LockError, LockNotOwnedError, NoScriptError, ResponseError

DEADLINE = 20

# Adds ARGV[1] to each key, and returns the sums and the expiry time of the last key.
ADD = """
local sums = {}
for n, key in ipairs(KEYS) do
    sums[n] = redis.call('INCRBY', key, ARGV[1])
end
return {sums, redis.call('EXPIRETIME', KEYS[#KEYS]), 'added ' .. ARGV[1]}
"""

LIBRARY = """#!lua name=accounts
local function transfer(keys, args)
    local balance = tonumber(redis.call('HGET', keys[1], 'balance') or '0')
    if balance < tonumber(args[1]) then
        return redis.error_reply('NOFUNDS only ' .. balance .. ' are left')
    end
    redis.call('HINCRBY', keys[1], 'balance', -args[1])
    return redis.call('HINCRBY', keys[2], 'balance', args[1])
end
redis.register_function('transfer', transfer)
redis.register_function{
    function_name = 'total',
    callback = function(keys)
        local sum = 0
        for _, key in ipairs(keys) do
            sum = sum + (redis.call('HGET', key, 'balance') or 0)
        end
        return sum
    end,
    flags = {'no-writes'},
    description = 'sum of all balances',
}
"""


def check(protocol, port):
    client = redis.Redis(port=port, protocol=protocol)
    client.flushall()
    client.script_flush()
    client.function_flush()
    check_lock(client)
    check_lost_lock(client)
    check_contention(client, port)
    check_script(client)
    check_pipelines(client)
    check_results(client, protocol)
    check_functions(client)
    client.close()


def expect(kind, words, call, *arguments, **options):
    try:
        result = call(*arguments, **options)
    except kind as error:
        assert words in str(error), error
    else:
        raise AssertionError(f"{call} returned {result!r} instead of {kind.__name__}")


def wait_until(condition, what):
    end = time.monotonic() + DEADLINE
    while not condition():
        assert time.monotonic() < end, f"waited in vain for {what}"
        time.sleep(0.005)


def check_lock(client):
    owner = client.lock("lock", timeout=100)
    other = client.lock("lock", timeout=100, blocking=False)
    assert owner.acquire() and owner.owned() and owner.locked()
    assert not other.acquire() and not other.owned() and other.locked()
    expect(LockError, "not owned", other.release)
    # A lock with another token must change nothing.
    other.local.token = b"another token"
    expect(LockNotOwnedError, "no longer owned", other.release)
    other.local.token = b"another token"
    expect(LockNotOwnedError, "no longer owned", other.extend, 1000)
    expect(LockNotOwnedError, "no longer owned", other.reacquire)
    assert owner.owned() and 0 < client.pttl("lock") <= 100_000
    assert owner.extend(1000) and 1_000_000 < client.pttl("lock") <= 1_100_000
    assert owner.extend(2000, replace_ttl=True) and 1_900_000 < client.pttl("lock") <= 2_000_000
    assert owner.reacquire() and 0 < client.pttl("lock") <= 100_000
    owner.release()
    assert not owner.locked() and client.exists("lock") == 0
    with client.lock("lock", timeout=100) as held:
        assert held.owned() and not other.acquire()
    assert other.acquire()
    other.release()


def check_lost_lock(client):
    lost = client.lock("lock", timeout=0.01)
    assert lost.acquire()
    wait_until(lambda: not lost.locked(), "the lock to expire")
    expect(LockNotOwnedError, "no longer owned", lost.extend, 10)
    expect(LockNotOwnedError, "no longer owned", lost.release)
    # The blocking call of one lock succeeds once the other one has expired.
    short = client.lock("lock", timeout=0.05)
    waiting = client.lock("lock", timeout=100, sleep=0.005)
    assert short.acquire() and waiting.acquire(blocking_timeout=DEADLINE)
    expect(LockNotOwnedError, "no longer owned", short.release)
    assert waiting.owned()
    waiting.release()


def check_contention(client, port):
    """Each of two threads adds 1 fifty times by GET and SET, which a lost lock would show."""
    rounds, failures, inside = 50, [], []
    barrier = threading.Barrier(2)

    def work():
        try:
            with redis.Redis(port=port) as own:
                lock = own.lock("contended", timeout=DEADLINE, sleep=0.001)
                barrier.wait(DEADLINE)
                for _ in range(rounds):
                    assert lock.acquire(blocking_timeout=DEADLINE)
                    inside.append(1)
                    assert len(inside) == 1, "two threads hold the lock"
                    own.set("sum", int(own.get("sum") or 0) + 1)
                    inside.pop()
                    lock.release()
        except BaseException as error:  # noqa: BLE001 (reported by the main thread)
            failures.append(error)

    threads = [threading.Thread(target=work) for _ in range(2)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert not failures, failures
    assert client.get("sum") == str(2 * rounds).encode()
    assert client.exists("contended") == 0


def check_script(client):
    add = client.register_script(ADD)
    assert client.script_exists(add.sha) == [False]
    expect(NoScriptError, "No matching script", client.evalsha, add.sha, 1, "n", 1)
    client.set("a", 1, exat=4_000_000_000)
    assert add(keys=["b", "a"], args=[5]) == [[5, 6], 4_000_000_000, b"added 5"]
    assert client.script_exists(add.sha, "0" * 40) == [True, False]
    assert client.evalsha(add.sha, 1, "b", 1) == [[6], -1, b"added 1"]
    client.script_flush()
    assert client.script_exists(add.sha) == [False]
    # The Script loads itself again.
    assert add(keys=["b"], args=[1]) == [[7], -1, b"added 1"]
    assert client.script_load(ADD) == add.sha
    assert client.eval(ADD, 1, "b", -7) == [[0], -1, b"added -7"]
    assert client.eval_ro("return redis.call('GET', KEYS[1])", 1, "b") == b"0"
    get = client.script_load("return redis.call('GET', KEYS[1])")
    assert client.evalsha_ro(get, 1, "b") == b"0"
    expect(ResponseError, "Write commands are not allowed", client.evalsha_ro, add.sha, 1, "b", 1)
    assert client.get("b") == b"0"
    client.set("text", "no number")
    expect(ResponseError, "value is not an integer", add, keys=["b", "text"], args=[1])
    # What the script did before its error stays.
    assert client.get("b") == b"1"
    expect(ResponseError, "Error compiling script", client.register_script("return ("))


def check_pipelines(client):
    add = client.register_script(ADD)
    for transaction in (False, True):
        client.delete("p")
        # The pipeline loads a script that the server does not have, before its commands.
        client.script_flush()
        with client.pipeline(transaction=transaction) as pipe:
            pipe.set("p", 10)
            for number in range(100):
                add(keys=["p"], args=[number], client=pipe)
            pipe.get("p")
            done = pipe.execute()
        assert done[0] is True and done[-1] == b"4960", done
        assert done[1:-1] == [
            [[10 + number * (number + 1) // 2], -1, f"added {number}".encode()]
            for number in range(100)
        ], done
        client.set("text", "no number")
        with client.pipeline(transaction=transaction) as pipe:
            pipe.set("p", 1)
            add(keys=["text"], args=[1], client=pipe)
            add(keys=["p"], args=[1], client=pipe)
            done = pipe.execute(raise_on_error=False)
        assert isinstance(done[1], ResponseError), done
        assert done[0] is True and done[2] == [[2], -1, b"added 1"], done


def check_results(client, protocol):
    """Conversions between Lua and the client's types."""
    typed = protocol == 3
    for source, expected in [
        ("return 3.99", 3),
        ("return {1, 'two', {3, {}}, nil, 5}", [1, b"two", [3, []]]),
        ("return true", 1),
        ("return false", None),
        ("redis.setresp(3) return true", True if typed else 1),
        ("redis.setresp(3) return {double = 2.5}", 2.5 if typed else b"2.5"),
        ("redis.setresp(3) return {map = {a = 1}}", {b"a": 1} if typed else [b"a", 1]),
        ("return redis.status_reply('FINE')", b"FINE"),
        ("return cjson.encode({1, 'x', {a = true}})", b'[1,"x",{"a":true}]'),
        ("return cjson.decode(ARGV[1]).list[2]", 20),
        ("return cmsgpack.unpack(cmsgpack.pack({7, 8}))", [7, 8]),
        ("return struct.pack('>I2', 258) .. bit.tohex(255, 2)", b"\x01\x02ff"),
        ("return redis.sha1hex('')", b"da39a3ee5e6b4b0d3255bfef95601890afd80709"),
        ("return ARGV[2]", b"\x00\r\n\xff"),
    ]:
        result = client.eval(source, 0, '{"list": [10, 20]}', b"\x00\r\n\xff")
        assert result == expected and type(result) is type(expected), (source, result)
    expect(ResponseError, "MINE of my own", client.eval, "return {err = 'MINE of my own'}", 0)
    expect(ResponseError, "boom", client.eval, "error('boom')", 0)
    expect(ResponseError, "nonexistent global variable", client.eval, "return missing", 0)


def check_functions(client):
    assert client.function_load(LIBRARY) in (b"accounts", "accounts")
    expect(ResponseError, "already exists", client.function_load, LIBRARY)
    client.hset("alice", "balance", 100)
    assert client.fcall("transfer", 2, "alice", "bob", 30) == 30
    assert client.fcall("transfer", 2, "alice", "bob", 30) == 60
    assert client.fcall_ro("total", 2, "alice", "bob") == 100
    expect(ResponseError, "only 40 are left", client.fcall, "transfer", 2, "alice", "bob", 41)
    expect(ResponseError, "with write flag", client.fcall_ro, "transfer", 2, "alice", "bob", 1)
    expect(ResponseError, "Function not found", client.fcall, "missing", 0)
    assert client.hget("alice", "balance") == b"40" and client.hget("bob", "balance") == b"60"
    with client.pipeline() as pipe:
        for _ in range(4):
            pipe.fcall("transfer", 2, "alice", "bob", 10)
        pipe.fcall_ro("total", 2, "alice", "bob")
        assert pipe.execute() == [70, 80, 90, 100, 100]
    assert "accounts" in str(client.function_list()) and "total" in str(client.function_list())
    assert client.function_list(library="other*") == []
    changed = LIBRARY.replace("return sum", "return -sum")
    assert client.function_load(changed, replace=True) in (b"accounts", "accounts")
    assert client.fcall_ro("total", 2, "alice", "bob") == -100
    assert client.function_delete("accounts")
    expect(ResponseError, "Function not found", client.fcall_ro, "total", 1, "alice")


for version in (2, 3):
    check(version, int(sys.argv[1]))
print("redis-py scripts ok")
