//! Address of a server under test, and the operations of a round: identify, fill, measure.

use std::net::{SocketAddr, ToSocketAddrs as _};
use std::path::Path;

use anyhow::{Context as _, Result, bail, ensure};
use serde::Serialize;

use super::SnapshotArguments;
use super::client::BlockingClient;
use super::load::{self, LoadPlan};
use super::results::Round;
use super::workload::RequestGenerator;

/// Identity of a server, from INFO.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct ServerIdentity {
    /// Software: `cowherd`, `valkey` or `redis`.
    pub kind: String,
    /// Version of the software.
    pub version: String,
    /// Actual page kind and isolation of Cowherd; empty for other servers.
    pub details: String,
    /// Process id, if the server runs on this machine.
    pub process: Option<i32>,
}

/// Address and password of a server.
#[derive(Debug, Clone)]
pub struct Target {
    /// Address of the server.
    pub address: SocketAddr,
    /// Password of the server.
    pub password: Option<String>,
}

impl Target {
    /// Parses `HOST:PORT`, or a port on this machine.
    ///
    /// # Errors
    /// Returns an error if the text is neither, or the host cannot be resolved.
    pub fn parse(text: &str, password: Option<&str>) -> Result<Self> {
        let full = if text.contains(':') { text.to_owned() } else { format!("127.0.0.1:{text}") };
        let addresses = full.to_socket_addrs();
        let addresses = addresses.with_context(|| format!("'{text}' is no HOST:PORT"))?;
        let address = addresses.into_iter().min_by_key(SocketAddr::is_ipv6);
        let address = address.with_context(|| format!("{text} has no address"))?;
        Ok(Self { address, password: password.map(str::to_owned) })
    }

    /// Opens a blocking connection.
    ///
    /// # Errors
    /// Returns an error if the connection or the authentication fails.
    pub fn client(&self) -> Result<BlockingClient> {
        BlockingClient::open(self.address, self.password.as_deref())
    }

    /// Queries the identity of the server.
    ///
    /// # Errors
    /// Returns an error if the server does not answer.
    pub fn identify(&self) -> Result<ServerIdentity> {
        let mut client = self.client()?;
        let info = client.info("everything")?;
        let field = |name: &str| info.get(name).cloned();
        let version = |name: &str| Some((name.to_owned(), field(&format!("{name}_version"))?));
        let known = version("cowherd").or_else(|| version("valkey")).or_else(|| version("redis"));
        let (kind, version) = known.context("INFO names no version")?;
        let details = match (field("pages"), field("isolation")) {
            (Some(pages), Some(isolation)) => format!("{pages}, {isolation}"),
            _ => String::new(),
        };
        let local = self.address.ip().is_loopback();
        let process = field("process_id").and_then(|id| id.parse().ok());
        let process = process.filter(|id| local && Path::new(&format!("/proc/{id}")).exists());
        Ok(Self::identity(kind, version, details, process))
    }

    fn identity(
        kind: String,
        version: String,
        details: String,
        process: Option<i32>,
    ) -> ServerIdentity {
        ServerIdentity { kind, version, details, process }
    }

    /// Fills an empty server with the keys of the test. A server filled by an earlier call stays
    /// unchanged. Calls `progress` with the number of keys created.
    ///
    /// # Errors
    /// Returns an error if the server holds other data, which the load would overwrite.
    pub fn fill(
        &self,
        requests: &mut RequestGenerator,
        keys: u64,
        progress: impl Fn(u64),
    ) -> Result<()> {
        let mut client = self.client()?;
        let found = client.text(&["DBSIZE"])?.parse::<u64>()?;
        let last = format!("key:{:012}", keys - 1);
        if found == keys && client.text(&["EXISTS", &last])? == "1" {
            return Ok(());
        }
        ensure!(
            found == 0,
            "{} holds {found} keys that are not from this test, which would write among them; \
             name an empty server, or empty this one first",
            self.address
        );
        client.fill(requests, keys, progress)?;
        let found = client.text(&["DBSIZE"])?.parse::<u64>()?;
        ensure!(
            found == keys,
            "{} holds {found} of {keys} keys: its maxmemory is too small, or it evicts",
            self.address
        );
        Ok(())
    }

    /// Measures one checkpoint under load. Calls `progress` with the name of each phase.
    ///
    /// # Errors
    /// Returns an error if the load or the checkpoint fails.
    pub fn measure(
        &self,
        arguments: &SnapshotArguments,
        process: Option<i32>,
        requests: &mut RequestGenerator,
        progress: impl Fn(&str),
    ) -> Result<Round> {
        let mut client = self.client()?;
        if client.info("persistence")?.get("rdb_bgsave_in_progress").is_some_and(|n| n != "0") {
            bail!("a checkpoint is already running on {}; try again later", self.address);
        }
        let plan = LoadPlan {
            address: self.address,
            password: self.password.clone(),
            process,
            connections: arguments.connections,
            rate: arguments.rate,
            warm_up: arguments.warm_up,
            duration: arguments.duration,
            after: arguments.after,
            timeout: arguments.timeout,
            longest_save: arguments.longest_save,
        };
        let record = load::run(&plan, requests, progress)?;
        let mut round = Round::of(record);
        let info = client.info("everything")?;
        let number = |name: &str| info.get(name).and_then(|text| text.parse::<u64>().ok());
        round.saved = info.get("rdb_last_bgsave_status").is_some_and(|status| status == "ok");
        round.fork_us = number("latest_fork_usec").map(|us| us as f64);
        round.reported_cow_bytes = number("rdb_last_cow_size");
        round.image_bytes = number("cowherd_image_bytes").or_else(|| {
            process?;
            let folder = client.directive("dir").ok()??;
            let file = client.directive("dbfilename").ok()??;
            std::fs::metadata(Path::new(&folder).join(file)).ok().map(|file| file.len())
        });
        ensure!(round.saved, "the checkpoint of {} failed; see its log", self.address);
        Ok(round)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_target_is_a_host_and_a_port_or_a_port_alone() {
        let parse = |text| Target::parse(text, None).map(|target| target.address.to_string());
        assert_eq!(parse("6379").unwrap(), "127.0.0.1:6379");
        assert_eq!(parse("127.0.0.1:7000").unwrap(), "127.0.0.1:7000");
        assert_eq!(parse("[::1]:7000").unwrap(), "[::1]:7000");
        assert!(parse("nonsense").is_err());
        assert!(parse("127.0.0.1:99999").is_err());
    }
}
