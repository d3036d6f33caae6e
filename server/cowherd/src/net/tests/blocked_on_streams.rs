//! Clients that wait for entries of streams, over real sockets and on two workers.

use super::TestServer;

/// Lines of a reply with one entry of one field.
const ONE: usize = 13;

#[test]
fn all_readers_get_an_entry_and_one_consumer_does() {
    let open = TestServer::new();
    let mut admin = open.tcp();
    let (mut a, mut b, mut bob, mut alice) = (open.tcp(), open.unix(), open.tcp(), open.unix());
    assert_eq!(admin.ask("XADD s 1-1 f v"), "$3");
    assert_eq!(admin.line(), "1-1");
    assert_eq!(admin.ask("XGROUP CREATE s g $"), "+OK");
    open.block(&mut a, "XREAD BLOCK 0 STREAMS other s $ $");
    open.block(&mut b, "XREAD BLOCK 0 STREAMS s $");
    open.block(&mut bob, "XREADGROUP GROUP g bob BLOCK 0 STREAMS s >");
    open.block(&mut alice, "XREADGROUP GROUP g alice BLOCK 0 STREAMS s >");
    // Neither a value of another type nor an entry that is gone at once wakes anybody.
    admin.send("SET other 1\r\nDEL other\r\nMULTI\r\nXADD s 2-1 f v\r\nXDEL s 2-1\r\nEXEC");
    assert_eq!(admin.lines(9), "+OK :1 +OK +QUEUED +QUEUED *2 $3 2-1 :1");
    assert_eq!(open.shared().waits.clients(), 4);
    admin.send("XADD s 3-1 f v");
    assert_eq!(admin.lines(2), "$3 3-1");
    let reply = "*1 *2 $1 s *1 *2 $3 3-1 *2 $1 f $1 v";
    assert_eq!(
        (a.lines(ONE), b.lines(ONE), bob.lines(ONE)),
        (reply.into(), reply.into(), reply.into())
    );
    assert_eq!(open.shared().waits.clients(), 1);
    admin.send("XADD s 3-2 f v");
    assert_eq!(admin.lines(2), "$3 3-2");
    assert_eq!(alice.lines(ONE), reply.replace("3-1", "3-2"));
    open.idle();
    assert_eq!(a.ask("XREAD BLOCK 1 STREAMS s $"), "*-1");
    assert_eq!(a.ask("XREADGROUP GROUP g bob BLOCK 1 STREAMS s >"), "*-1");
}

#[test]
fn who_waits_for_a_group_hears_of_its_end() {
    let open = TestServer::new();
    let (mut admin, mut a, mut b, mut reader) = (open.tcp(), open.tcp(), open.unix(), open.tcp());
    let gone = "-UNBLOCKED the stream key no longer exists";
    let no_group = "-NOGROUP the consumer group this client was blocked on no longer exists";
    for (end, error) in [
        ("DEL s", gone),
        ("SET s string", gone),
        ("RENAME s t", gone),
        ("FLUSHALL", gone),
        ("XGROUP DESTROY s g", no_group),
    ] {
        assert_eq!(admin.ask("FLUSHALL"), "+OK");
        assert_eq!(admin.ask("XGROUP CREATE s g $ MKSTREAM"), "+OK");
        assert_eq!(admin.ask("XGROUP CREATE s kept $"), "+OK");
        open.block(&mut a, "XREADGROUP GROUP g a BLOCK 0 STREAMS s >");
        open.block(&mut b, "XREADGROUP GROUP g b BLOCK 0 STREAMS s >");
        open.block(&mut reader, "XREAD BLOCK 0 STREAMS s $");
        admin.ask(end);
        assert_eq!((a.line(), b.line()), (error.into(), error.into()), "{end}");
        assert_eq!(open.shared().waits.clients(), 1, "{end}");
        assert_eq!(admin.ask("DEL s").len(), 2);
        admin.send("XADD s 1-1 f v");
        assert_eq!(admin.lines(2), "$3 1-1");
        assert_eq!(reader.lines(ONE), "*1 *2 $1 s *1 *2 $3 1-1 *2 $1 f $1 v");
    }
    open.idle();
}

/// Consumers that wait, and entries from several sides: each goes to one of them.
#[test]
fn many_consumers_share_what_comes() {
    const ENTRIES: usize = 400;
    let open = TestServer::new();
    let mut admin = open.tcp();
    assert_eq!(admin.ask("XGROUP CREATE s g 0 MKSTREAM"), "+OK");
    std::thread::scope(|scope| {
        let consumers: Vec<_> = (0..4)
            .map(|consumer| {
                let mut talk = open.tcp();
                let line = format!("XREADGROUP GROUP g c{consumer} COUNT 1 BLOCK 0 STREAMS s >");
                scope.spawn(move || {
                    let mut values = Vec::new();
                    loop {
                        talk.send(&line);
                        talk.lines(ONE - 1);
                        match talk.line().as_str() {
                            "end" => return values,
                            value => values.push(value.to_owned()),
                        }
                    }
                })
            })
            .collect();
        let adders: Vec<_> = (0..2)
            .map(|adder| {
                let mut talk = open.unix();
                scope.spawn(move || {
                    for n in 0..ENTRIES {
                        talk.send(&format!("XADD s * f {adder}-{n:03}"));
                        assert!(talk.line().starts_with('$'));
                        talk.line();
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
    open.idle();
    assert_eq!(admin.ask("XPENDING s g"), "*4");
    assert_eq!(admin.line(), format!(":{}", 2 * ENTRIES + 4));
    open.shared().keyspace.verify(1).unwrap();
}
