//! A redis-server of its own, and EVAL.

use std::io::{BufRead, BufReader, Read, Write};
use std::net::{TcpListener, TcpStream};
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};
use std::time::Duration;

/// Process of a server; dropping it kills the server.
struct Process(Child);

impl Drop for Process {
    fn drop(&mut self) {
        drop(self.0.kill());
        drop(self.0.wait());
    }
}

/// Connection to a running redis-server, which ends with it.
pub struct Peer {
    stream: BufReader<TcpStream>,
    _process: Process,
}

impl Peer {
    /// Starts the server on a free port. Returns `None` if none is installed.
    pub fn start() -> Option<Self> {
        let program = program()?;
        let port = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
        let process = Command::new(program)
            .args(["--port", &port.to_string(), "--bind", "127.0.0.1", "--save", ""])
            .args(["--lua-time-limit", "0", "--dir"])
            .arg(std::env::temp_dir())
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn()
            .map(Process)
            .unwrap();
        for _ in 0..2000 {
            if let Ok(stream) = TcpStream::connect(("127.0.0.1", port)) {
                return Some(Self { stream: BufReader::new(stream), _process: process });
            }
            std::thread::sleep(Duration::from_millis(10));
        }
        panic!("redis-server does not listen on port {port}");
    }

    /// The string that the script returns, or its error.
    pub fn eval(&mut self, script: &[u8]) -> Vec<u8> {
        let mut request = format!("*3\r\n$4\r\nEVAL\r\n${}\r\n", script.len()).into_bytes();
        request.extend(script);
        request.extend(b"\r\n$1\r\n0\r\n");
        self.stream.get_mut().write_all(&request).unwrap();
        let mut line = String::new();
        self.stream.read_line(&mut line).unwrap();
        let line = line.trim_end();
        let Some(length) = line.strip_prefix('$') else {
            return format!("failed: {line}").into_bytes();
        };
        let mut text = vec![0; length.parse::<usize>().unwrap() + 2];
        self.stream.read_exact(&mut text).unwrap();
        text.truncate(text.len() - 2);
        text
    }
}

fn program() -> Option<PathBuf> {
    if let Some(program) = std::env::var_os("COWHERD_LUA_PEER") {
        return Some(program.into());
    }
    let path = std::env::var_os("PATH")?;
    std::env::split_paths(&path).map(|folder| folder.join("redis-server")).find(|p| p.is_file())
}
