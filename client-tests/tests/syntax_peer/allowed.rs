//! Differences from all newer servers that stay, with their reasons.

use super::syntax::Request;

/// Whether our reply to a request may differ from those of all newer servers.
pub fn is_allowed(request: &Request, reply: &[u8]) -> bool {
    let name = request[0].to_ascii_uppercase();
    let has_leading_blank = request.iter().any(|word| word.starts_with(b" "));
    let is_scored = name.starts_with(b"Z") || name.starts_with(b"GEO") || name.starts_with(b"SORT");
    // As in Redis 7.4; later versions name the ID + too.
    reply.starts_with(b"*1\r\n-ERR Unbalanced 'xread' list of streams")
        // As in Redis 7.4; later versions refuse blanks before a number.
        || has_leading_blank && is_scored
        // Redis changes the encoding of a list that is full before LSET and LINSERT find nothing to
        // do.
        || name == b"OBJECT" && reply == b"$8\r\nlistpack\r\n"
        // Redis cuts the index to 32 bits, so that it hits an element far from there.
        || name == b"LSET" && reply == b"-ERR index out of range\r\n"
}
