use super::*;

#[test]
fn settings_are_typed_as_their_examples() {
    for kind in offered() {
        let parsed = parse(kind.example).unwrap();
        assert_eq!(parsed.kind.name, kind.name);
        assert!(kind.syntax().starts_with(kind.name), "{}", kind.syntax());
    }
    for (n, kind) in KINDS.iter().enumerate() {
        assert!(KINDS[n + 1..].iter().all(|other| other.name != kind.name), "{}", kind.name);
    }
}

#[test]
fn what_is_mistyped_is_told() {
    let error = |text: &str| parse(text).err().unwrap().to_string();
    assert!(error("syscl:net.core.somaxconn=1").contains("(`sysctl`?)"));
    assert!(error("net.core.somaxconn").contains("KIND:KEY=VALUE"));
    assert!(error("mtu=1400").contains("mtu:INTERFACE=BYTES"));
    assert!(error("mtu:eth0=").contains("mtu:INTERFACE=BYTES"));
    assert!(error("tuned:x=y").contains("tuned=PROFILE"));
    assert!(error("file:/etc/passwd=x").contains("no change of kind `file`"));
}

/// Whatever is typed, there is an answer and no panic; and nothing outside of what a kind is about is looked at.
#[test]
fn odd_keys_and_values_are_refused() {
    let odd = [
        "",
        " ",
        "..",
        "/",
        "../../etc/passwd",
        "net/../kernel/panic",
        "a b",
        "ü",
        "-1",
        "999999999999999999999",
        ":",
        "\0",
    ];
    for kind in KINDS.iter().filter(|kind| kind.name != file::KIND.name) {
        for key in odd {
            for value in odd {
                let read = (kind.read)(key);
                let planned = (kind.plan)(key, value, read.as_deref().unwrap_or(""));
                assert!(read.is_err() || planned.is_err(), "{} {key:?} {value:?}", kind.name);
            }
        }
    }
}

#[test]
fn kernel_settings_keep_their_form() {
    let plan = |wanted, now| (sysctl::KIND.plan)("net.ipv4.tcp_rmem", wanted, now);
    assert_eq!(plan("1  2 3", "4096\t131072\t6291456").unwrap(), "1\t2\t3");
    assert_eq!(plan("cubic", "bbr").unwrap(), "cubic");
    for (wanted, now) in [("1 2", "4096\t131072\t6291456"), ("many", "128"), ("1 2", "128")] {
        assert!(matches!(plan(wanted, now), Err(ChangeError::Value { .. })), "{wanted}");
    }
    assert!(sysctl::KIND.is_same("1 2 3", "1\t2\t3"));
    assert!(!sysctl::KIND.is_same("1 2 3", "1 23"));
    let rounded = |found| (sysctl::KIND.is_made_of)("net.netfilter.nf_conntrack_buckets", "100000", found);
    assert_eq!(["100352", "100000", "99999", "200000", "x"].map(rounded), [true, true, false, false, false]);
    let fails = |name| (sysctl::KIND.read)(name).err().unwrap().to_string();
    assert!(fails("kernel.panic").contains("below net."));
    assert!(fails("net.ipv4.ip_forward").contains("could not be restored exactly"));
    assert!(fails("net.core.no_such").contains("is not there"));
}

#[test]
fn masks_have_the_kernels_form() {
    let plan = |wanted, now| (rps::KIND.plan)("eth0:0", wanted, now);
    assert_eq!(plan("0xF", "00").unwrap(), "0f");
    assert_eq!(plan("1,00000000", "00000000,00000000").unwrap(), "00000001,00000000");
    assert_eq!(plan("3", "0000,00000000").unwrap(), "0000,00000003");
    assert!(plan("100", "00").is_err() && plan("x", "00").is_err());
}

#[test]
fn queues_are_told_without_their_options_bytes() {
    let shown = |value| (qdisc::KIND.shown)(value);
    assert_eq!(shown("default noqueue"), "noqueue (default)");
    assert_eq!(shown("6e00: fq_codel 0102"), "fq_codel");
    assert_eq!(shown("6e00: pfifo e8030000"), "pfifo 1000");
    assert_eq!(shown("6e00: mq of fq -, fq 01, fq -"), "mq of fq");
    let made = |written, found| (qdisc::KIND.is_made_of)("eth0", written, found);
    assert!(made("6e00: fq -", "6e00: fq 0102"));
    assert!(made("6e00: mq of fq -", "6e00: mq of fq 01, pfifo_fast -"));
    assert!(!made("6e00: fq -", "8001: fq 0102") && !made("8001: fq -", "8001: fq 01"));
}
