//! Every branch on made-up machines, and one process that really has no capabilities.

use super::*;
use std::{cell::Cell, process::Command};
use tempfile::TempDir;

/// A machine that is in order until a test breaks it.
struct Fake {
    dir: TempDir,
    arch: &'static str,
    caps: Option<Vec<Capability>>,
    memlock: Option<u64>,
    raised: Cell<bool>,
}

impl Fake {
    fn new() -> Self {
        let fake = Self {
            dir: TempDir::new().unwrap(),
            arch: "x86_64",
            caps: Some(vec![Capability::CAP_BPF, Capability::CAP_PERFMON, Capability::CAP_NET_ADMIN]),
            memlock: Some(65_536),
            raised: Cell::new(false),
        };
        fake.file("proc/sys/kernel/osrelease", "6.1.0-28-amd64\n");
        fake.file("proc/self/uid_map", "         0          0 4294967295\n");
        fake.file("sys/kernel/security/lockdown", "none [integrity] confidentiality\n");
        fake.file(BTF, "");
        fake
    }

    fn file(&self, path: &str, text: &str) {
        let path = self.dir.path().join(path);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(path, text).unwrap();
    }

    fn without(self, path: &str) -> Self {
        fs::remove_file(self.dir.path().join(path)).unwrap();
        self
    }

    fn kernel(self, release: &str) -> Self {
        self.file("proc/sys/kernel/osrelease", release);
        self
    }

    fn caps(mut self, caps: &[Capability]) -> Self {
        self.caps = Some(caps.to_vec());
        self
    }
}

impl Machine for Fake {
    fn root(&self) -> &Path {
        self.dir.path()
    }
    fn arch(&self) -> &str {
        self.arch
    }
    fn capabilities(&self) -> Result<CapsHashSet, caps::errors::CapsError> {
        let caps = self.caps.as_ref().ok_or_else(|| "no /proc".into());
        caps.map(|caps| caps.iter().copied().collect())
    }
    fn raise_memlock(&self) -> Option<u64> {
        self.raised.set(true);
        self.memlock
    }
}

const NEEDS: Needs = Needs { namespaces: false, map_bytes: 8 << 20 };

/// The one line that a machine fails with.
fn line(fake: &Fake, needs: Needs) -> String {
    let error = check(fake, needs).unwrap_err();
    assert_eq!(error.problems.len(), 1, "{error}");
    let line = error.to_string();
    assert!(!line.contains('\n'));
    line.replace(&*fake.dir.path().to_string_lossy(), "")
}

#[test]
fn a_machine_in_order_passes_and_is_left_alone() {
    let fake = Fake::new();
    check(&fake, NEEDS).unwrap();
    assert!(!fake.raised.get());
}

#[test]
fn exactly_the_missing_capabilities_are_named() {
    use Capability::{CAP_BPF, CAP_NET_ADMIN, CAP_PERFMON, CAP_SYS_ADMIN};
    assert_eq!(
        line(&Fake::new().caps(&[CAP_PERFMON, CAP_NET_ADMIN]), NEEDS),
        "missing CAP_BPF; run nettrace with sudo, or grant them: sudo setcap \
         cap_bpf,cap_perfmon,cap_net_admin+ep $(command -v nettrace)"
    );
    assert!(line(&Fake::new().caps(&[CAP_BPF]), NEEDS).starts_with("missing CAP_PERFMON and CAP_NET_ADMIN;"));
    assert!(
        line(&Fake::new().caps(&[]), NEEDS).starts_with("missing CAP_BPF, CAP_PERFMON and CAP_NET_ADMIN;")
    );
    assert!(line(&Fake::new().caps(&[CAP_SYS_ADMIN]), NEEDS).starts_with("missing CAP_NET_ADMIN;"));
    assert!(check(&Fake::new().caps(&[CAP_SYS_ADMIN, CAP_NET_ADMIN]), NEEDS).is_ok());
}

#[test]
fn other_namespaces_need_cap_sys_admin() {
    let needs = Needs { namespaces: true, ..NEEDS };
    let line = line(&Fake::new(), needs);
    assert!(line.starts_with("missing CAP_SYS_ADMIN;"), "{line}");
    assert!(line.contains("cap_bpf,cap_perfmon,cap_net_admin,cap_sys_admin+ep"), "{line}");
    let all = [Capability::CAP_SYS_ADMIN, Capability::CAP_NET_ADMIN];
    assert!(check(&Fake::new().caps(&all), needs).is_ok());
}

#[test]
fn unknown_capabilities_are_a_problem() {
    let fake = Fake { caps: None, ..Fake::new() };
    assert!(line(&fake, NEEDS).starts_with("cannot read this process's capabilities:"));
}

#[test]
fn a_user_namespace_is_recognised() {
    let fake = Fake::new();
    fake.file("proc/self/uid_map", "         0     100000      65536\n");
    assert!(line(&fake, NEEDS).starts_with("this process is in a user namespace"));
    assert!(check(&Fake::new().without("proc/self/uid_map"), NEEDS).is_ok());
}

#[test]
fn old_kernels_are_refused() {
    assert_eq!(
        line(&Fake::new().kernel("5.4.0-150-generic"), NEEDS),
        "kernel 5.4 is too old: nettrace needs 5.10 or newer; boot a newer kernel"
    );
    assert!(line(&Fake::new().kernel("4.18.0"), NEEDS).starts_with("kernel 4.18 is too old"));
    assert!(line(&Fake::new().kernel("Linux"), NEEDS).contains("osrelease: `Linux` is no version"));
    let none = Fake::new().without("proc/sys/kernel/osrelease");
    assert!(line(&none, NEEDS).starts_with("cannot tell the kernel's version"));
}

#[test]
fn releases_are_compared_as_numbers() {
    let parse = |text| Release::parse(text).map(|r| (r.major, r.minor));
    assert_eq!(parse("5.10"), Some((5, 10)));
    assert_eq!(parse("6.18.44-custom\n"), Some((6, 18)));
    assert_eq!(parse("7.0-rc1"), Some((7, 0)));
    for bad in ["", "6", "6.", "6.x", "x.6"] {
        assert_eq!(parse(bad), None, "{bad}");
    }
    assert!(Release::parse("5.9.1") < Some(OLDEST_KERNEL));
}

#[test]
fn btf_that_cannot_be_read_is_a_problem_and_none_is_not() {
    let fake = Fake::new().without(BTF);
    check(&fake, NEEDS).unwrap();
    fs::remove_dir(fake.dir.path().join("sys/kernel/btf")).unwrap();
    fake.file("sys/kernel/btf", "not a directory");
    let line = line(&fake, NEEDS);
    assert!(line.starts_with("cannot read the kernel's BTF, /sys/kernel/btf/vmlinux:"), "{line}");
    assert!(line.contains("CONFIG_DEBUG_INFO_BTF=y"));
}

#[test]
fn lockdown_is_a_problem_only_where_it_forbids_reading() {
    let fake = Fake::new();
    fake.file("sys/kernel/security/lockdown", "none integrity [confidentiality]\n");
    assert!(line(&fake, NEEDS).starts_with("the kernel is locked down"));
    assert!(check(&Fake::new().without("sys/kernel/security/lockdown"), NEEDS).is_ok());
}

#[test]
fn locked_memory_counts_on_old_kernels_only() {
    let old = Fake::new().kernel("5.10.200");
    assert_eq!(
        line(&old, NEEDS),
        "the limit on locked memory is 65536 bytes, and the kernel maps take 8388608 bytes; \
         raise it with `ulimit -l unlimited`, or lower --ring-size"
    );
    assert!(old.raised.get());
    assert!(check(&Fake { memlock: None, ..Fake::new().kernel("5.10.200") }, NEEDS).is_ok());
    assert!(check(&Fake { memlock: Some(8 << 20), ..Fake::new().kernel("5.10.200") }, NEEDS).is_ok());
    let newer = Fake::new().kernel("5.11.0");
    assert!(check(&newer, NEEDS).is_ok() && !newer.raised.get());
}

#[test]
fn an_architecture_without_programs_is_refused() {
    let fake = Fake { arch: "riscv64", ..Fake::new() };
    assert!(line(&fake, NEEDS).starts_with("there are no kernel programs for riscv64"));
}

#[test]
fn all_problems_are_told_at_once() {
    let fake = Fake { arch: "s390x", ..Fake::new().kernel("5.4.0").caps(&[]) };
    let error = check(&fake, NEEDS).unwrap_err();
    assert_eq!(error.to_string().lines().count(), 3, "{error}");
    assert!(!fake.raised.get(), "nothing is changed when the run cannot begin");
    assert_eq!(PreflightError::EXIT as u8, 2);
}

#[test]
fn a_process_without_capabilities_is_told_which() {
    let output = Command::new(std::env::current_exe().unwrap())
        .args(["--exact", "preflight::tests::child_without_capabilities", "--ignored", "--nocapture"])
        .output()
        .unwrap();
    let text = String::from_utf8_lossy(&output.stdout);
    assert!(output.status.success(), "{text}");
    assert!(
        text.contains("missing CAP_BPF, CAP_PERFMON and CAP_NET_ADMIN; run nettrace with sudo"),
        "{text}"
    );
}

#[test]
#[ignore = "gives its capabilities away; run in a process of its own by the test above"]
fn child_without_capabilities() {
    caps::clear(None, CapSet::Effective).unwrap();
    caps::clear(None, CapSet::Permitted).unwrap();
    println!("{}", check(&Host, NEEDS).unwrap_err());
}
