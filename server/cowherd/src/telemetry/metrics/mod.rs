//! Prometheus metrics: the server's own names (`cowherd_*`) and those of redis_exporter
//! (`redis_*`), which dashboards for Redis read, over HTTP.
//!
//! ```text
//!   GET /metrics --> http --> MetricsSource --> Scrape --> server_metrics     --> Families
//!                                                          checkpoint_metrics        |
//!                                                          redis_metrics             |
//!       text: OpenMetrics 1.0.0 or Prometheus 0.0.4; protobuf: with native histograms <'
//! ```
//!
//! A scrape sums counters and calls the engine's `StatsSource`; it reads no keys.

mod checkpoint_metrics;
mod exposition;
mod families;
mod http;
mod protobuf;
mod redis_metrics;
mod scrape;
mod server_metrics;
mod source;
mod text;

pub(crate) use http::serve;

#[cfg(test)]
mod tests;
