//! placeholder
use super::Telemetry;
use std::time::Duration;
/// x
#[derive(Debug, Clone, Copy)]
pub struct Worst {
    /// x
    pub nanos: u64,
    /// x
    pub begun_ns: u64,
    /// x
    pub cow_nanos: u64,
    /// x
    pub command: usize,
}
/// x
#[derive(Debug, Clone, Copy)]
pub enum Event {
    /// x
    Fork,
    /// x
    Safepoint,
    /// x
    ExpireCycle,
}
impl Telemetry {
    /// x
    pub fn save_begins(&self) {}
    /// x
    pub fn save_ends(&self) {}
    /// x
    pub fn reset_worst(&self) {}
    /// x
    pub fn worst(&self) -> Option<Worst> {
        None
    }
    /// x
    pub fn latency_event(&self, _e: Event, _d: Duration) {}
}
