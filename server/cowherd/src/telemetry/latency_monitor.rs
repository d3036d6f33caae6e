//! The latency monitor (LATENCY): events that took longer than `latency-monitor-threshold`, with
//! one sample per event and second, the longest of that second.

use std::collections::VecDeque;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::time::Duration;

use parking_lot::Mutex;
use zerocopy::FromZeros;

use super::ring_buffer::RingBuffer;

/// Samples of one event, as many as in Redis.
const SAMPLES: usize = 160;
/// Spikes in each half of a thread's ring buffer. The background thread drains it 10 times a
/// second.
const RING_CAPACITY: usize = 64;

/// An event that can hold clients up.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum LatencyEvent {
    /// `fork(2)`.
    Fork,
    /// The wait of a checkpoint until no command ran, at its fork or at its end.
    Safepoint,
    /// A page copy by the kernel for a writer.
    CowFault,
    /// A capture of blocks for the undo log.
    UndoCapture,
    /// A command that may be slow.
    Command,
    /// A command that should be fast.
    FastCommand,
    /// A round of expiry.
    ExpireCycle,
    /// Eviction before a command that needs memory.
    EvictionCycle,
    /// Eviction of one key.
    EvictionDel,
}

impl LatencyEvent {
    pub(crate) const ALL: [Self; 9] = [
        Self::Fork,
        Self::Safepoint,
        Self::CowFault,
        Self::UndoCapture,
        Self::Command,
        Self::FastCommand,
        Self::ExpireCycle,
        Self::EvictionCycle,
        Self::EvictionDel,
    ];

    /// The name in LATENCY and the metrics.
    pub(crate) const fn name(self) -> &'static str {
        match self {
            Self::Fork => "fork",
            Self::Safepoint => "safepoint",
            Self::CowFault => "cow-fault",
            Self::UndoCapture => "undo-capture",
            Self::Command => "command",
            Self::FastCommand => "fast-command",
            Self::ExpireCycle => "expire-cycle",
            Self::EvictionCycle => "eviction-cycle",
            Self::EvictionDel => "eviction-del",
        }
    }

    /// The event with this name; as in Redis, case matters.
    pub(crate) fn named(name: &[u8]) -> Option<Self> {
        Self::ALL.into_iter().find(|event| name == event.name().as_bytes())
    }
}

/// The ring buffer in which one thread records its spikes.
pub(super) type SpikeRing = RingBuffer<Spike>;

/// An empty ring buffer for one thread.
pub(super) fn spike_ring() -> SpikeRing {
    RingBuffer::new(RING_CAPACITY)
}

/// A spike as its thread records it: plain integers, so that zeroed memory is valid.
#[derive(Debug, Clone, Copy, FromZeros)]
pub(super) struct Spike {
    event: usize,
    at_s: i64,
    ms: u64,
}

/// The longest spike of one second.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct LatencySample {
    /// The second since 1970.
    pub(crate) at_s: i64,
    /// Its length in milliseconds.
    pub(crate) ms: u64,
}

/// The recorded samples of one event.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct LatencyEventHistory {
    /// The event that held clients up.
    pub(crate) event: LatencyEvent,
    /// The samples, the oldest first; there is one at least.
    pub(crate) samples: Vec<LatencySample>,
    /// The longest since the start or the last reset, in milliseconds.
    pub(crate) max_ms: u64,
}

impl LatencyEventHistory {
    /// The newest sample.
    pub(crate) fn latest(&self) -> LatencySample {
        self.samples.last().copied().unwrap_or(LatencySample { at_s: 0, ms: 0 })
    }
}

#[derive(Debug, Default)]
struct EventSamples {
    samples: VecDeque<LatencySample>,
    max_ms: u64,
}

impl EventSamples {
    fn add(&mut self, sample: LatencySample) {
        self.max_ms = self.max_ms.max(sample.ms);
        match self.samples.back_mut() {
            // The clocks of two threads may be read in the wrong order.
            Some(last) if last.at_s >= sample.at_s => last.ms = last.ms.max(sample.ms),
            _ => {
                if self.samples.len() == SAMPLES {
                    self.samples.pop_front();
                }
                self.samples.push_back(sample);
            }
        }
    }
}

/// The samples of all events.
#[derive(Debug, Default)]
pub(super) struct LatencyMonitor {
    /// Baseline: nothing is recorded.
    threshold_ms: AtomicU64,
    series: Mutex<[EventSamples; LatencyEvent::ALL.len()]>,
}

impl LatencyMonitor {
    /// Records spikes of at least `ms` milliseconds from now on; 0: none.
    pub(super) fn set_threshold(&self, ms: u64) {
        self.threshold_ms.store(ms, Relaxed);
    }

    /// A spike, if `took` reaches the threshold.
    pub(super) fn spike(&self, event: LatencyEvent, at_ms: i64, took: Duration) -> Option<Spike> {
        let threshold = self.threshold_ms.load(Relaxed);
        let ms = u64::try_from(took.as_millis()).unwrap_or(u64::MAX);
        let at_s = at_ms.div_euclid(1000);
        (threshold > 0 && ms >= threshold).then_some(Spike { event: event as usize, at_s, ms })
    }

    /// Adds spikes to the samples.
    pub(super) fn record(&self, spikes: impl IntoIterator<Item = Spike>) {
        let mut series = self.series.lock();
        for spike in spikes {
            if let Some(series) = series.get_mut(spike.event) {
                series.add(LatencySample { at_s: spike.at_s, ms: spike.ms });
            }
        }
    }

    /// Drains the ring buffers of the threads into the samples.
    pub(super) fn collect<'a>(&self, rings: impl Iterator<Item = &'a SpikeRing>) {
        let mut spikes = Vec::new();
        for ring in rings {
            ring.drain(|spike| spikes.push(*spike));
        }
        spikes.sort_by_key(|spike| spike.at_s);
        self.record(spikes);
    }

    /// The events with samples.
    pub(super) fn events(&self) -> Vec<LatencyEventHistory> {
        let series = self.series.lock();
        let each = LatencyEvent::ALL.into_iter().zip(series.iter());
        let used = each.filter(|(_, series)| !series.samples.is_empty());
        used.map(|(event, series)| LatencyEventHistory {
            event,
            samples: series.samples.iter().copied().collect(),
            max_ms: series.max_ms,
        })
        .collect()
    }

    /// Deletes the samples of an event. Returns whether there were any.
    pub(super) fn reset(&self, event: LatencyEvent) -> bool {
        let mut series = self.series.lock();
        let series = series.get_mut(event as usize).map(std::mem::take);
        series.is_some_and(|series| !series.samples.is_empty())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(monitor: &LatencyMonitor, event: LatencyEvent, at_ms: i64, ms: u64) {
        monitor.record(monitor.spike(event, at_ms, Duration::from_millis(ms)));
    }

    #[test]
    fn only_spikes_above_the_threshold_are_recorded() {
        let monitor = LatencyMonitor::default();
        at(&monitor, LatencyEvent::Fork, 1000, 500);
        assert!(monitor.events().is_empty(), "off");
        monitor.set_threshold(10);
        at(&monitor, LatencyEvent::Fork, 1000, 9);
        assert!(monitor.events().is_empty());
        at(&monitor, LatencyEvent::Fork, 1000, 10);
        assert_eq!(monitor.events()[0].latest(), LatencySample { at_s: 1, ms: 10 });
    }

    #[test]
    fn a_second_has_one_sample_and_160_are_kept() {
        let monitor = LatencyMonitor::default();
        monitor.set_threshold(1);
        for (at_ms, ms) in [(1000, 5), (1900, 9), (1999, 7), (2000, 3)] {
            at(&monitor, LatencyEvent::CowFault, at_ms, ms);
        }
        let events = monitor.events();
        assert_eq!(
            (events.len(), events[0].event, events[0].max_ms),
            (1, LatencyEvent::CowFault, 9)
        );
        assert_eq!(
            events[0].samples,
            [LatencySample { at_s: 1, ms: 9 }, LatencySample { at_s: 2, ms: 3 }]
        );
        (3..300).for_each(|second| at(&monitor, LatencyEvent::CowFault, second * 1000, 1));
        let events = monitor.events();
        assert_eq!((events[0].samples.len(), events[0].samples[0].at_s), (SAMPLES, 140));
        assert_eq!(events[0].max_ms, 9);
        assert!(monitor.reset(LatencyEvent::CowFault) && !monitor.reset(LatencyEvent::CowFault));
        assert!(monitor.events().is_empty());
    }

    #[test]
    fn spikes_of_several_threads_are_in_order_of_time() {
        let monitor = LatencyMonitor::default();
        monitor.set_threshold(1);
        let rings = [spike_ring(), spike_ring()];
        for (thread, at_ms) in [(0, 3000), (1, 1000), (1, 2000)] {
            let spike = monitor.spike(LatencyEvent::Command, at_ms, Duration::from_millis(4));
            rings[thread].push(|record| *record = spike.unwrap());
        }
        monitor.collect(rings.iter());
        let seconds: Vec<i64> = monitor.events()[0].samples.iter().map(|s| s.at_s).collect();
        assert_eq!(seconds, [1, 2, 3]);
    }

    #[test]
    fn names_are_found() {
        for event in LatencyEvent::ALL {
            assert_eq!(LatencyEvent::named(event.name().as_bytes()), Some(event));
        }
        assert_eq!(LatencyEvent::named(b"aof-write"), None);
        assert_eq!(LatencyEvent::named(b"Fork"), None);
    }
}
