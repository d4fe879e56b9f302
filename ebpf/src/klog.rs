//! Verbose logs from kernel programs, for those who change them.
//!
//! Compiled in by `cargo xtask build-ebpf --kernel-log` only: format strings, the log ring and the code that fills it
//! have no place in a program that runs for every packet. User space shows them with `-vv`.

/// Logs one line at level debug; nothing, not even its arguments, without the feature.
macro_rules! klog {
    ($ctx:expr, $($arg:tt)+) => {
        #[cfg(feature = "kernel-log")]
        aya_log_ebpf::debug!($ctx, $($arg)+)
    };
}
pub(crate) use klog;
