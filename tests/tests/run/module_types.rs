//! A module's types, where the kernel tells them: since 5.11, of modules that were built with the kernel.

use nettrace::btf::{Btf, VMLINUX};
use std::path::Path;

/// Types of the module for connection tracking: its own are found, and what both have lies at the same place.
#[test]
fn a_modules_own_structures_are_found() {
    let module = Path::new("/sys/kernel/btf/nf_conntrack");
    if !module.exists() {
        println!("skipped: this kernel has no types of such a module, or connection tracking built in");
        return;
    }
    let kernel = Btf::open(Path::new(VMLINUX)).unwrap();
    let joined = kernel.with_module(module).unwrap();
    // `struct conntrack_gc_work` is in net/netfilter/nf_conntrack_core.c alone.
    let own = "conntrack_gc_work.dwork";
    assert!(kernel.member(own).is_none() && joined.member(own).is_some(), "{own}");
    assert!(joined.member("nf_conn.status").is_some());
    assert_eq!(joined.member("sk_buff._nfct"), kernel.member("sk_buff._nfct"));
}
