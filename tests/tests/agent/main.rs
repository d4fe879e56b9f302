//! The agent, end to end.

#![expect(clippy::unwrap_used, reason = "a test that cannot go on fails where it stands")]

mod run;
mod soak;
mod windows;
