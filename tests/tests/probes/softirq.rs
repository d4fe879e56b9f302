//! `softirq`.
