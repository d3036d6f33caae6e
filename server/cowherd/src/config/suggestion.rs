//! The known name nearest to a misspelt one, by Levenshtein distance (two rows).

/// Longer words get no suggestion, which bounds the work.
const LONGEST: usize = 64;

/// The candidate with the least distance to `word`, if at most a third of the letters differ.
pub(super) fn nearest(
    word: &str,
    candidates: impl Iterator<Item = &'static str>,
) -> Option<&'static str> {
    if word.len() > LONGEST {
        return None;
    }
    let word = word.to_ascii_lowercase();
    let allowed = (word.len() / 3).max(1);
    candidates
        .map(|candidate| (distance(word.as_bytes(), candidate.as_bytes()), candidate))
        .filter(|(distance, _)| *distance <= allowed)
        .min_by_key(|(distance, _)| *distance)
        .map(|(_, candidate)| candidate)
}

fn distance(left: &[u8], right: &[u8]) -> usize {
    let mut above: Vec<usize> = (0..=right.len()).collect();
    for (row, from) in left.iter().enumerate() {
        let mut current = Vec::with_capacity(above.len());
        current.push(row + 1);
        for (column, to) in right.iter().enumerate() {
            let change = above[column] + usize::from(from != to);
            current.push(change.min(above[column + 1] + 1).min(current[column] + 1));
        }
        above = current;
    }
    above[right.len()]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn distances_are_those_of_the_textbook() {
        assert_eq!(distance(b"kitten", b"sitting"), 3);
        assert_eq!(distance(b"", b"abc"), 3);
        assert_eq!(distance(b"port", b"port"), 0);
    }

    #[test]
    fn only_a_close_name_is_suggested() {
        let names = || ["maxmemory", "maxmemory-policy", "port"].into_iter();
        assert_eq!(nearest("maxmemroy", names()), Some("maxmemory"));
        assert_eq!(nearest("PROT", names()), None);
        assert_eq!(nearest("ports", names()), Some("port"));
        assert_eq!(nearest("activerehashing", names()), None);
        assert_eq!(nearest(&"p".repeat(1000), names()), None);
    }
}
