//! Asking the agent over HTTP.

use anyhow::{Context as _, Result, ensure};
use std::{
    io::{Read as _, Write as _},
    net::{SocketAddr, TcpStream},
    time::{Duration, Instant},
};

/// One reading of the metrics.
pub(crate) struct Scrape {
    pub(crate) seconds: f64,
    pub(crate) bytes: usize,
    pub(crate) series: usize,
    pub(crate) text: String,
}

/// Reads the metrics, in a connection of its own.
pub(crate) fn scrape(address: SocketAddr) -> Result<Scrape> {
    let began = Instant::now();
    let mut stream = TcpStream::connect_timeout(&address, Duration::from_secs(5))?;
    stream.set_read_timeout(Some(Duration::from_secs(10)))?;
    write!(stream, "GET /metrics HTTP/1.1\r\nHost: {address}\r\nConnection: close\r\n\r\n")?;
    let mut answer = Vec::new();
    stream.read_to_end(&mut answer)?;
    let seconds = began.elapsed().as_secs_f64();
    let text = String::from_utf8(answer).context("metrics are text")?;
    ensure!(text.starts_with("HTTP/1.1 200"), "the agent says {}", text.lines().next().unwrap_or_default());
    let (_, body) = text.split_once("\r\n\r\n").context("an answer without a body")?;
    let series = body.lines().filter(|line| !line.starts_with('#') && !line.is_empty()).count();
    Ok(Scrape { seconds, bytes: body.len(), series, text: body.to_owned() })
}

/// The sum of all series of a metric.
pub(crate) fn sum(text: &str, metric: &str) -> f64 {
    let of = |line: &str| {
        let rest = line.strip_prefix(metric)?;
        let value = match rest.strip_prefix('{') {
            Some(labelled) => labelled.rsplit_once("} ")?.1,
            None => rest.strip_prefix(' ')?,
        };
        value.split_ascii_whitespace().next()?.parse::<f64>().ok()
    };
    text.lines().filter_map(of).sum()
}
