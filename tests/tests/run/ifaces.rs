//! `ifaces`.
