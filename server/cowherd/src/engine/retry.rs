//! Runs a command again, under locks that are held already, after the arena had no memory for it.

use crate::commands::{Call, CommandResult, Effect, ErrorReply};
use crate::keyspace::{EvictionScope, Reclaimer};

/// Evicts under the locks of `call`, and runs the command again until it succeeds or no key is left
/// that may be evicted. The command has changed nothing. Keys of the hashes in `spared`, which are
/// in ascending order, are not evicted.
#[cold]
pub(super) fn retry_under_locks(
    call: &mut Call<'_>,
    reclaimer: &mut Reclaimer,
    spared: &[u64],
) -> CommandResult {
    let (shared, config, start) = (call.shared, call.config, call.reply.len());
    let set = call.row.command.shards(&shared.keyspace, &call.args, call.first_hash);
    let bytes = call.args.iter().map(<[u8]>::len).sum();
    let mut attempt = 0;
    loop {
        let mut scope = EvictionScope::Within { shards: &mut call.shards, spared };
        if !reclaimer.reclaim_for(config, &mut scope, set, bytes, &mut attempt) {
            return Err(ErrorReply::OUT_OF_MEMORY);
        }
        call.effect = Effect::None;
        call.reply.out.truncate(start);
        let answer = (call.row.command.handler)(call);
        if answer != Err(ErrorReply::OUT_OF_MEMORY) {
            return answer;
        }
    }
}
