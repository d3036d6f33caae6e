//! Debian's redis_exporter.

use crate::wait::wait_until;
use crate::{http, ports};
use anyhow::Result;
use std::process::{Command, Stdio};
use std::time::Duration;

const DEADLINE: Duration = Duration::from_secs(30);

/// Runs an exporter for the server on `port` and returns its page of metrics.
///
/// # Errors
/// Returns an error if the exporter does not start or shows no page within 30 s.
pub fn page(port: u16) -> Result<String> {
    let own = ports::free()?;
    let mut exporter = Command::new("prometheus-redis-exporter")
        .arg(format!("-redis.addr=redis://127.0.0.1:{port}"))
        .arg(format!("-web.listen-address=127.0.0.1:{own}"))
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .spawn()?;
    let mut page = String::new();
    let answered = wait_until(
        || {
            page = http::get(own, "/metrics").map(|(_, body)| body).unwrap_or_default();
            Ok(page.contains("redis_up"))
        },
        DEADLINE,
        "redis_exporter's page",
    );
    exporter.kill()?;
    exporter.wait()?;
    answered.map(|()| page)
}
