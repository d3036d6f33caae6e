//! The memory that this process may use: that of the machine, and the limits of its cgroups.
//!
//! A process is in one cgroup per hierarchy (one for version 2, one per controller for
//! version 1), and every cgroup on the way up to the root may carry a limit. The smallest counts.
//! Sources: proc(5), cgroups(7), Documentation/admin-guide/cgroup-v2.rst of the kernel.
//!
//! ```text
//!   /proc/self/cgroup      0::/user.slice/cowherd.service             which cgroup
//!   /proc/self/mountinfo   ... / /sys/fs/cgroup ... - cgroup2 ...     where it is mounted
//!   /sys/fs/cgroup/user.slice/cowherd.service/memory.max              the limits, upwards
//!   /sys/fs/cgroup/user.slice/memory.max
//! ```

use std::fs;
use std::path::{Component, Path, PathBuf};

use nix::unistd::{SysconfVar, sysconf};

/// Version 1 reports a number near `i64::MAX` for "no limit".
const NO_LIMIT: u64 = 1 << 62;

/// Memory that this process may use, in bytes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct MachineMemory {
    /// Memory of the machine.
    pub(crate) total: u64,
    /// The smallest limit of this process's cgroups, if there is one.
    pub(crate) cgroup_limit: Option<u64>,
    /// The smaller of the two.
    pub(crate) effective: u64,
}

/// Reads how much memory this process may use from /proc and the cgroup file systems.
pub(crate) fn machine_memory() -> MachineMemory {
    read(Path::new("/"))
}

fn read(root: &Path) -> MachineMemory {
    let total = total_memory(root).unwrap_or_else(memory_by_pages);
    let cgroup_limit = cgroup_limit(root);
    let effective = cgroup_limit.map_or(total, |limit| limit.min(total));
    MachineMemory { total, cgroup_limit, effective }
}

fn total_memory(root: &Path) -> Option<u64> {
    let text = fs::read_to_string(root.join("proc/meminfo")).ok()?;
    let line = text.lines().find_map(|line| line.strip_prefix("MemTotal:"))?;
    let kib: u64 = line.trim().strip_suffix("kB")?.trim().parse().ok()?;
    kib.checked_mul(1024)
}

/// Memory of the machine from the C library, if /proc is not mounted.
fn memory_by_pages() -> u64 {
    let ask = |name| sysconf(name).ok().flatten().and_then(|value| u64::try_from(value).ok());
    let pages = ask(SysconfVar::_PHYS_PAGES).unwrap_or(0);
    pages.saturating_mul(ask(SysconfVar::PAGE_SIZE).unwrap_or(0))
}

/// A hierarchy of cgroups that can limit memory.
struct CgroupHierarchy<'a> {
    /// The file that carries the limit.
    limit_file: &'static str,
    /// The file system's type in mountinfo.
    file_system: &'static str,
    /// An option its mount must have, for version 1.
    option: Option<&'static str>,
    /// This process's cgroup.
    group: &'a Path,
}

fn cgroup_limit(root: &Path) -> Option<u64> {
    let groups = fs::read_to_string(root.join("proc/self/cgroup")).ok()?;
    let mounts = fs::read_to_string(root.join("proc/self/mountinfo")).ok()?;
    let limits = groups.lines().filter_map(hierarchy).filter_map(|hierarchy| {
        let mount = mounts.lines().filter_map(CgroupMount::parse).find(|m| m.serves(&hierarchy))?;
        smallest_limit(root, &hierarchy, &mount)
    });
    limits.min()
}

/// Reads a line `number:controllers:path` if it can limit memory.
fn hierarchy(line: &str) -> Option<CgroupHierarchy<'_>> {
    let mut fields = line.splitn(3, ':');
    let (number, controllers, group) = (fields.next()?, fields.next()?, fields.next()?);
    let group = Path::new(group);
    if number == "0" && controllers.is_empty() {
        let limit_file = "memory.max";
        Some(CgroupHierarchy { limit_file, file_system: "cgroup2", option: None, group })
    } else if controllers.split(',').any(|controller| controller == "memory") {
        let limit_file = "memory.limit_in_bytes";
        Some(CgroupHierarchy { limit_file, file_system: "cgroup", option: Some("memory"), group })
    } else {
        None
    }
}

/// A line of mountinfo.
struct CgroupMount<'a> {
    /// The folder of the file system that is mounted.
    root: PathBuf,
    /// Where it is mounted.
    point: PathBuf,
    file_system: &'a str,
    options: &'a str,
}

impl<'a> CgroupMount<'a> {
    fn parse(line: &'a str) -> Option<Self> {
        let (mount, kind) = line.split_once(" - ")?;
        let mut mount = mount.split(' ').skip(3);
        let (root, point) = (unescape(mount.next()?), unescape(mount.next()?));
        let mut kind = kind.split(' ');
        let (file_system, options) = (kind.next()?, kind.nth(1)?);
        Some(Self { root, point, file_system, options })
    }

    fn serves(&self, hierarchy: &CgroupHierarchy<'_>) -> bool {
        let has = |option| self.options.split(',').any(|own| own == option);
        self.file_system == hierarchy.file_system && hierarchy.option.is_none_or(has)
    }
}

/// Undoes mountinfo's escapes of blanks and backslashes (`\040`).
fn unescape(text: &str) -> PathBuf {
    let escapes = [("\\040", " "), ("\\011", "\t"), ("\\012", "\n"), ("\\134", "\\")];
    let undo = |text: String, (code, plain): &(&str, &str)| text.replace(code, plain);
    PathBuf::from(escapes.iter().fold(text.to_owned(), undo))
}

fn smallest_limit(
    root: &Path,
    hierarchy: &CgroupHierarchy<'_>,
    mount: &CgroupMount<'_>,
) -> Option<u64> {
    let point = root.join(mount.point.strip_prefix("/").ok()?);
    // A container may see only its own part of the tree; groups outside are not reachable.
    let inside = hierarchy.group.strip_prefix(&mount.root).unwrap_or(Path::new(""));
    let reachable = inside.components().all(|part| matches!(part, Component::Normal(_)));
    let inside = if reachable { inside } else { Path::new("") };
    let limit = |group: &Path| {
        let text = fs::read_to_string(point.join(group).join(hierarchy.limit_file)).ok()?;
        text.trim().parse().ok().filter(|limit| *limit < NO_LIMIT)
    };
    inside.ancestors().filter_map(limit).min()
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A root directory with the files given, and a machine of 8 GiB.
    fn machine(files: &[(&str, &str)]) -> tempfile::TempDir {
        let root = tempfile::tempdir().unwrap();
        let meminfo = ("proc/meminfo", "MemFree: 1 kB\nMemTotal:        8388608 kB\n");
        for (path, text) in files.iter().chain([&meminfo]) {
            let path = root.path().join(path);
            fs::create_dir_all(path.parent().unwrap()).unwrap();
            fs::write(path, text).unwrap();
        }
        root
    }

    const GIB: u64 = 1 << 30;
    const V2: &str = "24 1 0:21 / /proc rw - proc proc rw\n\
                      30 24 0:26 / /sys/fs/cgroup rw,nosuid - cgroup2 cgroup2 rw,nsdelegate\n";
    const V1: &str = "31 24 0:27 / /sys/fs/cgroup/cpu rw - cgroup cgroup rw,cpu\n\
                      32 24 0:28 /docker/abc /sys/fs/cgroup/memory rw - cgroup cgroup rw,memory\n";

    #[test]
    fn without_cgroups_the_machine_counts() {
        let memory = read(machine(&[]).path());
        let total = 8 * GIB;
        assert_eq!(memory, MachineMemory { total, cgroup_limit: None, effective: total });
    }

    #[test]
    fn the_smallest_limit_along_the_path_counts() {
        let root = machine(&[
            ("proc/self/cgroup", "0::/a/b/c\n"),
            ("proc/self/mountinfo", V2),
            ("sys/fs/cgroup/a/memory.max", "2147483648\n"),
            ("sys/fs/cgroup/a/b/memory.max", "max\n"),
            ("sys/fs/cgroup/a/b/c/memory.max", "3221225472\n"),
        ]);
        let memory = read(root.path());
        assert_eq!((memory.cgroup_limit, memory.effective), (Some(2 * GIB), 2 * GIB));
    }

    #[test]
    fn a_limit_above_the_machine_changes_nothing() {
        let root = machine(&[
            ("proc/self/cgroup", "0::/\n"),
            ("proc/self/mountinfo", V2),
            ("sys/fs/cgroup/memory.max", "17179869184\n"),
        ]);
        let memory = read(root.path());
        assert_eq!((memory.cgroup_limit, memory.effective), (Some(16 * GIB), 8 * GIB));
    }

    #[test]
    fn version_one_is_read_beside_version_two() {
        let hybrid = format!("{V1}{V2}");
        let root = machine(&[
            ("proc/self/cgroup", "4:cpu:/docker/abc\n5:memory,x:/docker/abc/in\n0::/\n"),
            ("proc/self/mountinfo", &hybrid),
            ("sys/fs/cgroup/memory/memory.limit_in_bytes", "1073741824\n"),
            ("sys/fs/cgroup/memory/in/memory.limit_in_bytes", "9223372036854771712\n"),
            ("sys/fs/cgroup/memory.max", "max\n"),
        ]);
        assert_eq!(read(root.path()).cgroup_limit, Some(GIB));
    }

    #[test]
    fn a_group_outside_the_mount_falls_back_to_the_mount() {
        for group in ["0::/../other\n", "0::/elsewhere/x\n"] {
            let root = machine(&[
                ("proc/self/cgroup", group),
                ("proc/self/mountinfo", V2),
                ("sys/fs/cgroup/memory.max", "1073741824\n"),
                ("sys/fs/other/memory.max", "1\n"),
            ]);
            assert_eq!(read(root.path()).cgroup_limit, Some(GIB), "{group}");
        }
    }

    #[test]
    fn unparsable_files_are_no_limit() {
        let root = machine(&[
            ("proc/self/cgroup", "::\n0\nmemory\n7:memory:\n"),
            ("proc/self/mountinfo", "a b c\n - \n1 2 3 / - cgroup2\n"),
        ]);
        assert_eq!(read(root.path()).cgroup_limit, None);
    }

    #[test]
    fn this_machine_has_memory() {
        let memory = machine_memory();
        assert!(memory.total > 0 && memory.effective > 0 && memory.effective <= memory.total);
    }
}
