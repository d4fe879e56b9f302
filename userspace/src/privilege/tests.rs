//! What is said, and what is expected of a thread. What really goes is tested in a process of its own, by
//! `tests/tests/privilege.rs`.

use super::*;

#[test]
fn the_section_has_defaults_and_refuses_what_it_does_not_know() {
    let config: PrivilegeConfig = toml::from_str("").unwrap();
    assert_eq!(config, PrivilegeConfig::default());
    assert!(config.drop && config.seccomp && config.landlock && config.statistics);
    let config: PrivilegeConfig = toml::from_str("seccomp = false\nread = ['/srv/token']").unwrap();
    assert!(!config.seccomp && config.landlock && config.read == [PathBuf::from("/srv/token")]);
    let error = toml::from_str::<PrivilegeConfig>("capabilities = true").unwrap_err().to_string();
    assert!(error.contains("capabilities") && error.contains("seccomp"), "{error}");
}

#[test]
fn namespaces_say_what_is_needed_for_them() {
    let of = |paths: &[Option<&str>]| Needs::of_namespaces(paths.iter().map(|path| path.map(Path::new)));
    assert_eq!(of(&[None]), Needs::default());
    let named = of(&[None, Some("/run/netns/blue")]);
    assert!(named.namespaces && !named.processes);
    assert!(of(&[Some("/proc/17/ns/net")]).processes);
}

#[test]
fn what_is_in_force_is_said_in_words_and_what_is_not_with_its_reason() {
    let status = Status {
        capabilities: Some(vec!["CAP_BPF".to_owned(), "CAP_NET_ADMIN".to_owned()]),
        bounding: Part::On("empty".to_owned()),
        landlock: Part::Off("this kernel has none".to_owned()),
        late: vec!["17 (node)".to_owned()],
        ..Status::default()
    };
    assert_eq!(
        status.words(),
        [
            "capabilities: CAP_BPF, CAP_NET_ADMIN",
            "bounding set: empty",
            "seccomp: off, switched off in the configuration",
            "Landlock: off, this kernel has none",
            "run-time statistics: off, switched off in the configuration",
            "not yet: 17 (node), which waits in the kernel",
        ]
    );
    assert!(Status::default().words()[0].contains("all kept"));
}

#[test]
fn a_thread_that_kept_more_is_found() {
    let text = "Name:\tx\nCapInh:\t0000000000000000\nCapPrm:\t0000000000000000\nCapEff:\t0000000000000000\n\
                CapAmb:\t0000000000000000\nNoNewPrivs:\t1\nSeccomp:\t2\n";
    let config = PrivilegeConfig::default();
    // CAP_SYS_ADMIN stands for what was split off.
    let kept = Sets::statistics().kept(&Needs::default());
    let expected = Expected { config: &config, kept, keeper: None };
    let wrong = expected.check_one(7, "7 (x)", text).unwrap_err().to_string();
    assert!(wrong.contains("thread 7 (x): CapEff is 0000000000000000 and not"), "{wrong}");
    let admin = text.replace("0000000000000000\nCapAmb", "0000000000200000\nCapAmb");
    let admin = admin.replace("CapPrm:\t0000000000000000", "CapPrm:\t0000000000200000");
    let keeper = Expected { keeper: Some(7), ..expected };
    keeper.check_one(7, "7 (statistics)", &admin).unwrap();
    let lax = admin.replace("Seccomp:\t2", "Seccomp:\t0");
    let wrong = keeper.check_one(7, "7 (statistics)", &lax).unwrap_err().to_string();
    assert!(wrong.contains("Seccomp is 0 and not 2"), "{wrong}");
}
