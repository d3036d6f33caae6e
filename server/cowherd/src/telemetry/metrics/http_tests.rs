use std::io::{Read, Write};
use std::net::{Ipv4Addr, TcpStream as StdStream};

use cowherd_arena::OccupancyMap;

use super::*;
use crate::clock::Timestamp;
use crate::telemetry::{RestoreReport, StatsSnapshot};

struct Nothing;

impl StatsSource for Nothing {
    fn stats_snapshot(&self) -> StatsSnapshot {
        StatsSnapshot::default()
    }

    fn occupancy_map(&self, _max_cells: usize) -> OccupancyMap {
        OccupancyMap::default()
    }
}

fn start() -> (Arc<Telemetry>, MetricsServer) {
    let telemetry = Telemetry::new(1, vec!["get".to_owned()], vec!["string"]);
    let any = SocketAddr::from((Ipv4Addr::LOCALHOST, 0));
    let server = serve(Arc::clone(&telemetry), Arc::new(Nothing), any).unwrap();
    (telemetry, server)
}

/// Sends a request; the status, the head in lower case and the body of the answer.
fn ask(server: &MetricsServer, method: &str, path: &str, accept: &str) -> (u16, String, String) {
    let mut stream = StdStream::connect(server.address).unwrap();
    let request = format!("{method} {path} HTTP/1.1\r\nHost: x\r\nAccept: {accept}\r\n\r\n");
    stream.write_all(request.as_bytes()).unwrap();
    let mut answer = String::new();
    stream.read_to_string(&mut answer).unwrap();
    let (head, body) = answer.split_once("\r\n\r\n").unwrap();
    let status = head.split(' ').nth(1).unwrap().parse().unwrap();
    (status, head.to_ascii_lowercase(), body.to_owned())
}

#[test]
fn metrics_are_served_in_the_form_that_is_accepted() {
    let (telemetry, server) = start();
    telemetry.recorder(0).unwrap().connection_received();
    let (status, head, body) = ask(&server, "GET", "/metrics", "*/*");
    assert_eq!(status, 200);
    assert!(head.contains("content-type: text/plain; version=0.0.4; charset=utf-8"), "{head}");
    assert!(body.contains("# TYPE cowherd_connections_received_total counter\n"));
    assert!(body.contains("\ncowherd_connections_received_total 1\n"), "{body}");
    assert!(!body.contains("# EOF"));

    let accept = "application/openmetrics-text;version=1.0.0;q=0.5,text/plain;q=0.3";
    let (status, head, body) = ask(&server, "GET", "/metrics", accept);
    assert_eq!(status, 200);
    assert!(head.contains("content-type: application/openmetrics-text; version=1.0.0"), "{head}");
    assert!(body.contains("# TYPE cowherd_connections_received counter\n"));
    assert!(body.ends_with("# EOF\n"));
    drop(server);
}

#[test]
fn health_tells_whether_the_data_is_there() {
    let (telemetry, server) = start();
    let health = || {
        let (status, _, body) = ask(&server, "GET", "/healthz", "*/*");
        (status, body)
    };
    assert_eq!(health(), (200, "ok\n".to_owned()));
    telemetry.persistence().loading_started(Timestamp::now());
    assert_eq!(health(), (503, "loading\n".to_owned()));
    telemetry.persistence().loading_finished(Timestamp::now(), RestoreReport::default());
    assert_eq!(health(), (200, "ok\n".to_owned()));
}

#[test]
fn other_requests_are_answered_too() {
    let (_telemetry, server) = start();
    let (status, _, body) = ask(&server, "GET", "/", "*/*");
    assert_eq!(status, 200);
    assert!(body.contains("/metrics"));
    assert_eq!(ask(&server, "GET", "/nothing", "*/*").0, 404);
    let (status, head, _) = ask(&server, "POST", "/metrics", "*/*");
    assert_eq!(status, 405);
    assert!(head.contains("allow: get, head"), "{head}");
    let (status, head, body) = ask(&server, "HEAD", "/healthz", "*/*");
    assert_eq!((status, body.as_str()), (200, ""));
    assert!(head.contains("content-length: 3"), "{head}");
}

#[test]
fn stopping_frees_the_port_even_with_a_silent_client() {
    let (_telemetry, server) = start();
    let address = server.address;
    let _silent = StdStream::connect(address).unwrap();
    drop(server);
    assert!(StdStream::connect(address).is_err());
}

#[test]
fn a_port_in_use_is_an_error_that_names_it() {
    let (telemetry, server) = start();
    let error = serve(telemetry, Arc::new(Nothing), server.address).unwrap_err();
    assert!(error.to_string().contains(&server.address.to_string()), "{error}");
    assert!(error.to_string().contains("metrics-port"), "{error}");
}
