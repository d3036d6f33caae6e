use std::sync::Arc;

use super::*;
use crate::commands::testing::TestServer;
use crate::config::OutputLimits;

/// How a wait ends.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum WaitEnd {
    Timeout,
    Unblock,
    Disconnect,
}

/// Each end of a wait removes the entry, which is the only owner of the client besides the registry
/// and the session.
#[test]
fn an_ended_wait_leaves_no_entry() {
    for end in [WaitEnd::Timeout, WaitEnd::Unblock, WaitEnd::Disconnect] {
        let server = TestServer::new();
        let client = server.shared.clients.list().remove(0);
        let owners = Arc::strong_count(&client);
        assert_eq!(server.run("TEST.TAKE a b a 0"), "", "{end:?}");
        assert_eq!(server.effect.take(), Effect::Block, "{end:?}");
        let (blocked, keyspace) = (&server.shared.blocked_clients, &server.shared.keyspace);
        let sequence = client.blocked_sequence().unwrap();
        assert_eq!((blocked.count(), blocked.keys()), (1, 2), "{end:?}");
        assert_eq!(Arc::strong_count(&client), owners + 1, "{end:?}");

        let limits = OutputLimits::default();
        let expected = match end {
            WaitEnd::Timeout => {
                assert!(blocked.time_out(sequence, keyspace, &limits));
                &b"*-1\r\n"[..]
            }
            WaitEnd::Unblock => {
                assert!(blocked.unblock(sequence, keyspace, &limits, |_, _| {}));
                b"-UNBLOCKED client unblocked via CLIENT UNBLOCK\r\n"
            }
            WaitEnd::Disconnect => {
                blocked.cancel(sequence, keyspace);
                b""
            }
        };
        let mut output = Vec::new();
        client.drain_output(&mut output);
        assert_eq!(output, expected, "{end:?}");
        assert_eq!((blocked.count(), blocked.keys()), (0, 0), "{end:?}");
        assert_eq!(client.blocked_sequence(), None, "{end:?}");
        assert_eq!(Arc::strong_count(&client), owners, "{end:?}");
        assert!(!blocked.time_out(sequence, keyspace, &limits), "{end:?}");
    }
}
