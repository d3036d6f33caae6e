//! Compaction: directory and segments that move.

use crate::{Mem, Offset};

use super::segment::Segment;
use super::{Dict, DictCursor, directory_entry};

impl Dict {
    /// Moves the directory, and the segments that a scan visits from `cursor` on before it comes to
    /// the next prefix, out of places that are to be emptied.
    ///
    /// The items stay where they are: see [`Dict::replace`] for items that move.
    pub fn relocate_segments(self, mem: &mut Mem<'_>, cursor: DictCursor) {
        let mut root = self.root(mem);
        if root.directory == 0 {
            return;
        }
        if root.depth == 0 {
            let segment = Segment::load(mem, root.directory);
            if let Some(to) = mem.relocate(segment.at, segment.size()) {
                root.directory = to;
                mem.write(self.root, root);
            }
            return;
        }
        if let Some(to) = mem.relocate(root.directory, 8 << root.depth) {
            root.directory = to;
            mem.write(self.root, root);
        }
        let entries = cursor.entries(root.depth);
        let mut entry = entries.start;
        while entry < entries.end {
            let segment = Segment::load(mem, directory_entry(mem, &root, entry));
            let span = 1 << (root.depth - segment.depth);
            let first = entry & !(span - 1);
            if let Some(to) = mem.relocate(segment.at, segment.size()) {
                for index in first..first + span {
                    mem.write(Offset::new(root.directory + index * 8), to);
                }
            }
            entry = first + span;
        }
    }
}
