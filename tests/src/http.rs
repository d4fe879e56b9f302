//! One request over HTTP/1.1 at a time, by hand: what a server answers is looked at as it comes.

use anyhow::{Context as _, Result};
use std::{
    io::{Read as _, Write as _},
    net::TcpStream,
    time::Duration,
};

/// Longest wait for an answer.
const PATIENCE: Duration = Duration::from_secs(20);

/// Asks whoever listens at `address`, as the calling thread's namespace reaches it. Yields the head and the body of the answer.
///
/// # Errors
/// When there is no whole answer.
pub fn ask(address: &str, method: &str, path: &str) -> Result<String> {
    let mut stream = TcpStream::connect(address).with_context(|| address.to_owned())?;
    stream.set_read_timeout(Some(PATIENCE))?;
    let request = format!(
        "{method} {path} HTTP/1.1\r\nHost: {address}\r\nContent-Length: 0\r\nConnection: close\r\n\r\n"
    );
    stream.write_all(request.as_bytes())?;
    let mut answer = String::new();
    stream.read_to_string(&mut answer)?;
    let (head, body) = answer.split_once("\r\n\r\n").context("an answer without an end of its head")?;
    match head.to_ascii_lowercase().contains("transfer-encoding: chunked") {
        true => Ok(format!("{head}\r\n\r\n{}", whole(body)?)),
        false => Ok(answer),
    }
}

/// The sum of a metric's series in what `/metrics` answers, exemplars left out.
#[must_use]
pub fn sum(metrics: &str, name: &str) -> f64 {
    let value = |line: &str| {
        let rest = line.strip_prefix(name)?.split(" # ").next()?;
        rest.rsplit(' ').next()?.parse::<f64>().ok()
    };
    metrics.lines().filter_map(value).sum()
}

/// A body that came in chunks (RFC 9112, 7.1).
fn whole(mut chunked: &str) -> Result<String> {
    let mut body = String::new();
    while let Some((length, rest)) = chunked.split_once("\r\n") {
        let length = usize::from_str_radix(length, 16)?;
        body.push_str(rest.get(..length).context("a chunk is cut")?);
        chunked = rest.get(length + 2..).context("a chunk has no end")?;
    }
    Ok(body)
}
