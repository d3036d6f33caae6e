//! LCS: the longest common subsequence of two values.
//!
//! Dynamic programming over a matrix of lengths, of which only one row is kept. The backtrack needs
//! one bit per cell: whether the path goes up (the first value gets shorter) or left. In cells with
//! equal bytes the path is diagonal; these are found by comparing the values again.

use std::ops::RangeInclusive;

use crate::commands::call::Call;
use crate::commands::error_reply::{CommandResult, ErrorReply};
use crate::keyspace::Entry;
use cowherd_resp::ReplyWriter;

const NOT_STRINGS: ErrorReply =
    ErrorReply::new("ERR The specified keys must contain string values");
const LEN_AND_IDX: ErrorReply =
    ErrorReply::new("ERR If you want both the length and indexes, please just use IDX.");
const TOO_LARGE: ErrorReply =
    ErrorReply::new("ERR Insufficient memory, transient memory for LCS exceeds proto-max-bulk-len");
/// Bytes of a cell in Redis, by which the size limit is counted.
const CELL: u64 = 4;

#[derive(Default)]
struct LcsOptions {
    len: bool,
    idx: bool,
    with_match_len: bool,
    min_match_len: usize,
}

impl LcsOptions {
    fn parse(call: &Call<'_>) -> Result<Self, ErrorReply> {
        let mut options = Self::default();
        let mut i = 3;
        while i < call.args.len() {
            if call.is(i, "idx") {
                options.idx = true;
            } else if call.is(i, "len") {
                options.len = true;
            } else if call.is(i, "withmatchlen") {
                options.with_match_len = true;
            } else if call.is(i, "minmatchlen") && i + 1 < call.args.len() {
                i += 1;
                options.min_match_len = usize::try_from(call.integer(i)?).unwrap_or(0);
            } else {
                return Err(ErrorReply::SYNTAX);
            }
            i += 1;
        }
        if options.idx && options.len { Err(LEN_AND_IDX) } else { Ok(options) }
    }
}

pub(super) fn lcs(call: &mut Call<'_>) -> CommandResult {
    let db = call.session.db;
    let keys = [call.key(1), call.key(2)];
    let entries = keys.map(|key| call.shards.lookup_read(db, &key));
    let mut numbers = [itoa::Buffer::new(), itoa::Buffer::new()];
    let [number_a, number_b] = &mut numbers;
    let shards = &call.shards;
    let value = |entry: &Option<Entry>| match entry {
        None => Ok(None),
        Some(entry) => shards.string(entry).map(Some).map_err(|_| NOT_STRINGS),
    };
    let (a, b) = (value(&entries[0])?, value(&entries[1])?);
    let options = LcsOptions::parse(call)?;
    let a = a.map_or(&[][..], |value| value.bytes(number_a));
    let b = b.map_or(&[][..], |value| value.bytes(number_b));
    let cells = (a.len() as u64 + 1) * (b.len() as u64 + 1);
    if cells * CELL > call.config.proto_max_bulk_len {
        return Err(TOO_LARGE);
    }
    if options.len {
        call.reply.integer(length(a, b, |_, _| {}).into());
        return Ok(());
    }
    let table = LcsMatrix::new(a, b);
    if options.idx {
        show_matches(call.reply, &table, &options);
    } else {
        let mut common = Vec::with_capacity(table.len as usize);
        table.runs(|run| common.extend(a[run.in_a()].iter().rev()));
        common.reverse();
        call.reply.bulk(&common);
    }
    Ok(())
}

fn show_matches(reply: &mut ReplyWriter, table: &LcsMatrix<'_>, options: &LcsOptions) {
    reply.map(2);
    reply.bulk_str("matches");
    let matches = reply.deferred_array();
    let mut count = 0;
    table.runs(|run| {
        if run.len < options.min_match_len {
            return;
        }
        count += 1;
        reply.array(if options.with_match_len { 3 } else { 2 });
        for range in [run.in_a(), run.in_b()] {
            reply.array(2);
            reply.integer(*range.start() as i64);
            reply.integer(*range.end() as i64);
        }
        if options.with_match_len {
            reply.integer(run.len as i64);
        }
    });
    reply.set_array_len(matches, count);
    reply.bulk_str("len");
    reply.integer(table.len.into());
}

/// The length of the longest common subsequence. Calls `up` with the row and the column of each
/// cell from which the path goes up.
fn length(a: &[u8], b: &[u8], mut up: impl FnMut(usize, usize)) -> u32 {
    // Holds the previous row, and up to the current column this one.
    let mut row = vec![0u32; b.len() + 1];
    for (i, byte) in a.iter().enumerate() {
        let (mut diagonal, mut left) = (0, 0);
        for (j, other) in b.iter().enumerate() {
            let above = row[j + 1];
            if byte == other {
                left = diagonal + 1;
            } else if above > left {
                left = above;
                up(i, j);
            }
            diagonal = above;
            row[j + 1] = left;
        }
    }
    row[b.len()]
}

/// The directions of the path, a bit per cell.
struct LcsMatrix<'v> {
    a: &'v [u8],
    b: &'v [u8],
    up: Vec<u64>,
    len: u32,
}

/// A run of equal bytes in both values.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
struct CommonRun {
    a: usize,
    b: usize,
    len: usize,
}

impl CommonRun {
    const fn in_a(&self) -> RangeInclusive<usize> {
        self.a..=self.a + self.len - 1
    }

    const fn in_b(&self) -> RangeInclusive<usize> {
        self.b..=self.b + self.len - 1
    }
}

impl<'v> LcsMatrix<'v> {
    fn new(a: &'v [u8], b: &'v [u8]) -> Self {
        let mut up = vec![0u64; (a.len() * b.len()).div_ceil(64)];
        let len = length(a, b, |i, j| {
            let cell = i * b.len() + j;
            up[cell / 64] |= 1 << (cell % 64);
        });
        Self { a, b, up, len }
    }

    fn goes_up(&self, i: usize, j: usize) -> bool {
        let cell = i * self.b.len() + j;
        self.up[cell / 64] >> (cell % 64) & 1 == 1
    }

    /// Calls `each` with all runs, the last one first.
    fn runs(&self, mut each: impl FnMut(CommonRun)) {
        let (mut i, mut j) = (self.a.len(), self.b.len());
        while i > 0 && j > 0 {
            let mut len = 0;
            while i > 0 && j > 0 && self.a[i - 1] == self.b[j - 1] {
                (i, j, len) = (i - 1, j - 1, len + 1);
            }
            if len > 0 {
                each(CommonRun { a: i, b: j, len });
            } else if self.goes_up(i - 1, j - 1) {
                i -= 1;
            } else {
                j -= 1;
            }
        }
    }
}
