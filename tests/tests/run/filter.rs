//! `filter`.
