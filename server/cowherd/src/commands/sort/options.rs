//! The options of SORT.

use std::ops::Range;

use crate::commands::call::Call;
use crate::commands::error_reply::ErrorReply;

use cowherd_resp::Args;

use super::SortOrder;

pub(super) struct SortOptions<'c> {
    by: Option<&'c [u8]>,
    /// Whether any BY has a pattern without a star, also one before the last.
    is_unsorted: bool,
    /// GET: the patterns to return for each element; if empty, the element itself.
    pub gets: Vec<&'c [u8]>,
    limit: Option<(i64, i64)>,
    pub desc: bool,
    alpha: bool,
    /// STORE: the destination key.
    pub store: Option<&'c [u8]>,
}

impl<'c> SortOptions<'c> {
    /// The options from argument 2 on. `may_store`: STORE is allowed.
    pub fn parse(call: &Call<'c>, may_store: bool) -> Result<Self, ErrorReply> {
        let mut options = Self {
            by: None,
            is_unsorted: false,
            gets: Vec::new(),
            limit: None,
            desc: false,
            alpha: false,
            store: None,
        };
        let (args, mut i) = (call.args, 2);
        while i < args.len() {
            let behind = args.len() - i - 1;
            if call.is(i, "asc") {
                options.desc = false;
            } else if call.is(i, "desc") {
                options.desc = true;
            } else if call.is(i, "alpha") {
                options.alpha = true;
            } else if call.is(i, "limit") && behind >= 2 {
                options.limit = Some((call.integer(i + 1)?, call.integer(i + 2)?));
                i += 2;
            } else if may_store && call.is(i, "store") && behind >= 1 {
                options.store = Some(args.at(i + 1));
                i += 1;
            } else if call.is(i, "by") && behind >= 1 {
                options.by = Some(args.at(i + 1));
                options.is_unsorted |= !args.at(i + 1).contains(&b'*');
                i += 1;
            } else if call.is(i, "get") && behind >= 1 {
                options.gets.push(args.at(i + 1));
                i += 1;
            } else {
                return Err(ErrorReply::SYNTAX);
            }
            i += 1;
        }
        Ok(options)
    }

    /// The index of the destination key among the arguments of SORT. A request need not be valid.
    pub fn store_index(args: &Args<'_>) -> Option<usize> {
        let (mut found, mut i) = (None, 2);
        while let Some(word) = args.get(i) {
            let is = |option: &[u8]| word.eq_ignore_ascii_case(option);
            if is(b"store") && i + 1 < args.len() {
                found = Some(i + 1);
            }
            i += match () {
                () if is(b"limit") => 3,
                () if is(b"store") || is(b"by") || is(b"get") => 2,
                () => 1,
            };
        }
        found
    }

    /// The order of the elements.
    pub fn order(&self) -> SortOrder<'c> {
        let alpha = self.alpha;
        match self.by {
            _ if self.is_unsorted => SortOrder::Native,
            None => SortOrder::Own { alpha },
            Some(pattern) => SortOrder::By { pattern, alpha },
        }
    }

    /// The indexes of the elements within LIMIT.
    pub fn range(&self, len: usize) -> Range<usize> {
        let Some((start, count)) = self.limit else { return 0..len };
        let start = usize::try_from(start).unwrap_or(0).min(len);
        // A negative count means all.
        let count = usize::try_from(count).unwrap_or(len).min(len - start);
        start..start + count
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn limit_is_clamped_to_the_length() {
        let range = |limit| {
            let options = SortOptions {
                by: None,
                is_unsorted: false,
                gets: Vec::new(),
                limit: Some(limit),
                desc: false,
                alpha: false,
                store: None,
            };
            options.range(5)
        };
        assert_eq!(range((0, 2)), 0..2);
        assert_eq!(range((3, 9)), 3..5);
        assert_eq!(range((-4, 2)), 0..2);
        assert_eq!(range((2, -1)), 2..5);
        assert_eq!(range((9, 1)), 5..5);
        assert_eq!(range((0, 0)), 0..0);
        assert_eq!(range((i64::MAX, i64::MAX)), 5..5);
    }
}
