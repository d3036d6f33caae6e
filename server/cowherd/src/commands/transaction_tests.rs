use std::sync::atomic::Ordering;

use cowherd_resp::ArgSpan;

use super::*;
use crate::commands::testing::TestServer;

#[test]
fn a_transaction_begins_once_and_ends_once() {
    let bench = TestServer::new();
    assert_eq!(bench.run("EXEC"), "-ERR EXEC without MULTI\r\n");
    assert_eq!(bench.run("DISCARD"), "-ERR DISCARD without MULTI\r\n");
    assert_eq!(bench.run("MULTI"), "+OK\r\n");
    assert_eq!(bench.run("MULTI"), "-ERR MULTI calls can not be nested\r\n");
    assert_eq!(bench.run("WATCH a"), "-ERR WATCH inside MULTI is not allowed\r\n");
    assert_eq!(bench.run("EXEC"), "");
    assert_eq!(bench.effect.take(), Effect::RunQueue);
    assert_eq!(bench.run("DISCARD"), "+OK\r\n");
    assert_eq!(bench.run("DISCARD"), "-ERR DISCARD without MULTI\r\n");
}

#[test]
fn every_end_of_a_transaction_unwatches_all_keys() {
    for end in ["UNWATCH", "RESET", "DISCARD"] {
        let bench = TestServer::new();
        assert_eq!(bench.run("WATCH a b a"), "+OK\r\n");
        let shown = bench.run("CLIENT INFO");
        assert!(shown.contains(" multi=-1 watch=2 ") && shown.contains(" flags=U "), "{shown}");
        bench.run("SET a 1");
        let shown = bench.run("CLIENT INFO");
        assert!(shown.contains(" flags=dU "), "{shown}");
        bench.run("WATCH c");
        assert!(bench.run("CLIENT INFO").contains(" watch=2 "), "it is too late to watch more");
        if end == "DISCARD" {
            bench.run("MULTI");
            let shown = bench.run("CLIENT INFO");
            assert!(shown.contains(" multi=0 ") && shown.contains(" flags=xdU "), "{shown}");
        }
        bench.run(end);
        let shown = bench.run("CLIENT INFO");
        assert!(shown.contains(" multi=-1 watch=0 ") && shown.contains(" flags=U "), "{shown}");
        bench.run("SET b 1");
        assert!(bench.run("CLIENT INFO").contains(" flags=U "));
    }
}

#[test]
fn a_queue_keeps_requests_as_they_were() {
    let bench = TestServer::new();
    let (table, keyspace) = (&bench.shared.table, &bench.shared.keyspace);
    let mut queue = CommandQueue::default();
    let relocations = keyspace.relocations();
    let push = |queue: &mut CommandQueue, row: &CommandRow, args: &Args<'_>, first_hash, shards| {
        let command = QueuedCommand { row: row.number, args: *args, first_hash };
        queue.push(command, row.command.flags.bits(), shards_in_queue(row, shards), relocations);
    };
    let requests: [&[&[u8]]; 3] = [&[b"SET", b"k", b""], &[b"PING"], &[b"get", b"k\r\n"]];
    for request in requests {
        let bytes = request.concat();
        let mut start = 0;
        let spans: Vec<ArgSpan> = (request.iter())
            .map(|arg| {
                start += arg.len();
                ArgSpan { start: start - arg.len(), len: arg.len() }
            })
            .collect();
        let args = Args::new(&bytes, &spans);
        let row = table.resolve(&args).unwrap();
        let key = args.get(row.command.keys.first).filter(|_| row.command.keys.first > 0);
        let hash = key.map(|key| keyspace.hash(key));
        push(&mut queue, row, &args, hash, row.command.shards(keyspace, &args, hash));
    }
    let kept: Vec<Vec<&[u8]>> = queue.iter().map(|one| one.args.iter().collect()).collect();
    assert_eq!(kept, requests);
    assert_eq!((queue.len(), queue.bytes()), (3, 4 + 4 + 3 + 3));
    assert!(queue.memory() >= queue.bytes());
    assert!(
        queue_flags(&queue)
            .contains(CommandFlags::WRITE | CommandFlags::READONLY | CommandFlags::DENYOOM)
    );
    let shard = |key: &[u8]| ShardSet::one(keyspace.key(0, key).shard);
    let named = shard(b"k") | shard(b"k\r\n");
    assert_eq!(queue_shards(&queue, table.rows(), keyspace), named);
    // The key is relocated to another shard before EXEC.
    bench.run(&format!("HSET large field {}", "x".repeat(20_000)));
    let large = shard(b"large");
    assert!(named | large != named);
    bench.run("RENAME large k");
    assert_eq!(shard(b"k"), large);
    assert_eq!(queue_shards(&queue, table.rows(), keyspace), named | large);
    let own = table.command(b"randomkey").unwrap();
    let args = Args::new(b"randomkey", &[ArgSpan { start: 0, len: 9 }]);
    push(&mut queue, own, &args, None, ShardSet::NONE);
    assert_eq!(queue_shards(&queue, table.rows(), keyspace), ShardSet::ALL);
}

#[test]
fn a_refused_exec_replies_the_reason() {
    let reply =
        |error: &ErrorReply| String::from_utf8(exec_refused(error).as_bytes().to_vec()).unwrap();
    let oom = reply(&ErrorReply::OUT_OF_MEMORY);
    assert!(oom.starts_with("EXECABORT Transaction discarded because of: OOM command"), "{oom}");
    let syntax = reply(&ErrorReply::SYNTAX);
    assert_eq!(syntax, "EXECABORT Transaction discarded because of: syntax error");
}

#[test]
fn a_disconnected_watcher_is_not_kept() {
    let bench = TestServer::new();
    bench.run("WATCH a b c");
    bench.end_session();
    let client = bench.shared.clients.list().remove(0);
    assert_eq!(client.watched.load(Ordering::Relaxed), 0);
    assert_eq!(Arc::strong_count(&client.watcher), 1);
}
