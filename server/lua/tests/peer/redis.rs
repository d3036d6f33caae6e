//! A redis-server of its own, and EVAL.

use std::io::{BufRead, BufReader, Read, Write};
use std::os::unix::net::UnixStream;
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;

/// Process of a server and its socket; dropping it kills the server.
struct Process(Child, PathBuf);

impl Drop for Process {
    fn drop(&mut self) {
        drop(self.0.kill());
        drop(self.0.wait());
        drop(std::fs::remove_file(&self.1));
    }
}

/// Connection to a running redis-server, which ends with it.
pub struct Peer {
    stream: BufReader<UnixStream>,
    _process: Process,
}

impl Peer {
    /// Starts the server on a socket of its own. Returns `None` if none is installed.
    pub fn start() -> Option<Self> {
        let program = program()?;
        static STARTED: AtomicU32 = AtomicU32::new(0);
        let number = STARTED.fetch_add(1, Ordering::Relaxed);
        let name = format!("cowherd-lua-{}-{number}.sock", std::process::id());
        let socket = std::env::temp_dir().join(name);
        let process = Command::new(program)
            .args(["--port", "0", "--save", "", "--lua-time-limit", "0", "--unixsocket"])
            .arg(&socket)
            .arg("--dir")
            .arg(std::env::temp_dir())
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn()
            .map(|child| Process(child, socket.clone()))
            .unwrap();
        for _ in 0..2000 {
            if let Ok(stream) = UnixStream::connect(&socket) {
                return Some(Self { stream: BufReader::new(stream), _process: process });
            }
            std::thread::sleep(Duration::from_millis(10));
        }
        panic!("redis-server does not listen on {}", socket.display());
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
