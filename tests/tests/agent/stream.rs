//! An agent as far as `nettrace top` knows one: frames of before, and a stream of those that come.

use nettrace::{
    live::Frame,
    probes::{self, PROBES},
    recommend::{Advice, Profile, advise},
    snapshot::{Probe, Snapshot, sample},
};
use std::{
    io::{Read as _, Write as _},
    net::{Ipv4Addr, SocketAddr, TcpListener, TcpStream},
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicU64, Ordering},
    },
    thread,
    time::Duration,
};

/// A window.
pub(crate) const WINDOW: Duration = Duration::from_millis(250);
const LOOK: Duration = Duration::from_millis(10);

/// Serves until it is dropped.
pub(crate) struct Agent {
    address: SocketAddr,
    shared: Arc<Shared>,
}

struct Shared {
    token: Option<String>,
    over: AtomicBool,
    /// Windows closed so far.
    windows: AtomicU64,
}

/// The frame of a window, by its number.
pub(crate) fn frame(n: u64) -> Frame {
    let Snapshot { mut meta, .. } = sample::rich();
    meta.start_unix_ns += n * 2_000_000_000;
    meta.duration_ns = 2_000_000_000;
    Frame::of(&Snapshot { meta, ..sample::rich() })
}

/// What findings are of: a node on which every probe ran.
fn judged() -> Snapshot {
    let probe = |probe: &probes::Probe| Probe {
        name: probe.name.to_owned(),
        source: Some("test".to_owned()),
        yields: Vec::new(),
        reason: None,
    };
    Snapshot { probes: PROBES.iter().map(probe).collect(), ..sample::rich() }
}

impl Agent {
    /// At a port of the kernel's choice, or at one where an agent was before.
    pub(crate) fn start(at: Option<SocketAddr>, token: Option<&str>) -> Self {
        let listener = TcpListener::bind(at.unwrap_or((Ipv4Addr::LOCALHOST, 0).into())).unwrap();
        let address = listener.local_addr().unwrap();
        listener.set_nonblocking(true).unwrap();
        let shared = Arc::new(Shared {
            token: token.map(str::to_owned),
            over: AtomicBool::new(false),
            windows: AtomicU64::new(10),
        });
        let theirs = shared.clone();
        thread::spawn(move || {
            while !theirs.over.load(Ordering::Relaxed) {
                match listener.accept() {
                    Ok((client, _)) => {
                        let shared = theirs.clone();
                        // A client that leaves in the middle is no failure of the test.
                        thread::spawn(move || drop(shared.serve(client)));
                    }
                    Err(_) => thread::sleep(LOOK),
                }
            }
        });
        Self { address, shared }
    }

    pub(crate) fn address(&self) -> SocketAddr {
        self.address
    }

    pub(crate) fn url(&self) -> String {
        format!("http://{}", self.address)
    }
}

impl Drop for Agent {
    fn drop(&mut self) {
        self.shared.over.store(true, Ordering::Relaxed);
        // Until nobody listens at the port.
        while TcpStream::connect(self.address).is_ok() {
            thread::sleep(LOOK);
        }
    }
}

impl Shared {
    fn serve(&self, mut client: TcpStream) -> std::io::Result<()> {
        client.set_nonblocking(false)?;
        client.set_read_timeout(Some(Duration::from_secs(5)))?;
        let mut head = Vec::new();
        let mut byte = [0];
        while !head.ends_with(b"\r\n\r\n") && head.len() < 8_192 {
            client.read_exact(&mut byte)?;
            head.push(byte[0]);
        }
        let head = String::from_utf8_lossy(&head).into_owned();
        let says =
            |token: &String| head.to_lowercase().contains(&format!("authorization: bearer {token}\r\n"));
        if !self.token.as_ref().is_none_or(says) {
            return client
                .write_all(b"HTTP/1.1 401 Unauthorized\r\ncontent-length: 0\r\nconnection: close\r\n\r\n");
        }
        match head.split(' ').nth(1).and_then(|target| target.split('?').next()) {
            Some("/api/frames") => {
                let frames: Vec<Frame> = (0..self.windows.load(Ordering::Relaxed)).map(frame).collect();
                let json = serde_json::to_string(&frames)?;
                write!(
                    client,
                    "HTTP/1.1 200 OK\r\ncontent-type: application/json\r\ncontent-length: {}\r\n\
                     connection: close\r\n\r\n{json}",
                    json.len()
                )
            }
            Some("/api/live") => self.live(client),
            _ => {
                client.write_all(b"HTTP/1.1 404 Not Found\r\ncontent-length: 0\r\nconnection: close\r\n\r\n")
            }
        }
    }

    /// In chunks that end where they should not.
    fn live(&self, mut client: TcpStream) -> std::io::Result<()> {
        client.write_all(
            b"HTTP/1.1 200 OK\r\ncontent-type: text/event-stream\r\ntransfer-encoding: chunked\r\n\r\n",
        )?;
        let mut send = |text: &str| -> std::io::Result<()> {
            for piece in text.as_bytes().chunks(1_000) {
                write!(client, "{:x}\r\n", piece.len())?;
                client.write_all(piece)?;
                client.write_all(b"\r\n")?;
            }
            client.flush()
        };
        let advice = Advice::new("node-1", advise(&judged(), Profile::Balanced));
        send("retry: 200\n\n")?;
        send(&format!("event: findings\ndata: {}\n\n", serde_json::to_string(&advice)?))?;
        while !self.over.load(Ordering::Relaxed) {
            let n = self.windows.fetch_add(1, Ordering::Relaxed);
            send(&format!(": still here\n\nevent: frame\ndata: {}\n\n", serde_json::to_string(&frame(n))?))?;
            thread::sleep(WINDOW);
        }
        Ok(())
    }
}
