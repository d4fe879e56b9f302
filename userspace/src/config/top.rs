//! What `top` is to show, and from where.

use super::{Capture, UsageError, capture};
use crate::{cli::TopArgs, top::plain::Format};
use std::{path::PathBuf, time::Duration};

/// A window that is shorter has hardly any packets in it, and costs more than it tells.
pub(super) const MIN_INTERVAL: Duration = Duration::from_millis(200);
/// Who waits longer for a window has no use for a live page.
pub(super) const MAX_INTERVAL: Duration = Duration::from_secs(3600);

/// What is to be shown, and how.
#[derive(Clone, Debug)]
pub struct Top {
    /// Where frames come from.
    pub source: TopSource,
    /// How long; none for until somebody ends it.
    pub duration: Option<Duration>,
    /// Whether it ends with the first frame.
    pub once: bool,
    /// What frames are written as; none for the screen where there is one.
    pub format: Option<Format>,
    /// Whether nothing but ASCII is shown.
    pub ascii: bool,
}

/// Where frames come from.
#[derive(Clone, Debug)]
pub enum TopSource {
    /// An agent.
    Agent {
        /// Where.
        url: String,
        /// Its token.
        token_file: Option<PathBuf>,
        /// Authorities that its certificate may be from.
        ca_file: Option<PathBuf>,
    },
    /// A capture that is made now.
    Capture {
        /// What is measured.
        capture: Box<Capture>,
        /// How long a window is.
        interval: Duration,
    },
}

pub(super) fn resolve(args: TopArgs, page_bytes: u64) -> Result<Top, UsageError> {
    let TopArgs { agent, token_file, ca_file, interval, once, format, ascii, capture: measured } = args;
    if !(MIN_INTERVAL..=MAX_INTERVAL).contains(&interval) {
        return Err(UsageError::Interval(interval));
    }
    let capture = capture(measured, page_bytes)?;
    let duration = capture.duration;
    let source = match agent {
        Some(url) => TopSource::Agent { url, token_file, ca_file },
        None => TopSource::Capture { capture: Box::new(capture), interval },
    };
    Ok(Top { source, duration, once, format, ascii })
}
