//! What the functions of the table `redis` reach while a script runs: the host, and the buffers of
//! the command that the script calls.

use std::cell::{Cell, RefCell};

use cowherd_resp::{ArgSpan, Args, ProtocolVersion, ReplyWriter};
use mlua::Lua;

use super::RegisteredFunction;
use super::random::Random48;
use crate::stack::protected::HostCell;

/// The state of one interpreter beside Lua's own.
pub(crate) struct Slot {
    /// The state itself, for its memory limit.
    lua: Lua,
    pub host: HostCell,
    /// Why the script that runs was ended.
    pub refusal: Cell<Option<&'static str>>,
    /// Tables that the reply of the script has had so far.
    pub written_tables: Cell<u32>,
    /// Limit of the state's memory in bytes; 0: none.
    pub memory_limit: Cell<usize>,
    /// Whether `KEYS` and `ARGV` can be filled.
    pub arguments_are_empty: Cell<bool>,
    /// Whether a script has called `collectgarbage`, which may have stopped the collector.
    pub collector_is_changed: Cell<bool>,
    /// The pause of the collector as it was set last, in percent.
    pub collector_pause: Cell<i32>,
    pub args: RefCell<CallArgs>,
    /// The reply of the command that was called last.
    pub reply: RefCell<ReplyWriter>,
    /// The protocol version in which the script wants replies; see `redis.setresp`.
    pub version: Cell<ProtocolVersion>,
    pub random: RefCell<Random48>,
    /// The functions that the library which is being loaded has registered.
    pub registered: RefCell<Option<Vec<RegisteredFunction>>>,
}

/// The arguments of a command, in one buffer.
#[derive(Default)]
pub(crate) struct CallArgs {
    bytes: Vec<u8>,
    spans: Vec<ArgSpan>,
}

impl CallArgs {
    pub fn clear(&mut self) {
        /// The buffer keeps so many bytes.
        const KEPT: usize = 64 << 10;
        if self.bytes.capacity() > KEPT {
            self.bytes = Vec::new();
        }
        self.bytes.clear();
        self.spans.clear();
    }

    pub fn push(&mut self, bytes: &[u8]) {
        self.spans.push(ArgSpan { start: self.bytes.len(), len: bytes.len() });
        self.bytes.extend_from_slice(bytes);
    }

    pub fn args(&self) -> Args<'_> {
        Args::new(&self.bytes, &self.spans)
    }
}

impl Slot {
    /// Calls `act` while the memory of the state has no limit: where Lua could not handle its
    /// error.
    pub fn without_limit(&self, act: impl FnOnce()) {
        self.lua.set_memory_limit(0).ok();
        act();
        self.lua.set_memory_limit(self.memory_limit.get()).ok();
    }

    /// The bytes of the last reply, without a guard; see `redis_table`.
    pub fn last_reply(&self) -> &[u8] {
        crate::stack::protected::unguarded(&self.reply, |reply| &reply.out)
    }

    pub fn new(lua: Lua) -> Self {
        Self {
            lua,
            host: HostCell::default(),
            refusal: Cell::new(None),
            written_tables: Cell::new(0),
            memory_limit: Cell::new(0),
            arguments_are_empty: Cell::new(true),
            collector_is_changed: Cell::new(true),
            collector_pause: Cell::new(0),
            args: RefCell::default(),
            reply: RefCell::new(ReplyWriter::new(ProtocolVersion::Resp2)),
            version: Cell::new(ProtocolVersion::Resp2),
            random: RefCell::new(Random48::new()),
            registered: RefCell::new(None),
        }
    }
}
