//! Where things are.

use std::{
    env,
    path::{Path, PathBuf},
};

/// Architectures that the kernel object is built for, as in the file names and in `bpf_target_arch`.
pub(crate) const ARCHES: [&str; 2] = ["x86_64", "aarch64"];

/// Top of the repository.
pub(crate) fn root() -> PathBuf {
    // Cargo sets it for `cargo xtask`; the built-in value serves a binary that is started by itself.
    let xtask = env::var_os("CARGO_MANIFEST_DIR").unwrap_or_else(|| env!("CARGO_MANIFEST_DIR").into());
    Path::new(&xtask).parent().map_or_else(|| PathBuf::from("."), Path::to_path_buf)
}

/// Cargo's output directory.
pub(crate) fn target_dir() -> PathBuf {
    let set = env::var_os("CARGO_TARGET_DIR").map(PathBuf::from);
    set.map_or_else(|| root().join("target"), |dir| root().join(dir))
}

/// Where the kernel objects are kept.
pub(crate) fn kept_dir() -> PathBuf {
    root().join("userspace/bpf")
}

/// File name of an architecture's kept object.
pub(crate) fn object_name(arch: &str) -> String {
    format!("nettrace.{arch}.bpf.o")
}

/// Cargo's home: where it keeps the registry and installs binaries.
pub(crate) fn cargo_home() -> Option<PathBuf> {
    env::var_os("CARGO_HOME")
        .map(PathBuf::from)
        .or_else(|| env::var_os("HOME").map(|home| Path::new(&home).join(".cargo")))
}

/// Where this user's programs keep what they could fetch again.
pub(crate) fn cache_home() -> Option<PathBuf> {
    let set = env::var_os("XDG_CACHE_HOME").filter(|dir| !dir.is_empty()).map(PathBuf::from);
    set.or_else(|| env::var_os("HOME").map(|home| Path::new(&home).join(".cache")))
}
