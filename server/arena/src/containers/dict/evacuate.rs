//! Compaction: directory, segments and their blocks that move.

use crate::{Mem, Offset};

use super::scan::fit;
use super::segment::Segment;
use super::{Dict, DictCursor, directory_entry};

impl Dict {
    /// Moves the directory, and the segments that a scan visits from `cursor` on before it comes to
    /// the next prefix, out of places that are to be emptied. Returns the start of that prefix;
    /// `None` behind the last one.
    ///
    /// The items stay where they are: see [`Dict::replace`] for items that move.
    pub fn evacuate_segments(
        self,
        mem: &mut Mem<'_>,
        mut cursor: DictCursor,
    ) -> Option<DictCursor> {
        let mut root = self.root(mem);
        if root.directory == 0 {
            return None;
        }
        if root.depth == 0 {
            let segment = Segment::load(mem, root.directory);
            if let Some(to) = segment.evacuate(mem) {
                root.directory = to;
                mem.write(self.root, root);
            }
            return cursor.next_prefix();
        }
        if let Some(to) = mem.evacuate(root.directory, 8 << root.depth) {
            root.directory = to;
            mem.write(self.root, root);
        }
        let mut entry = cursor.entries(root.depth).start;
        if cursor.tag == 0 {
            cursor = fit(cursor, Segment::load(mem, directory_entry(mem, &root, entry)).depth);
        }
        while entry < cursor.entries(root.depth).end {
            let segment = Segment::load(mem, directory_entry(mem, &root, entry));
            let span = 1 << (root.depth - segment.depth);
            let first = entry & !(span - 1);
            if let Some(to) = segment.evacuate(mem) {
                for index in first..first + span {
                    mem.write(Offset::new(root.directory + index * 8), to);
                }
            }
            entry = first + span;
        }
        cursor.next_prefix()
    }
}
