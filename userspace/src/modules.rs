//! Whether a part of the kernel can be asked without loading its module: measuring changes nothing, and a question to a part
//! that is not there makes the kernel look for one.
//!
//! Needs: procfs and sysfs; for what is built in, the list beside the modules. Yields: yes or no, or why that is not known.

use std::{fs, io, path::Path};

/// Whether the kernel below a root directory has a module, was built with it, or loads none. A module has a directory in sysfs
/// when it is loaded; what is built in is listed beside the modules.
///
/// # Errors
/// When that list cannot be read, as in a container: what is built in does not show otherwise.
pub(crate) fn is_there(root: &Path, module: &str) -> io::Result<bool> {
    let loads_none = || {
        let disabled = fs::read_to_string(root.join("proc/sys/kernel/modules_disabled"));
        !root.join("proc/modules").exists() || disabled.is_ok_and(|value| value.trim() == "1")
    };
    if root.join("sys/module").join(module).exists() || loads_none() {
        return Ok(true);
    }
    let release = fs::read_to_string(root.join("proc/sys/kernel/osrelease"))?;
    let list = fs::read_to_string(root.join("lib/modules").join(release.trim()).join("modules.builtin"))?;
    let file = format!("/{module}.ko");
    Ok(list.lines().any(|line| line.ends_with(&file)))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_neither_loaded_nor_built_in_is_not_there() {
        let root = tempfile::tempdir().unwrap();
        let make = |path: &str, text: &str| {
            let path = root.path().join(path);
            fs::create_dir_all(path.parent().unwrap()).unwrap();
            fs::write(path, text).unwrap();
        };
        let there = || is_there(root.path(), "nf_tables");
        assert!(there().unwrap(), "a kernel without modules");
        make("proc/modules", "");
        assert!(there().is_err(), "the kernel's release is not known");
        make("proc/sys/kernel/osrelease", "6.1\n");
        assert!(there().is_err(), "no list: it may be built in");
        make("lib/modules/6.1/modules.builtin", "kernel/net/netfilter/nfnetlink.ko\n");
        assert!(!there().unwrap(), "a module that is not loaded");
        make("lib/modules/6.1/modules.builtin", "kernel/net/netfilter/nf_tables.ko\n");
        assert!(there().unwrap(), "built in");
        make("lib/modules/6.1/modules.builtin", "");
        make("proc/sys/kernel/modules_disabled", "1\n");
        assert!(there().unwrap(), "a kernel that loads no more modules");
        make("proc/sys/kernel/modules_disabled", "0\n");
        make("sys/module/nf_tables/initstate", "live\n");
        assert!(there().unwrap(), "a module that is loaded");
    }
}
