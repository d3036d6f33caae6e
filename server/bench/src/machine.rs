//! Description of the machine under test, which every report shows beside its results.

use std::fs;
use std::path::Path;

use serde::Serialize;

/// Hardware, kernel and memory settings of a machine.
#[derive(Debug, Clone, Serialize)]
pub struct Machine {
    /// Date in UTC: `2026-11-24`.
    pub date: String,
    /// Version of this program.
    pub cowherd: &'static str,
    /// Model name of the processor.
    pub processor: String,
    /// Number of processors that this process may use.
    pub cores: usize,
    /// Size of main memory in bytes.
    pub memory_bytes: u64,
    /// Kernel and architecture: `Linux 6.18.0 x86_64`.
    pub kernel: String,
    /// Distribution: `Debian GNU/Linux 12 (bookworm)`.
    pub system: String,
    /// Whether the machine is a virtual one.
    pub virtual_machine: bool,
    /// Selected word of the setting `transparent_hugepage/enabled`.
    pub thp: String,
}

impl Machine {
    /// Reads the description from the kernel; an unreadable item is `unknown` or zero.
    pub fn read() -> Self {
        let cpuinfo = text("/proc/cpuinfo");
        let release = text("/etc/os-release");
        let named = |source: &str, name: &str, cut: char| {
            let line = source.lines().find(|line| line.starts_with(name))?;
            Some(line.split_once(cut)?.1.trim().trim_matches('"').to_owned())
        };
        let memory = named(&text("/proc/meminfo"), "MemTotal", ':');
        let kib = memory.and_then(|line| line.split(' ').next()?.parse::<u64>().ok());
        let unknown = || "unknown".to_owned();
        let uname = nix::sys::utsname::uname();
        let kernel = uname.map_or_else(
            |_| unknown(),
            |name| {
                let parts = [name.sysname(), name.release(), name.machine()];
                parts.map(|part| part.to_string_lossy().into_owned()).join(" ")
            },
        );
        Self {
            date: time::OffsetDateTime::now_utc().date().to_string(),
            cowherd: env!("CARGO_PKG_VERSION"),
            processor: named(&cpuinfo, "model name", ':').unwrap_or_else(unknown),
            cores: std::thread::available_parallelism().map_or(1, usize::from),
            memory_bytes: kib.unwrap_or(0) * 1024,
            kernel,
            system: named(&release, "PRETTY_NAME", '=').unwrap_or_else(unknown),
            virtual_machine: cpuinfo.contains(" hypervisor"),
            thp: bracketed("/sys/kernel/mm/transparent_hugepage/enabled").unwrap_or_else(unknown),
        }
    }

    /// Formats the description as one line.
    pub fn line(&self) -> String {
        format!(
            "{}; {}, {} cores{}, {:.0} GiB; {}; {}; THP {}; cowherd {}",
            self.date,
            self.processor,
            self.cores,
            if self.virtual_machine { " of a virtual machine" } else { "" },
            self.memory_bytes as f64 / f64::from(1 << 30),
            self.kernel,
            self.system,
            self.thp,
            self.cowherd,
        )
    }
}

/// Content of a kernel file; empty if unreadable.
pub fn text(path: &str) -> String {
    fs::read_to_string(path).unwrap_or_default()
}

/// Selected word of a setting like `always [madvise] never`.
pub fn bracketed(path: impl AsRef<Path>) -> Option<String> {
    let text = fs::read_to_string(path).ok()?;
    let (_, after) = text.split_once('[')?;
    Some(after.split_once(']')?.0.to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_machine_has_a_name_a_kernel_and_memory() {
        let machine = Machine::read();
        assert!(machine.memory_bytes > 1 << 20, "{machine:?}");
        assert!(machine.kernel.starts_with("Linux "), "{machine:?}");
        assert_eq!(machine.date.len(), "2026-11-24".len());
        assert!(machine.line().contains(&machine.kernel));
    }
}
