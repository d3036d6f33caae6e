//! Scripts that do not end, take too much memory, or wait for each other.

use anyhow::{Context, Result, ensure};
use client_tests::TestResult;
use client_tests::server::{Server, ServerBuilder};
use client_tests::wait::{send_blocking, wait_until};
use client_tests::wire::{RawConnection, encode, send_all, show};
use std::time::Duration;

const DEADLINE: Duration = Duration::from_secs(20);
const BUSY: &[u8] = b"-BUSY ";

fn builder(threads: &str) -> ServerBuilder {
    Server::builder().arg("--threads", threads).arg("--busy-reply-threshold", "20")
}

/// Sends a script without reading its reply, and returns once the server counts it as busy.
fn send_endless(server: &Server, script: &[&str]) -> Result<RawConnection> {
    let mut raw = server.raw()?;
    raw.send(&encode(script))?;
    wait_busy(server)?;
    Ok(raw)
}

/// Waits until some script is busy.
fn wait_busy(server: &Server) -> Result<()> {
    let mut other = server.raw()?;
    // With one worker; with several, a kill of the wrong kind is refused only if one is busy.
    let is_busy = || Ok(!other.exchange(&["FUNCTION", "KILL"])?.starts_with(b"-NOTBUSY"));
    wait_until(is_busy, DEADLINE, "a busy script")
}

fn expect(raw: &mut RawConnection, command: &[&str], start: &str) -> Result<()> {
    let reply = raw.exchange(command)?;
    ensure!(reply.starts_with(start.as_bytes()), "{command:?}: {}", show(&reply));
    Ok(())
}

/// Loops that give the hook few chances, or none in Lua's own functions.
const ENDLESS: [&str; 10] = [
    "while true do end",
    "while true do pcall(function() while true do end end) end",
    "while true do redis.call('GET', 'k') end",
    "while true do redis.pcall('NOPE') end",
    "return string.find(string.rep('a', 40), string.rep('a?', 40) .. string.rep('a', 41))",
    "while true do string.rep('x', 100000000) end",
    "local t = {} for i = 1, 1000000 do t[i] = i % 1000 end while true do table.sort(t) end",
    "local t = {1, 2, 3} while true do table.sort(t, function(a, b) return a < b end) end",
    "local t = {} for i = 1, 2e4 do t[i] = i end while true do pcall(table.sort, t, rawequal) end",
    "while true do string.find(string.rep('a', 1e6), '[' .. string.rep('b', 1e6) .. ']') end",
];

#[test]
fn clients_of_the_same_worker_get_busy_until_the_script_is_killed() -> TestResult {
    let server = builder("1").start()?;
    let mut other = server.raw()?;
    for script in ENDLESS {
        let mut caller = send_endless(&server, &["EVAL", script, "0"])?;
        let what = || script.to_owned();
        expect(&mut other, &["GET", "k"], "-BUSY ").with_context(what)?;
        expect(&mut other, &["GET"], "-ERR wrong number of arguments").with_context(what)?;
        expect(&mut other, &["EVAL", "return 1", "0"], "-BUSY ").with_context(what)?;
        expect(&mut other, &["SHUTDOWN"], "-BUSY ").with_context(what)?;
        expect(&mut other, &["HELLO"], "*").with_context(what)?;
        expect(&mut other, &["FUNCTION", "KILL"], "-BUSY ").with_context(what)?;
        expect(&mut other, &["SCRIPT", "KILL"], "+OK").with_context(what)?;
        let reply = caller.read_reply()?;
        let expected = b"-ERR Script killed by user with SCRIPT KILL";
        ensure!(reply.starts_with(expected), "{script}: {}", show(&reply));
        expect(&mut other, &["PING"], "+PONG").with_context(what)?;
        expect(&mut caller, &["SET", "k", "v"], "+OK").with_context(what)?;
        expect(&mut other, &["SCRIPT", "KILL"], "-NOTBUSY ").with_context(what)?;
    }
    Ok(())
}

#[test]
fn a_function_is_killed_by_its_own_command() -> TestResult {
    let server = builder("1").start()?;
    let mut other = server.raw()?;
    let library =
        "#!lua name=lib\nredis.register_function('loop', function() while true do end end)";
    expect(&mut other, &["FUNCTION", "LOAD", library], "$3")?;
    let mut caller = server.raw()?;
    caller.send(&encode(&["FCALL", "loop", "0", "argument"]))?;
    let is_busy = || Ok(other.exchange(&["PING"])?.starts_with(BUSY));
    wait_until(is_busy, DEADLINE, "a busy function")?;
    let stats = show(&other.exchange(&["FUNCTION", "STATS"])?);
    ensure!(stats.contains("loop") && stats.contains("argument"), "{stats}");
    expect(&mut other, &["SCRIPT", "KILL"], "-BUSY ")?;
    expect(&mut other, &["FUNCTION", "KILL"], "+OK")?;
    let reply = caller.read_reply()?;
    let expected = b"-ERR Script killed by user with FUNCTION KILL";
    ensure!(reply.starts_with(expected), "{}", show(&reply));
    expect(&mut other, &["PING"], "+PONG")
}

#[test]
fn a_script_that_has_written_ends_with_the_server_only() -> TestResult {
    for threads in ["1", "3"] {
        let mut server = builder(threads).start()?;
        server.raw()?.text(&["SET", "kept", "before"])?;
        server.raw()?.text(&["SAVE"])?;
        let script = "redis.call('SET', KEYS[1], 'changed') while true do end";
        let _caller = send_endless(&server, &["EVAL", script, "1", "kept"])?;
        let mut other = server.raw()?;
        expect(&mut other, &["SCRIPT", "KILL"], "-UNKILLABLE ")?;
        other.send(&encode(&["SHUTDOWN", "NOSAVE"]))?;
        let status = server.wait_exit()?;
        ensure!(status.success(), "{status}: {}", server.log());
        server.restart()?;
        let kept = server.raw()?.text(&["GET", "kept"])?;
        ensure!(kept == "before", "{kept}");
    }
    Ok(())
}

/// The queue of EXEC, and what waits behind a script, goes on when the script is killed.
#[test]
fn a_script_in_a_transaction_is_killed_alone() -> TestResult {
    let server = builder("1").start()?;
    let (mut caller, mut other) = (server.raw()?, server.raw()?);
    let commands: [&[&str]; 5] = [
        &["MULTI"],
        &["GET", "k"],
        &["EVAL", "while true do end", "0"],
        &["SET", "k", "v"],
        &["EXEC"],
    ];
    for command in commands {
        caller.send(&encode(command))?;
    }
    wait_busy(&server)?;
    expect(&mut other, &["MULTI"], "+OK")?;
    expect(&mut other, &["GET", "k"], "-BUSY ")?;
    expect(&mut other, &["EXEC"], "-EXECABORT ")?;
    expect(&mut other, &["SCRIPT", "KILL"], "+OK")?;
    for _ in 0..4 {
        caller.read_reply()?;
    }
    let reply = show(&caller.read_reply()?);
    let expected = "*3\\r\\n$-1\\r\\n-ERR Script killed by user with SCRIPT KILL";
    ensure!(reply.starts_with(expected) && reply.ends_with("+OK\\r\\n"), "{reply}");
    expect(&mut other, &["GET", "k"], "$1\r\nv")
}

/// Connections that close, time out or watch keys while a script is suspended on their worker wait
/// for nothing that the script holds.
#[test]
fn connections_come_and_go_while_a_script_is_busy() -> TestResult {
    let server = builder("1").start()?;
    let (mut admin, mut watcher) = (server.raw()?, server.raw()?);
    expect(&mut watcher, &["WATCH", "k", "l"], "+OK")?;
    let mut leaver = server.raw()?;
    expect(&mut leaver, &["WATCH", "k", "l"], "+OK")?;
    let mut blocked = server.raw()?;
    send_blocking(&mut blocked, &["BLPOP", "list", "0.3"], &mut admin, DEADLINE)?;
    let script = "for i = 1, 64 do redis.call('GET', i) end while true do end";
    let mut caller = send_endless(&server, &["EVAL", script, "0"])?;
    drop(leaver);
    // The timeout passes while the script runs.
    ensure!(blocked.read_reply()? == b"*-1\r\n");
    // The answer needs locks that the script holds: it comes afterwards.
    watcher.send(&encode(&["UNWATCH"]))?;
    for _ in 0..20 {
        expect(&mut server.raw()?, &["GET", "k"], "-BUSY ")?;
    }
    expect(&mut admin, &["SCRIPT", "KILL"], "+OK")?;
    ensure!(caller.read_reply()?.starts_with(b"-ERR Script killed"));
    ensure!(watcher.read_reply()? == b"+OK\r\n");
    expect(&mut watcher, &["SET", "k", "v"], "+OK")?;
    let clients = || Ok(server.info("connected_clients")?.parse::<u32>()? <= 5);
    wait_until(clients, DEADLINE, "closed connections")
}

/// The caller of a busy script disconnects: the script ends on its own or by a kill.
#[test]
fn the_caller_may_disconnect() -> TestResult {
    let server = builder("1").start()?;
    drop(send_endless(&server, &["EVAL", "while true do end", "0"])?);
    let mut other = server.raw()?;
    expect(&mut other, &["SCRIPT", "KILL"], "+OK")?;
    let is_idle = || Ok(other.exchange(&["PING"])? == b"+PONG\r\n");
    wait_until(is_idle, DEADLINE, "an idle server")
}

#[test]
fn other_workers_serve_keys_of_other_shards() -> TestResult {
    let server = builder("4").start()?;
    let mut connections = (0..8).map(|_| server.raw()).collect::<Result<Vec<_>>>()?;
    let mut caller = send_endless(&server, &["EVAL", "while true do end", "1", "k"])?;
    let mut replies = [0, 0];
    for raw in &mut connections {
        for key in 0..32 {
            let reply = raw.exchange(&["GET", &format!("key:{key}")])?;
            ensure!(reply == b"$-1\r\n" || reply.starts_with(BUSY), "{}", show(&reply));
            replies[usize::from(reply.starts_with(BUSY))] += 1;
        }
    }
    // One worker of four is busy, and one shard of 64.
    ensure!(replies[0] > replies[1] && replies[1] > 0, "{replies:?}");
    expect(&mut connections[0], &["SCRIPT", "KILL"], "+OK")?;
    ensure!(caller.read_reply()?.starts_with(b"-ERR Script killed"));
    Ok(())
}

/// A checkpoint that is requested while a script is suspended holds all of its changes.
#[test]
fn an_image_has_all_of_a_suspended_script() -> TestResult {
    let mut server = builder("4").start()?;
    let mut others = (0..4).map(|_| server.raw()).collect::<Result<Vec<_>>>()?;
    let script = "redis.call('SET', KEYS[1], 'first') local start = os.clock() \
                  while os.clock() < start + 0.5 do end redis.call('SET', KEYS[2], 'second')";
    let mut caller = send_endless(&server, &["EVAL", script, "2", "one", "other"])?;
    // A client of the script's worker gets BUSY.
    let mut accepted = false;
    for raw in &mut others {
        accepted = accepted || !raw.exchange(&["BGSAVE"])?.starts_with(BUSY);
    }
    ensure!(accepted, "no worker has accepted BGSAVE");
    ensure!(caller.read_reply()? == b"$-1\r\n");
    server.wait_checkpoint()?.map_err(anyhow::Error::msg)?;
    server.kill9()?;
    server.restart()?;
    let found = ["one", "other"].map(|key| server.raw()?.bytes(&["GET", key]));
    let [one, other] = found;
    let found = (one?, other?);
    ensure!(found == (Some(b"first".to_vec()), Some(b"second".to_vec())), "{found:?}");
    Ok(())
}

/// Nested coroutines, resumed when the memory is full.
const COROUTINES: &str = "local full = {}
local function nest(depth)
    if depth == 0 then
        pcall(function() for i = 1, 1e9 do full[i] = {i} end end)
        full = nil
        return 'done'
    end
    local ok, result = coroutine.resume(coroutine.create(nest), depth - 1)
    if not ok then coroutine.wrap(function(...) return select('#', ...) end)(unpack({}, 1, 500)) end
    return result or 'done'
end
return nest(190) or 'done'";

/// Scripts that take too much of something cost an error.
#[test]
fn excessive_scripts_fail_alone() -> TestResult {
    let server = Server::builder().arg("--lua-memory-limit", "64mb").start()?;
    let mut raw = server.raw()?;
    // Some compute for seconds, and longer on a busy machine.
    raw.writer()?.set_read_timeout(None)?;
    let memory = "-ERR not enough memory";
    let cases = [
        ("return string.rep('x', 2147483647)", memory),
        ("return string.rep('xxxxxxxx', 2147483647)", memory),
        ("local s = 'x' while true do s = s .. s end", memory),
        ("local t = {} for i = 1, 1e9 do t[i] = i end", memory),
        ("local t = {} for i = 1, 1e9 do t[i] = 'x' .. i end", memory),
        ("return string.gsub(string.rep('a', 20000000), 'a', 'aaaaaaaa')", memory),
        (
            "local t = {} for i = 1, 6 do t[i] = string.rep('a', 1e7) end return table.concat(t)",
            memory,
        ),
        ("local function f() return 1 + f() end return f()", "-ERR user_script:1: stack overflow"),
        ("local t = {} t[1] = t return t", "*1\r\n*1\r\n"),
        ("local t = {} t[1] = t return cjson.encode(t)", "-ERR user_script:1: Cannot serialise"),
        (
            "return cjson.decode(string.rep('[', 100000))",
            "-ERR user_script:1: Found too many nested",
        ),
        ("return cmsgpack.unpack(string.rep('\\145', 100000))", "-ERR "),
        ("return {unpack({}, 1, 1e8)}", "-ERR user_script:1: too many results to unpack"),
        (
            "local t = setmetatable({}, {__index = function(t, k) return t[k .. 'x'] end}) \
             return t.a",
            "-ERR user_script:1: C stack overflow",
        ),
        ("return loadstring(string.rep('(', 1e6) .. string.rep(')', 1e6))", "$-1"),
        (
            "return string.find(string.rep('a', 99), string.rep('(a', 99))",
            "-ERR user_script:1: too many captures",
        ),
        ("return string.format('%99999d', 1)", "-ERR user_script:1: invalid format"),
        ("return bit.tohex(1, -2147483648)", "$8\r\n00000001"),
        // The range overflows in C.
        ("return #{unpack({0, 0}, -2, 2147483647)}", "-ERR user_script:1: too many results"),
        ("return #{unpack({}, 0, 2147483647)}", "-ERR user_script:1: too many results"),
        ("return table.insert({}, -2147483648, 1)", "-ERR user_script:1: bad argument #2"),
        // Each level doubles the reply.
        ("local t = {1, 2, 3, 4} for i = 1, 40 do t = {t, t} end return t", "-ERR "),
        // Resuming fails where an error has no handler.
        (COROUTINES, "$4\r\ndone"),
        ("local t = {} local c = t while true do c[1] = {} c = c[1] end", memory),
        ("return struct.pack('i2147483647', 1)", "-ERR "),
        (
            "for i = 1, 20000 do loadstring('return 1', string.rep('n', 100) .. i) end return 1",
            ":1",
        ),
    ];
    for (script, expected) in cases {
        let reply = raw.exchange(&["EVAL", script, "0"])?;
        ensure!(
            reply.starts_with(expected.as_bytes()),
            "{script}: {}",
            show(&reply[..reply.len().min(200)])
        );
        expect(&mut raw, &["EVAL", "return #ARGV", "0", "x"], ":1\r\n")?;
    }
    Ok(())
}

#[test]
fn scripts_of_eval_leave_the_cache_by_age() -> TestResult {
    let server = Server::start()?;
    let mut raw = server.raw()?;
    let loaded = raw.text(&["SCRIPT", "LOAD", "return 'loaded'"])?;
    let first = raw.text(&["EVAL", "return redis.sha1hex(\"return 'first'\")", "0"])?;
    raw.text(&["EVAL", "return 'first'", "0"])?;
    expect(&mut raw, &["EVALSHA", &first, "0"], "$5\r\nfirst")?;
    for i in 0..500 {
        raw.number(&["EVAL", &format!("return {i}"), "0"])?;
    }
    expect(&mut raw, &["EVALSHA", &first, "0"], "-NOSCRIPT ")?;
    expect(&mut raw, &["EVALSHA", &loaded, "0"], "$6\r\nloaded")?;
    expect(&mut raw, &["SCRIPT", "FLUSH"], "+OK")?;
    expect(&mut raw, &["EVALSHA", &loaded, "0"], "-NOSCRIPT ")
}

/// Compiled scripts do not fill the memory for good.
#[test]
fn large_scripts_are_compiled_after_many_others() -> TestResult {
    let server =
        Server::builder().arg("--lua-memory-limit", "8mb").arg("--threads", "1").start()?;
    let mut raw = server.raw()?;
    for number in 0..150 {
        let lines: String = (0..1000).map(|i| format!("x = {i} + ({number} - 1)\n")).collect();
        let script = format!("local x {lines} return x");
        let reply = raw.number(&["EVAL", &script, "0"])?;
        ensure!(reply == 999 + number - 1, "script {number}: {reply}");
    }
    expect(&mut raw, &["SCRIPT", "FLUSH"], "+OK")?;
    expect(&mut raw, &["EVAL", "return 2", "0"], ":2")
}

/// While a script holds all shards for long, no request of another worker waits for them, nor does
/// one of the same worker that may run meanwhile.
#[test]
fn no_worker_waits_for_a_busy_script() -> TestResult {
    for threads in ["1", "4"] {
        let server = builder(threads)
            .arg("--maxmemory", "24mb")
            .arg("--maxmemory-policy", "allkeys-lru")
            .start()?;
        let value = "x".repeat(1000);
        let mut raw = server.raw()?;
        let mut watchers = (0..8).map(|_| server.raw()).collect::<Result<Vec<_>>>()?;
        for watcher in &mut watchers {
            expect(watcher, &["WATCH", "one", "other"], "+OK")?;
        }
        let mut others = (0..8).map(|_| server.raw()).collect::<Result<Vec<_>>>()?;
        for raw in &mut others {
            expect(raw, &["MULTI"], "+OK")?;
        }
        // Full, so that each write evicts.
        let sets = (0..30_000).map(|key| {
            vec![b"SET".to_vec(), format!("key:{key}").into_bytes(), value.clone().into_bytes()]
        });
        ensure!(send_all(&mut raw, sets)? == 0);
        let script = "for i = 1, 200 do redis.call('GET', i) end while true do end";
        let mut caller = send_endless(&server, &["EVAL", script, "0"])?;
        for (number, mut watcher) in watchers.into_iter().enumerate() {
            match number % 4 {
                0 => drop(watcher),
                1 => expect(&mut watcher, &["UNWATCH"], "+OK")?,
                2 => expect(&mut watcher, &["RESET"], "+RESET")?,
                _ => expect(&mut watcher, &["WATCH", "third"], "")?,
            }
        }
        for raw in &mut others {
            expect(raw, &["FUNCTION", "STATS"], "")?;
            expect(raw, &["DISCARD"], "+OK")?;
            for command in [
                &["FUNCTION", "LOAD", "#!lua name=l\nredis.register_function('f', function() end)"]
                    [..],
                &["MEMORY", "PURGE"],
                &["SAVE"],
                &["SHUTDOWN"],
                &["SHUTDOWN", "SAVE"],
                &["SET", "another", &value],
                &["FLUSHALL"],
                &["DEBUG", "RELOAD"],
                &["PING"],
            ] {
                expect(raw, command, "")?;
            }
        }
        expect(&mut server.raw()?, &["SCRIPT", "KILL"], "+OK")?;
        ensure!(caller.read_reply()?.starts_with(b"-ERR Script killed"));
        expect(&mut raw, &["SET", "another", &value], "+OK")?;
        ensure!(server.text(&["DEBUG", "VERIFY"])? == "OK");
    }
    Ok(())
}

/// A request to end the server that is refused ends no script.
#[test]
fn only_an_accepted_shutdown_ends_a_script() -> TestResult {
    let server = builder("1").start()?;
    let (mut caller, mut admin) = (server.raw()?, server.raw()?);
    expect(&mut admin, &["CONFIG", "SET", "requirepass", "secret"], "+OK")?;
    let mut other = server.raw()?;
    let script = "redis.call('SET', KEYS[1], 1) local start = os.clock() \
                  while os.clock() < start + 1 do end redis.call('SET', KEYS[2], 1) return 'all'";
    caller.send(&encode(&["EVAL", script, "2", "one", "other"]))?;
    let is_busy = || Ok(admin.exchange(&["PING"])?.starts_with(BUSY));
    wait_until(is_busy, DEADLINE, "a busy script")?;
    expect(&mut other, &["SHUTDOWN", "NOSAVE"], "-NOAUTH ")?;
    expect(&mut admin, &["SHUTDOWN", "NOSAVE", "ABORT"], "-ERR syntax")?;
    ensure!(caller.read_reply()? == b"$3\r\nall\r\n");
    expect(&mut admin, &["EXISTS", "one", "other"], ":2")
}

#[test]
fn sigterm_ends_a_script_that_has_not_written() -> TestResult {
    let mut server = builder("2").arg("--save", "3600 1000000").start()?;
    server.raw()?.text(&["SET", "key", "value"])?;
    let _caller = send_endless(&server, &["EVAL", "while true do end", "0"])?;
    let status = server.terminate()?;
    ensure!(status.success(), "{status}: {}", server.log());
    server.restart()?;
    ensure!(server.raw()?.text(&["GET", "key"])? == "value");
    Ok(())
}

/// A script that runs again under all locks has sent no message before.
#[test]
fn a_message_of_a_script_is_sent_once() -> TestResult {
    const SCRIPTS: usize = 300;
    let server = Server::builder().arg("--threads", "4").start()?;
    let mut subscriber = server.raw()?;
    subscriber.exchange(&["SUBSCRIBE", "channel"])?;
    let received: i64 = std::thread::scope(|scope| -> Result<i64> {
        let workers: Vec<_> = (0..3)
            .map(|worker| {
                let mut raw = server.raw()?;
                Ok(scope.spawn(move || -> Result<i64> {
                    let mut sum = 0;
                    for i in 0..SCRIPTS {
                        // A new text each time, so that the undeclared keys are news.
                        let script = format!(
                            "local n = redis.call('PUBLISH', 'channel', 'x') \
                             for i = 1, 20 do redis.call('GET', 'key:' .. i) end \
                             return n -- {worker} {i}"
                        );
                        sum += raw.number(&["EVAL", &script, "1", "declared"])?;
                    }
                    Ok(sum)
                }))
            })
            .collect::<Result<_>>()?;
        workers.into_iter().map(|worker| worker.join().expect("no panic")).sum()
    })?;
    ensure!(received == 3 * i64::try_from(SCRIPTS)?);
    server.raw()?.call(&["PUBLISH", "channel", "last"])?;
    let mut messages = 0;
    while !show(&subscriber.read_reply()?).contains("last") {
        messages += 1;
    }
    ensure!(messages == 3 * SCRIPTS, "{messages} messages");
    Ok(())
}
