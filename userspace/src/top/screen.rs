//! The terminal: raw mode and the alternate screen, and how both end.
//!
//! Needs a [`Feed`] and a [`State`]; yields nothing but what is seen. However this ends, by a key, a signal, an error or a
//! panic, the terminal is as it was before.

use super::{Feed, State, draw, held};
use crate::capture::CaptureError;
use ratatui::{
    DefaultTerminal,
    crossterm::event::{self, Event, KeyEventKind},
};
use std::{
    io,
    sync::atomic::{AtomicBool, Ordering},
    time::{Duration, Instant},
};

/// How long a key is waited for before updates are looked after.
const TICK: Duration = Duration::from_millis(50);
/// What grows older is drawn anew so often.
const REDRAW: Duration = Duration::from_secs(1);

/// Why it ended by itself.
#[derive(Debug, thiserror::Error)]
pub enum TopError {
    /// The terminal.
    #[error("the terminal: {0}")]
    Terminal(#[from] io::Error),
    /// The capture.
    #[error(transparent)]
    Capture(#[from] CaptureError),
}

/// A terminal in our hands.
struct Screen {
    terminal: DefaultTerminal,
}

impl Screen {
    /// From now on a panic gives it back, too, before it is told.
    fn open() -> io::Result<Self> {
        held::hold();
        match ratatui::try_init() {
            Ok(terminal) => Ok(Self { terminal }),
            Err(error) => {
                give_back();
                Err(error)
            }
        }
    }

    fn draw(&mut self, state: State, now_ms: u64) -> io::Result<State> {
        let size = self.terminal.size()?;
        let state = state.sized(size.width, size.height);
        self.terminal.draw(|frame| draw::draw(&state, now_ms, frame.buffer_mut()))?;
        Ok(state)
    }
}

impl Drop for Screen {
    fn drop(&mut self) {
        give_back();
    }
}

fn give_back() {
    // There is no other terminal to tell it on.
    let _ = ratatui::try_restore();
    held::release();
}

/// Shows what comes until a key, the time, an interrupt or an error ends it.
///
/// # Errors
/// When the terminal fails, or the capture.
pub fn run(
    feed: Feed,
    state: State,
    limit: Option<Duration>,
    interrupted: &AtomicBool,
) -> Result<(), TopError> {
    let mut screen = Screen::open()?;
    let shown = show(&mut screen, &feed, state, limit, interrupted);
    drop(screen);
    // After the screen: detaching takes a moment, in which nobody wants to look at what is over.
    let ended = feed.end();
    shown?;
    Ok(ended?)
}

fn show(
    screen: &mut Screen,
    feed: &Feed,
    mut state: State,
    limit: Option<Duration>,
    interrupted: &AtomicBool,
) -> io::Result<()> {
    let started = Instant::now();
    let now_ms = || u64::try_from(started.elapsed().as_millis()).unwrap_or(u64::MAX);
    let mut drawn: Option<Instant> = None;
    while !state.is_over() && !interrupted.load(Ordering::Relaxed) {
        if limit.is_some_and(|limit| started.elapsed() >= limit) {
            break;
        }
        let mut news = false;
        loop {
            match feed.next(Duration::ZERO) {
                Ok(Some(update)) => state = state.update(update, now_ms()),
                Ok(None) => break,
                // Why is told by `Feed::end`.
                Err(_) => return Ok(()),
            }
            news = true;
        }
        if news || drawn.is_none_or(|at| at.elapsed() >= REDRAW) {
            state = screen.draw(state.noted(held::last_line().as_deref()), now_ms())?;
            drawn = Some(Instant::now());
            fault(&state);
        }
        while !state.is_over() && event::poll(if news { Duration::ZERO } else { TICK })? {
            match event::read()? {
                Event::Key(key) if key.kind != KeyEventKind::Release => state = state.key(key),
                Event::Resize(..) => {}
                _ => continue,
            }
            // What is pasted, or typed ahead, is taken in whole.
            news = true;
            drawn = None;
        }
    }
    Ok(())
}

/// Where a test has the process panic: with a frame on the screen. Nothing in a release.
#[cfg(debug_assertions)]
fn fault(state: &State) {
    let asked_for = state.frame().is_some() && std::env::var_os("NETTRACE_TOP_PANIC").is_some();
    assert!(!asked_for, "a test asked for this panic");
}

#[cfg(not(debug_assertions))]
const fn fault(_: &State) {}
