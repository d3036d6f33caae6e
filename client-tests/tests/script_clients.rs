//! Libraries and job queues that depend on scripts and functions of the server.
//!
//! Each program of `client-tests/clients/` checks the results of its library itself.

use anyhow::{Context, ensure};
use client_tests::TestResult;
use client_tests::libraries::{run_node, run_python};
use client_tests::server::Server;
use redis::{Commands, Script};

#[test]
fn redis_py_locks_scripts_and_functions_work() -> TestResult {
    run_python("redis", "redis_py_scripts.py", "redis-py scripts ok")
}

#[test]
fn ioredis_defines_commands() -> TestResult {
    run_node("ioredis", "ioredis_scripts.mjs", "ioredis scripts ok")
}

#[test]
fn redlock_works() -> TestResult {
    run_node("redlock", "redlock_client.mjs", "redlock ok")
}

#[test]
fn bullmq_works() -> TestResult {
    run_node("bullmq", "bullmq_client.mjs", "bullmq ok")
}

#[test]
fn bee_queue_works() -> TestResult {
    run_node("bee-queue", "bee_queue_client.mjs", "bee-queue ok")
}

#[test]
fn bull_works() -> TestResult {
    run_node("bull", "bull_client.mjs", "bull ok")
}

#[test]
fn rate_limiter_flexible_works() -> TestResult {
    run_node("rate-limiter-flexible", "rate_limiter_client.mjs", "rate-limiter-flexible ok")
}

#[test]
fn limits_works() -> TestResult {
    run_python("limits", "limits_client.py", "limits ok")
}

/// Moves an amount from one key to another, and returns both values, or an error if the first key
/// holds less.
const MOVE: &str = "
    local left = tonumber(redis.call('GET', KEYS[1]) or '0') - ARGV[1]
    if left < 0 then
        return redis.error_reply('SHORT of ' .. -left)
    end
    redis.call('SET', KEYS[1], left)
    return {left, redis.call('INCRBY', KEYS[2], ARGV[1])}";

#[test]
fn redis_rs_invokes_scripts_in_both_protocols() -> TestResult {
    let server = Server::start()?;
    let script = Script::new(MOVE);
    for protocol in ["resp2", "resp3"] {
        let url = format!("redis://127.0.0.1:{}/?protocol={protocol}", server.port());
        let mut connection = redis::Client::open(url)?.get_connection()?;
        redis::cmd("FLUSHALL").exec(&mut connection)?;
        redis::cmd("SCRIPT").arg("FLUSH").exec(&mut connection)?;
        let () = connection.set("a", 100)?;
        // The first call gets NOSCRIPT and loads the script.
        let mut invocation = script.prepare_invoke();
        invocation.key("a").key("b").arg(30);
        ensure!(invocation.invoke::<(i64, i64)>(&mut connection)? == (70, 30));
        ensure!(invocation.invoke::<(i64, i64)>(&mut connection)? == (40, 60));
        let moved: Vec<i64> = script.key(&["a", "b"][..]).arg(40).invoke(&mut connection)?;
        ensure!(moved == [0, 100]);
        let error = invocation.invoke::<Vec<i64>>(&mut connection).err().context("no error")?;
        ensure!(error.code() == Some("SHORT") && error.detail() == Some("of 30"), "{error:?}");
        ensure!(connection.mget::<_, Vec<i64>>(&["a", "b"])? == [0, 100]);

        let bytes = Script::new("return {ARGV[1], false, KEYS, 'x', 7}");
        let mixed = bytes.key("k").arg(b"\0\r\n\xff").invoke(&mut connection)?;
        let expected = (b"\0\r\n\xff".to_vec(), None, vec!["k".to_owned()], "x".to_owned(), 7);
        let mixed: (Vec<u8>, Option<i64>, Vec<String>, String, i64) = mixed;
        ensure!(mixed == expected, "{mixed:?}");
        redis_rs_pipes_scripts(&mut connection, &script)?;
    }
    Ok(())
}

/// A pipeline does not load scripts by itself: without one its call fails, and the other commands
/// are executed.
fn redis_rs_pipes_scripts(connection: &mut redis::Connection, script: &Script) -> TestResult {
    redis::cmd("SCRIPT").arg("FLUSH").exec(connection)?;
    let mut call = script.key("a");
    call.key("b").arg(10);
    for atomic in [false, true] {
        let mut pipe = redis::pipe();
        if atomic {
            pipe.atomic();
        }
        pipe.set("a", 1).ignore().invoke_script(&call);
        let error = pipe.exec(connection).err().context("a missing script was invoked")?;
        ensure!(error.to_string().contains("No matching script"), "{error:?}");
        ensure!(connection.get::<_, i64>("a")? == 1);
    }
    let hash = call.load(connection)?;
    ensure!(hash == script.get_hash());
    for atomic in [false, true] {
        let mut pipe = redis::pipe();
        if atomic {
            pipe.atomic();
        }
        pipe.mset(&[("a", 1000), ("b", 0)]).ignore();
        for _ in 0..100 {
            pipe.invoke_script(&call);
        }
        pipe.get("b");
        let mut replies = pipe.query::<Vec<redis::Value>>(connection)?;
        let last = replies.pop().context("no replies")?;
        ensure!(redis::from_redis_value::<i64>(last)? == 1000);
        let pairs = replies.into_iter().map(redis::from_redis_value::<(i64, i64)>);
        let expected = (1..=100).map(|n| (1000 - 10 * n, 10 * n)).collect::<Vec<_>>();
        ensure!(pairs.collect::<Result<Vec<_>, _>>()? == expected);
    }
    // Loading is possible within the pipeline too.
    redis::cmd("SCRIPT").arg("FLUSH").exec(connection)?;
    let mut pipe = redis::pipe();
    pipe.load_script(script).set("a", 10).ignore().invoke_script(&call);
    let (loaded, (left, _)): (String, (i64, i64)) = pipe.query(connection)?;
    ensure!(loaded == hash && left == 0);
    Ok(())
}
