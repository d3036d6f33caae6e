//! Tests of clients blocked on stream entries, over real sockets and on two workers.

use super::TestServer;

/// Lines of a reply with one entry of one field.
const ENTRY_LINES: usize = 13;

#[test]
fn an_entry_goes_to_all_readers_and_to_one_consumer_of_a_group() {
    let server = TestServer::new();
    let mut admin = server.tcp();
    let (mut a, mut b, mut bob, mut alice) =
        (server.tcp(), server.unix(), server.tcp(), server.unix());
    assert_eq!(admin.ask("XADD s 1-1 f v"), "$3");
    assert_eq!(admin.line(), "1-1");
    assert_eq!(admin.ask("XGROUP CREATE s g $"), "+OK");
    server.block(&mut a, "XREAD BLOCK 0 STREAMS other s $ $");
    server.block(&mut b, "XREAD BLOCK 0 STREAMS s $");
    server.block(&mut bob, "XREADGROUP GROUP g bob BLOCK 0 STREAMS s >");
    server.block(&mut alice, "XREADGROUP GROUP g alice BLOCK 0 STREAMS s >");
    // Neither a value of another type nor an entry deleted in the same transaction wakes a client.
    admin.send("SET other 1\r\nDEL other\r\nMULTI\r\nXADD s 2-1 f v\r\nXDEL s 2-1\r\nEXEC");
    assert_eq!(admin.lines(9), "+OK :1 +OK +QUEUED +QUEUED *2 $3 2-1 :1");
    assert_eq!(server.shared().blocked_clients.count(), 4);
    admin.send("XADD s 3-1 f v");
    assert_eq!(admin.lines(2), "$3 3-1");
    let reply = "*1 *2 $1 s *1 *2 $3 3-1 *2 $1 f $1 v";
    assert_eq!(
        (a.lines(ENTRY_LINES), b.lines(ENTRY_LINES), bob.lines(ENTRY_LINES)),
        (reply.into(), reply.into(), reply.into())
    );
    assert_eq!(server.shared().blocked_clients.count(), 1);
    admin.send("XADD s 3-2 f v");
    assert_eq!(admin.lines(2), "$3 3-2");
    assert_eq!(alice.lines(ENTRY_LINES), reply.replace("3-1", "3-2"));
    server.assert_none_blocked();
    assert_eq!(a.ask("XREAD BLOCK 1 STREAMS s $"), "*-1");
    assert_eq!(a.ask("XREADGROUP GROUP g bob BLOCK 1 STREAMS s >"), "*-1");
}

#[test]
fn blocked_consumers_are_unblocked_when_their_group_is_deleted() {
    let server = TestServer::new();
    let (mut admin, mut a, mut b, mut reader) =
        (server.tcp(), server.tcp(), server.unix(), server.tcp());
    let no_group = "-NOGROUP No such key 's' or consumer group 'g' in XREADGROUP with GROUP option";
    let wrong_type = "-WRONGTYPE Operation against a key holding the wrong kind of value";
    for (end, error) in [
        ("DEL s", no_group),
        ("SET s string", wrong_type),
        ("RENAME s t", no_group),
        ("FLUSHALL", no_group),
        ("XGROUP DESTROY s g", no_group),
    ] {
        assert_eq!(admin.ask("FLUSHALL"), "+OK");
        assert_eq!(admin.ask("XGROUP CREATE s g $ MKSTREAM"), "+OK");
        assert_eq!(admin.ask("XGROUP CREATE s kept $"), "+OK");
        server.block(&mut a, "XREADGROUP GROUP g a BLOCK 0 STREAMS s >");
        server.block(&mut b, "XREADGROUP GROUP g b BLOCK 0 STREAMS s >");
        server.block(&mut reader, "XREAD BLOCK 0 STREAMS s $");
        admin.ask(end);
        assert_eq!((a.line(), b.line()), (error.into(), error.into()), "{end}");
        assert_eq!(server.shared().blocked_clients.count(), 1, "{end}");
        assert_eq!(admin.ask("DEL s").len(), 2);
        admin.send("XADD s 1-1 f v");
        assert_eq!(admin.lines(2), "$3 1-1");
        assert_eq!(reader.lines(ENTRY_LINES), "*1 *2 $1 s *1 *2 $3 1-1 *2 $1 f $1 v");
    }
    server.assert_none_blocked();
    // Each failure of a blocked command counts, as one of `a` and one of `b`.
    assert_eq!(server.shared().telemetry.errors(), [("NOGROUP", 8), ("WRONGTYPE", 2)]);
}

/// With several producers and blocked consumers, each entry goes to exactly one consumer.
#[test]
fn each_entry_goes_to_exactly_one_of_many_consumers() {
    const ENTRIES: usize = 400;
    let server = TestServer::new();
    let mut admin = server.tcp();
    assert_eq!(admin.ask("XGROUP CREATE s g 0 MKSTREAM"), "+OK");
    std::thread::scope(|scope| {
        let consumers: Vec<_> = (0..4)
            .map(|consumer| {
                let mut client = server.tcp();
                let line = format!("XREADGROUP GROUP g c{consumer} COUNT 1 BLOCK 0 STREAMS s >");
                scope.spawn(move || {
                    let mut values = Vec::new();
                    loop {
                        client.send(&line);
                        client.lines(ENTRY_LINES - 1);
                        match client.line().as_str() {
                            "end" => return values,
                            value => values.push(value.to_owned()),
                        }
                    }
                })
            })
            .collect();
        let adders: Vec<_> = (0..2)
            .map(|adder| {
                let mut client = server.unix();
                scope.spawn(move || {
                    for n in 0..ENTRIES {
                        client.send(&format!("XADD s * f {adder}-{n:03}"));
                        assert!(client.line().starts_with('$'));
                        client.line();
                    }
                })
            })
            .collect();
        adders.into_iter().for_each(|adder| adder.join().unwrap());
        for _ in 0..4 {
            admin.send("XADD s * f end");
            admin.lines(2);
        }
        let mut values: Vec<String> =
            consumers.into_iter().flat_map(|consumer| consumer.join().unwrap()).collect();
        values.sort();
        let added = (0..2).flat_map(|adder| (0..ENTRIES).map(move |n| format!("{adder}-{n:03}")));
        assert_eq!(values, added.collect::<Vec<_>>());
    });
    server.assert_none_blocked();
    assert_eq!(admin.ask("XPENDING s g"), "*4");
    assert_eq!(admin.line(), format!(":{}", 2 * ENTRIES + 4));
    server.shared().keyspace.verify(1).unwrap();
}
