//! Differences from all other servers that stay, with their reasons.

use super::syntax::Request;

/// Whether our reply to a request may differ from those of all other servers.
pub fn is_allowed(_request: &Request, reply: &[u8]) -> bool {
    // As in Redis 7.4; later versions name the ID + too.
    reply.starts_with(b"*1\r\n-ERR Unbalanced 'xread' list of streams")
}
