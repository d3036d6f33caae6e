//! Counters of error replies by their first word: ERR, WRONGTYPE, OOM and so on.
//!
//! All threads share the list of words, which only grows; each thread has its own counters. When
//! the list is full, one counter counts the errors of all further words.

use std::sync::OnceLock;

use parking_lot::Mutex;

/// The most words with a counter of their own. Bounded, since scripts may reply with any word.
pub(super) const PREFIXES: usize = 128;
/// Counters of each thread: one per word and one for the rest.
pub(super) const COUNTERS: usize = PREFIXES + 1;
/// A longer first word is no error code.
const LONGEST: usize = 32;

/// The first words of the error replies so far.
#[derive(Debug)]
pub(super) struct ErrorPrefixes {
    words: [OnceLock<Box<str>>; PREFIXES],
    /// Held while a word is added, so that two threads do not add the same word.
    adding: Mutex<()>,
}

impl Default for ErrorPrefixes {
    fn default() -> Self {
        Self { words: [const { OnceLock::new() }; PREFIXES], adding: Mutex::new(()) }
    }
}

impl ErrorPrefixes {
    /// The counter of an error reply, given as its text with or without the leading minus.
    pub(super) fn counter_of(&self, reply: &[u8]) -> usize {
        let word = first_word(reply);
        self.find(word).unwrap_or_else(|| self.add(word))
    }

    fn find(&self, word: &str) -> Option<usize> {
        let known = self.words.iter().map_while(OnceLock::get);
        known.into_iter().position(|known| **known == *word)
    }

    #[cold]
    fn add(&self, word: &str) -> usize {
        let _alone = self.adding.lock();
        if let Some(counter) = self.find(word) {
            return counter;
        }
        let free = self.words.iter().position(|known| known.get().is_none());
        free.filter(|free| self.words[*free].set(word.into()).is_ok()).unwrap_or(PREFIXES)
    }

    /// The words with their counters.
    pub(super) fn iter(&self) -> impl Iterator<Item = (usize, &str)> {
        self.words.iter().map_while(OnceLock::get).map(|word| &**word).enumerate()
    }
}

/// The first word of an error reply; ERR when that is no error code.
fn first_word(reply: &[u8]) -> &str {
    let text = reply.strip_prefix(b"-").unwrap_or(reply);
    let end = text.iter().position(|byte| byte.is_ascii_whitespace()).unwrap_or(text.len());
    let word = &text[..end];
    let fits = (1..=LONGEST).contains(&word.len())
        && word.iter().all(|byte| byte.is_ascii_alphanumeric() || *byte == b'_');
    std::str::from_utf8(word).ok().filter(|_| fits).unwrap_or("ERR")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_first_word_is_the_code() {
        assert_eq!(first_word(b"-WRONGTYPE Operation against a key"), "WRONGTYPE");
        assert_eq!(first_word(b"OOM command not allowed"), "OOM");
        assert_eq!(first_word(b"-NOAUTH\r\n"), "NOAUTH");
        for odd in [&b""[..], b"-", b" x", b"-a:b c", b"-\xff\xff x", &[b'A'; 33]] {
            assert_eq!(first_word(odd), "ERR", "{odd:?}");
        }
    }

    #[test]
    fn words_keep_their_counters_and_are_bounded() {
        let prefixes = ErrorPrefixes::default();
        for number in 0..PREFIXES {
            assert_eq!(prefixes.counter_of(format!("E{number} x").as_bytes()), number);
        }
        assert_eq!(prefixes.counter_of(b"NEW x"), PREFIXES);
        assert_eq!(prefixes.counter_of(b"-E77 again"), 77);
        assert_eq!(prefixes.iter().count(), PREFIXES);
        assert!(prefixes.iter().any(|found| found == (77, "E77")));
    }

    #[test]
    fn threads_agree_on_counters() {
        let prefixes = ErrorPrefixes::default();
        let ask = || (0..100).map(|n| prefixes.counter_of(format!("W{n}").as_bytes())).collect();
        let answers: Vec<Vec<usize>> = std::thread::scope(|scope| {
            let threads: Vec<_> = (0..4).map(|_| scope.spawn(ask)).collect();
            threads.into_iter().map(|thread| thread.join().unwrap()).collect()
        });
        assert!(answers.iter().all(|answer| *answer == answers[0]));
        assert_eq!(prefixes.iter().count(), 100);
    }
}
