//! One instant for all groups: an image is one cut of the whole history.
//!
//! For each group alone, the checker finds the stretches of time in which the content of an image
//! was current. The groups have no request in common, so an instant that lies in a stretch of every
//! group explains the whole image, and without such an instant nothing does.
//!
//! ```text
//!   BGSAVE       |-----------------------------|
//!   strings           |--|      |-------|
//!   lists          |-----|
//!   hashes                      |--|             no instant in common: two cuts
//! ```

use crate::history::Tick;
use std::fmt::Write as _;

/// The stretches of time in which one group allows the cut.
#[derive(Clone, Debug)]
pub struct Allowed<'g> {
    pub group: &'g str,
    pub stretches: Vec<(Tick, Tick)>,
}

/// The stretches that all groups allow.
fn common(groups: &[Allowed<'_>]) -> Vec<(Tick, Tick)> {
    let mut left = vec![(0, Tick::MAX)];
    for group in groups {
        let meet = |(from, to): (Tick, Tick)| {
            let each = group.stretches.iter().map(move |(f, t)| (from.max(*f), to.min(*t)));
            each.filter(|(from, to)| from < to)
        };
        left = left.into_iter().flat_map(meet).collect();
    }
    left
}

/// An instant that all groups allow.
///
/// # Errors
/// What each group allows, if there is none.
pub fn one_instant(groups: &[Allowed<'_>]) -> Result<Tick, String> {
    if let Some((from, _)) = common(groups).first() {
        return Ok(*from);
    }
    let mut text = "no instant explains what all groups hold:\n".to_owned();
    for Allowed { group, stretches } in groups {
        let _ = writeln!(text, "  {group}: {stretches:?}");
    }
    Err(text)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn allowed(group: &'static str, stretches: &[(Tick, Tick)]) -> Allowed<'static> {
        Allowed { group, stretches: stretches.to_vec() }
    }

    #[test]
    fn groups_agree_on_an_instant_or_not() {
        let strings = allowed("strings", &[(10, 20), (40, 60)]);
        let lists = allowed("lists", &[(15, 45)]);
        let hashes = allowed("hashes", &[(42, 50)]);
        assert_eq!(one_instant(&[strings.clone(), lists.clone()]), Ok(15));
        assert_eq!(one_instant(&[strings.clone(), lists, hashes.clone()]), Ok(42));
        // The second begins where the first ends: what lies between is an event.
        assert!(one_instant(&[allowed("sets", &[(20, 40)]), strings]).is_err());
        assert!(one_instant(&[hashes, allowed("sets", &[])]).is_err());
    }
}
