//! CLIENT KILL, by an address alone or by filters.

use crate::clients::Client;
use crate::commands::call::{Call, Effect};
use crate::commands::error_reply::{CommandResult, ErrorReply};
use cowherd_resp::parse_i64;

use super::list::ClientType;

/// The filters of CLIENT KILL. A connection is closed if it passes all that are set.
struct KillFilter<'c> {
    id: Option<u64>,
    address: Option<&'c [u8]>,
    local: Option<&'c [u8]>,
    kind: Option<ClientType>,
    /// Least age in seconds; 0 for any.
    age: i64,
    skip_own: bool,
}

/// `CLIENT KILL address` or `CLIENT KILL filter value ...`
pub(super) fn kill(call: &mut Call<'_>) -> CommandResult {
    if call.args.len() == 3 {
        return kill_address(call);
    }
    let filter = KillFilter::parse(call)?;
    let own = call.session.client.id;
    let mut killed = 0;
    for client in call.shared.clients.list() {
        if filter.passes(&client, own, call.now) {
            close(call, &client);
            killed += 1;
        }
    }
    call.reply.integer(killed);
    Ok(())
}

/// The old form, `CLIENT KILL address`.
fn kill_address(call: &mut Call<'_>) -> CommandResult {
    let address = call.args.at(2);
    let all = call.shared.clients.list();
    let found = all.iter().find(|client| client.peer.as_bytes() == address && !client.is_killed());
    let client = found.ok_or(ErrorReply::new("ERR No such client"))?;
    close(call, client);
    call.reply.ok();
    Ok(())
}

/// Closes a connection; the own one after the reply.
fn close(call: &mut Call<'_>, client: &Client) {
    if client.id == call.session.client.id {
        call.effect = Effect::Close;
    } else {
        client.kill();
    }
}

impl<'c> KillFilter<'c> {
    fn parse(call: &Call<'c>) -> Result<Self, ErrorReply> {
        let mut filter =
            Self { id: None, address: None, local: None, kind: None, age: 0, skip_own: true };
        let args = call.args;
        let mut i = 2;
        while i < args.len() {
            let value = args.get(i + 1).ok_or(ErrorReply::SYNTAX)?;
            if call.is(i, "id") {
                const BAD: ErrorReply = ErrorReply::new("ERR client-id should be greater than 0");
                let id = parse_i64(value).filter(|id| *id > 0).ok_or(BAD)?;
                filter.id = Some(id.unsigned_abs());
            } else if call.is(i, "maxage") {
                const NO_NUMBER: ErrorReply =
                    ErrorReply::new("ERR maxage is not an integer or out of range");
                const BAD: ErrorReply = ErrorReply::new("ERR maxage should be greater than 0");
                let age = parse_i64(value).ok_or(NO_NUMBER)?;
                filter.age = Some(age).filter(|age| *age > 0).ok_or(BAD)?;
            } else if call.is(i, "type") {
                filter.kind = Some(ClientType::parse(value)?);
            } else if call.is(i, "addr") {
                filter.address = Some(value);
            } else if call.is(i, "laddr") {
                filter.local = Some(value);
            } else if call.is(i, "user") {
                if value != b"default" {
                    return Err(ErrorReply::quoting(&[b"ERR No such user '", value, b"'"]));
                }
            } else if call.is(i, "skipme") {
                filter.skip_own = match () {
                    () if call.is(i + 1, "yes") => true,
                    () if call.is(i + 1, "no") => false,
                    () => return Err(ErrorReply::SYNTAX),
                };
            } else {
                return Err(ErrorReply::SYNTAX);
            }
            i += 2;
        }
        Ok(filter)
    }

    fn passes(&self, client: &Client, own: u64, now: i64) -> bool {
        let lasted = now.saturating_sub(client.connected_at) / 1000;
        self.kind.is_none_or(|kind| kind.matches(client))
            && self.id.is_none_or(|id| client.id == id)
            && self.address.is_none_or(|address| client.peer.as_bytes() == address)
            && self.local.is_none_or(|local| client.local.as_bytes() == local)
            && (self.age == 0 || lasted >= self.age)
            && !(self.skip_own && client.id == own)
            && !client.is_killed()
    }
}
