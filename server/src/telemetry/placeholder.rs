//! placeholder
use super::Telemetry;
use std::time::Duration;
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
/// x
#[derive(Debug, Clone, Copy)]
pub struct EventFigures {
    /// x
    pub event: Event,
    /// x
    pub latest_s: u64,
    /// x
    pub latest_ms: u64,
    /// x
    pub max_ms: u64,
}
impl Event {
    /// x
    pub fn name(self) -> &'static str {
        "fork"
    }
}
impl Telemetry {
    /// x
    pub fn latency_event(&self, _e: Event, _d: Duration) {}
    /// x
    pub fn latency_events(&self) -> Vec<EventFigures> {
        vec![EventFigures { event: Event::Fork, latest_s: 0, latest_ms: 0, max_ms: 0 }]
    }
    /// x
    pub fn slowlog_len(&self) -> u64 {
        0
    }
    /// x
    pub fn slowlog_total(&self) -> u64 {
        0
    }
}
