//! `recording`.
