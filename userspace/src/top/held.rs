//! Standard error, which would write over the screen: what is logged while there is one is held back until it is gone.
//!
//! Needs lines of the log; yields them to standard error, now or later.

use std::{
    io::{self, Write},
    sync::{Mutex, MutexGuard, PoisonError},
};

/// So much is kept, bytes; what comes after is counted.
const MOST: usize = 64 << 10;

#[derive(Debug)]
struct Held {
    text: Vec<u8>,
    lost: usize,
}

/// None while there is no screen.
static HELD: Mutex<Option<Held>> = Mutex::new(None);

fn held() -> MutexGuard<'static, Option<Held>> {
    // A text is whole at any time.
    HELD.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Writes to standard error, or keeps it while there is a screen. For the log.
#[derive(Clone, Copy, Debug)]
pub struct Stderr;

/// A writer for the log.
#[must_use]
pub const fn stderr() -> Stderr {
    Stderr
}

impl Write for Stderr {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        match &mut *held() {
            None => io::stderr().write(bytes),
            Some(held) => {
                let fits = bytes.len().min(MOST - held.text.len());
                held.text.extend_from_slice(&bytes[..fits]);
                held.lost += bytes.len() - fits;
                Ok(bytes.len())
            }
        }
    }

    fn flush(&mut self) -> io::Result<()> {
        io::stderr().flush()
    }
}

/// From now on there is a screen.
pub(super) fn hold() {
    *held() = Some(Held { text: Vec::new(), lost: 0 });
}

/// The last line that is held, without the end that is not there yet.
pub(super) fn last_line() -> Option<String> {
    let held = held();
    let text = String::from_utf8_lossy(&held.as_ref()?.text).into_owned();
    text.lines().last().map(str::to_owned)
}

/// The screen is gone: what was held is written.
pub(super) fn release() {
    let Some(Held { text, lost }) = held().take() else { return };
    let mut out = io::stderr().lock();
    // There is nobody else to tell.
    let _ = out.write_all(&text);
    if lost > 0 {
        let _ = writeln!(out, "\nnettrace: {lost} bytes of the log were left out");
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_logged_waits_for_the_end_of_the_screen() {
        hold();
        stderr().write_all(b"first\nsecond\n").unwrap();
        assert_eq!(last_line().as_deref(), Some("second"));
        stderr().write_all(&vec![b'x'; 2 * MOST]).unwrap();
        {
            let held = held();
            let held = held.as_ref().unwrap();
            assert_eq!((held.text.len(), held.lost), (MOST, MOST + 13));
        }
        *held() = None;
        assert_eq!(last_line(), None);
    }
}
