//! What a run has exercised, so that a test which exercises nothing fails.

use crate::history::{Operation, Request};
use crate::reply::{Reply, word};
use std::collections::BTreeMap;
use std::ops::AddAssign;
use std::time::Duration;

#[derive(Clone, Debug, Default)]
pub struct RunCounts {
    pub operations: usize,
    /// Replies that came while another operation of the same group was pending.
    pub overlaps: usize,
    /// The largest number of configurations of a checker.
    pub configurations: usize,
    /// Time that the checkers took.
    pub checking: Duration,
    pub images: usize,
    pub scans: usize,
    pub restarts: usize,
    /// Some history has an explanation only if keys were evicted.
    pub evicted: bool,
    /// Blocking commands that returned an element.
    pub served: usize,
    /// Transactions that a watched key aborted.
    pub aborted: usize,
    /// Scripts that returned their replies.
    pub scripts: usize,
    /// Commands refused for want of memory.
    pub out_of_memory: usize,
    /// Replies that were neither nil nor errors, by command.
    pub commands: BTreeMap<String, usize>,
}

impl RunCounts {
    pub fn add(&mut self, operation: &Operation) {
        self.operations += 1;
        let Some((_, reply)) = &operation.answer else { return };
        match (&operation.request, reply) {
            (Request::Command(_), reply) => self.add_command(operation, 0, reply),
            (Request::Transaction(_) | Request::Script(_), Reply::Array(replies)) => {
                self.scripts += usize::from(matches!(operation.request, Request::Script(_)));
                for (number, reply) in replies.iter().enumerate() {
                    self.add_command(operation, number, reply);
                }
            }
            (Request::Transaction(_) | Request::Script(_), reply) => {
                self.aborted += usize::from(*reply == Reply::Nil);
                self.out_of_memory += usize::from(reply.is_error());
            }
        }
    }

    fn add_command(&mut self, operation: &Operation, number: usize, reply: &Reply) {
        let words = &operation.request.commands()[number];
        self.out_of_memory += usize::from(reply.is_out_of_memory());
        if reply.is_error() || *reply == Reply::Nil {
            return;
        }
        let name = String::from_utf8_lossy(&words[0]).into_owned();
        let blocks = name.starts_with('B') || words.contains(&word("BLOCK"));
        self.served += usize::from(blocks);
        *self.commands.entry(name).or_default() += 1;
    }
}

impl AddAssign for RunCounts {
    fn add_assign(&mut self, more: Self) {
        self.operations += more.operations;
        self.overlaps += more.overlaps;
        self.configurations = self.configurations.max(more.configurations);
        self.checking += more.checking;
        self.images += more.images;
        self.scans += more.scans;
        self.restarts += more.restarts;
        self.evicted |= more.evicted;
        self.served += more.served;
        self.aborted += more.aborted;
        self.scripts += more.scripts;
        self.out_of_memory += more.out_of_memory;
        for (name, count) in more.commands {
            *self.commands.entry(name).or_default() += count;
        }
    }
}
