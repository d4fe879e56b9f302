//! Frames for the page and `nettrace top`: those of the last hours, and those to come.
//!
//! Needs the hub; yields bodies that are written piece by piece, so that hours of frames are never in memory as text.
//! What comes is a stream of server-sent events (WHATWG HTML, 9.2): `frame` for each window, `status` with each, and
//! `findings` and `changes` when they differ from those sent before.

use super::{
    body::{self, Body},
    told,
};
use crate::{agent::Hub, live::Frame, recommend::Advice};
use bytes::Bytes;
use flate2::{Compression, write::GzEncoder};
use hyper::{Response, StatusCode, header};
use serde::Serialize;
use std::{
    io::{self, Write as _},
    ops::RangeInclusive,
    sync::Arc,
    time::Duration,
};
use tokio::sync::{OwnedSemaphorePermit, broadcast::error::RecvError, mpsc, watch};

/// Frames that become text at a time.
const AT_A_TIME: usize = 32;
/// A line at least so often, so that both ends learn when the other one is gone.
const BEAT: Duration = Duration::from_secs(10);
/// What a client waits before it connects again, ms.
const AGAIN_MS: u32 = 2_000;

/// Which frames are wanted.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Wanted {
    /// Of windows that ended then, Unix time, ms.
    pub(super) at_unix_ms: RangeInclusive<u64>,
    /// Without tables and single scopes: what plots over hours are made of.
    pub(super) brief: bool,
}

/// Frames as one JSON array.
pub(super) fn frames(hub: &Hub, wanted: Wanted, gzip: bool) -> Response<Body> {
    let chosen = hub.frames().into_iter().filter(|frame| wanted.at_unix_ms.contains(&frame.at_unix_ms));
    let chosen: Vec<_> = chosen.collect();
    let (sender, pieces) = Body::pieces();
    tokio::spawn(async move {
        // A client that left is no error, and nobody is left to be told of one.
        let _ = write_frames(&chosen, wanted.brief, gzip, &sender).await;
    });
    let mut response = Response::new(pieces);
    body::set(&mut response, header::CONTENT_TYPE, "application/json");
    body::set(&mut response, header::VARY, "accept-encoding");
    if gzip {
        body::set(&mut response, header::CONTENT_ENCODING, "gzip");
    }
    response
}

async fn write_frames(
    frames: &[Arc<Frame>],
    brief: bool,
    gzip: bool,
    to: &mpsc::Sender<Bytes>,
) -> io::Result<()> {
    let mut text = Text::new(gzip);
    text.write_all(b"[")?;
    for (i, frame) in frames.iter().enumerate() {
        if i > 0 {
            text.write_all(b",\n")?;
        }
        if brief {
            serde_json::to_writer(&mut text, &shortened(frame))?;
        } else {
            serde_json::to_writer(&mut text, &**frame)?;
        }
        if i % AT_A_TIME == AT_A_TIME - 1 {
            send(to, text.take()?).await?;
        }
    }
    text.write_all(b"]\n")?;
    send(to, text.end()?).await
}

async fn send(to: &mpsc::Sender<Bytes>, bytes: Vec<u8>) -> io::Result<()> {
    to.send(bytes.into()).await.map_err(|_| io::ErrorKind::BrokenPipe.into())
}

fn shortened(frame: &Frame) -> Frame {
    let mut short = frame.clone();
    short.signals.retain(|row| row.scope == "all");
    short.dns.rcodes.clear();
    short.dns.servers.clear();
    short.dns.names.clear();
    short.tcp.peers.clear();
    short.drops.clear();
    short.slowest.clear();
    short
}

/// Text on its way, compressed or not.
enum Text {
    Plain(Vec<u8>),
    Packed(GzEncoder<Vec<u8>>),
}

impl Text {
    fn new(gzip: bool) -> Self {
        if gzip {
            Self::Packed(GzEncoder::new(Vec::new(), Compression::fast()))
        } else {
            Self::Plain(Vec::new())
        }
    }

    /// What there is so far.
    fn take(&mut self) -> io::Result<Vec<u8>> {
        match self {
            Self::Plain(bytes) => Ok(std::mem::take(bytes)),
            Self::Packed(encoder) => {
                encoder.flush()?;
                Ok(std::mem::take(encoder.get_mut()))
            }
        }
    }

    fn end(self) -> io::Result<Vec<u8>> {
        match self {
            Self::Plain(bytes) => Ok(bytes),
            Self::Packed(encoder) => encoder.finish(),
        }
    }
}

impl io::Write for Text {
    fn write(&mut self, data: &[u8]) -> io::Result<usize> {
        match self {
            Self::Plain(bytes) => bytes.write(data),
            Self::Packed(encoder) => encoder.write(data),
        }
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

/// Frames as they come, until the client leaves or the server ends.
pub(super) fn live(hub: Arc<Hub>, place: OwnedSemaphorePermit, end: watch::Receiver<bool>) -> Response<Body> {
    let (sender, pieces) = Body::pieces();
    tokio::spawn(async move {
        let _place = place;
        let mut follower = Follower { sent: Sent::default(), hub, to: sender };
        // It ends when the client left.
        let _ = follower.follow(end).await;
    });
    let mut response = Response::new(pieces);
    *response.status_mut() = StatusCode::OK;
    body::set(&mut response, header::CONTENT_TYPE, "text/event-stream");
    response
}

struct Follower {
    hub: Arc<Hub>,
    to: mpsc::Sender<Bytes>,
    sent: Sent,
}

/// What the client has.
#[derive(Default)]
struct Sent {
    findings: Option<Arc<Vec<crate::recommend::Finding>>>,
    changes: Option<Arc<Vec<crate::agent::ChangeRow>>>,
}

impl Follower {
    async fn follow(&mut self, mut end: watch::Receiver<bool>) -> io::Result<()> {
        let mut feed = self.hub.frame_feed();
        send(&self.to, format!("retry: {AGAIN_MS}\n\n").into_bytes()).await?;
        self.rest().await?;
        // What was latest when it came, so that nobody looks at an empty page for a window.
        if let Some(frame) = self.hub.frames().last() {
            self.event("frame", &**frame).await?;
        }
        loop {
            tokio::select! {
                frame = feed.recv() => match frame {
                    Ok(frame) => {
                        self.rest().await?;
                        self.event("frame", &*frame).await?;
                    }
                    // It was too slow; it can ask for what it missed.
                    Err(RecvError::Lagged(missed)) => self.event("missed", &missed).await?,
                    Err(RecvError::Closed) => return self.event("end", &"the agent ended").await,
                },
                () = told(&mut end) => return self.event("end", &"the agent ended").await,
                () = tokio::time::sleep(BEAT) => send(&self.to, b": still here\n\n".to_vec()).await?,
            }
        }
    }

    /// What is told beside frames.
    async fn rest(&mut self) -> io::Result<()> {
        let status = self.hub.status();
        self.event("status", &*status).await?;
        let findings = self.hub.findings();
        if self.sent.findings.as_ref() != Some(&findings) {
            self.event("findings", &Advice::new(&status.hostname, findings.to_vec())).await?;
            self.sent.findings = Some(findings);
        }
        let changes = self.hub.changes();
        if self.sent.changes.as_ref() != Some(&changes) {
            self.event("changes", &*changes).await?;
            self.sent.changes = Some(changes);
        }
        Ok(())
    }

    async fn event(&self, name: &str, data: &impl Serialize) -> io::Result<()> {
        // JSON has no line breaks of its own, so that it is one `data` line.
        let mut text = format!("event: {name}\ndata: ").into_bytes();
        serde_json::to_writer(&mut text, data)?;
        text.extend_from_slice(b"\n\n");
        send(&self.to, text).await
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::snapshot::sample;
    use std::io::Read as _;

    async fn written(frames: &[Arc<Frame>], brief: bool, gzip: bool) -> Vec<u8> {
        let (to, mut pieces) = mpsc::channel(1);
        let frames = frames.to_vec();
        let writer = tokio::spawn(async move { write_frames(&frames, brief, gzip, &to).await.unwrap() });
        let mut all = Vec::new();
        while let Some(piece) = pieces.recv().await {
            all.extend_from_slice(&piece);
        }
        writer.await.unwrap();
        all
    }

    #[tokio::test]
    async fn frames_come_out_whole_brief_and_compressed() {
        let frame = |n: u64| Arc::new(Frame { at_unix_ms: n, ..Frame::of(&sample::rich()) });
        for n in [0, 1, AT_A_TIME, 3 * AT_A_TIME + 5] {
            let frames: Vec<_> = (0..n as u64).map(frame).collect();
            let plain = written(&frames, false, false).await;
            let read: Vec<Frame> = serde_json::from_slice(&plain).unwrap();
            assert!(read.iter().eq(frames.iter().map(|frame| &**frame)));
            let packed = written(&frames, false, true).await;
            let mut text = Vec::new();
            flate2::read::GzDecoder::new(&packed[..]).read_to_end(&mut text).unwrap();
            assert_eq!(text, plain);
            let brief: Vec<Frame> = serde_json::from_slice(&written(&frames, true, false).await).unwrap();
            assert_eq!(brief.len(), n);
            assert!(
                brief.iter().all(|f| f.dns.names.is_empty() && f.signals.iter().all(|s| s.scope == "all"))
            );
            assert!(brief.iter().all(|f| !f.signals.is_empty() && f.dns.transactions > 0));
        }
    }
}
