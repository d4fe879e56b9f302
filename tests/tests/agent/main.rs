//! What runs on and on: what it keeps of the past, and of the last seconds.

mod flight;
mod history;
