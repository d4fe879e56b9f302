//! `frag`.
