//! The agent: a capture that runs for months. It closes a window every few seconds, and everything that it shows, keeps
//! and exports is made of windows.

mod hub;
mod status;

pub use hub::{ChangeRow, Hub, Request};
pub use status::{Budget, FlightStatus, HistoryStatus, Status};
