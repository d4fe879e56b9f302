//! `drop`.
