//! Rules that drop known packets, with the counter that says how many.

use anyhow::{Context, Result, bail};
use nettrace::lab::Netns;
use std::{
    io::Write,
    process::{Command, Stdio},
};

/// One table `inet t` with one chain `c`, as a hook and its rules. Rules may count in `counter name n`.
#[derive(Clone, Copy, Debug)]
pub struct Nft<'a> {
    /// Such as `type filter hook input priority 0`.
    pub hook: &'a str,
    /// One a line.
    pub rules: &'a [&'a str],
}

/// Loads rules into a namespace, where they stay.
///
/// # Errors
/// When `nft` is missing or refuses them.
pub fn nft(netns: &Netns, what: &Nft<'_>) -> Result<()> {
    let script = format!(
        "add table inet t\nadd counter inet t n\nadd chain inet t c {{ {}; }}\n{}",
        what.hook,
        what.rules.iter().map(|rule| format!("add rule inet t c {rule}\n")).collect::<String>(),
    );
    nft_script(netns, &script)
}

/// Runs a script of `nft` commands or tables in a namespace.
///
/// # Errors
/// When `nft` is missing or refuses it.
pub fn nft_script(netns: &Netns, script: &str) -> Result<()> {
    let output = netns.run(|| {
        let mut child = Command::new("nft")
            .args(["-f", "-"])
            .stdin(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .context("nft cannot be run; install the package nftables")?;
        // Dropped at once, so that nft sees the end.
        child.stdin.take().context("nft")?.write_all(script.as_bytes())?;
        anyhow::Ok(child.wait_with_output()?)
    })??;
    if !output.status.success() {
        let refused: String = script.lines().take(20).collect::<Vec<_>>().join("\n");
        bail!("nft refused\n{refused}\n{}", String::from_utf8_lossy(&output.stderr));
    }
    Ok(())
}

/// Rules as kube-proxy has them for so many Services, none of them with an address of the lab: one rule each, or one map
/// for all. Without a chain that translates, connections would not be tracked: one is there without any Service, too.
#[must_use]
pub fn services(count: u32, map: bool) -> String {
    let each = |line: fn(u32, String) -> String| -> String {
        (0..count).map(|n| line(n, format!("10.96.{}.{}", n >> 8, n & 255))).collect()
    };
    let chains = each(|n, _| format!("chain KUBE-SVC-{n} {{ dnat to 10.244.200.1; }}\n"));
    let rules = if map {
        let elements = each(|n, address| format!("{address} . 80 : goto KUBE-SVC-{n},\n"));
        format!("ip daddr . udp dport vmap {{\n{elements}}}\n")
    } else {
        each(|n, address| format!("ip daddr {address} udp dport 80 jump KUBE-SVC-{n}\n"))
    };
    format!(
        "table ip nat {{\nchain other {{ dnat to 10.244.200.1; }}\n{chains}chain KUBE-SERVICES {{\n{rules}}}\nchain PREROUTING {{\n\
         type nat hook prerouting priority -100;\njump KUBE-SERVICES\n}}\n}}\n"
    )
}

/// Packets that `counter name n` has counted.
///
/// # Errors
/// When nft cannot say.
pub fn counted(netns: &Netns) -> Result<u64> {
    let text = super::output(netns, "nft", "nftables", &["list", "counter", "inet", "t", "n"])?;
    let mut words = text.split_whitespace();
    words.find(|word| *word == "packets").context("nft counts no packets")?;
    Ok(words.next().context("nft says no number")?.parse()?)
}

/// Has a namespace send everything that it forwards under an address of its own.
///
/// # Errors
/// As [`nft`].
pub fn masquerade(netns: &Netns, address: std::net::Ipv4Addr) -> Result<()> {
    let chain = "{ type nat hook postrouting priority 100; }";
    super::output(netns, "nft", "nftables", &["add", "chain", "inet", "t", "s", chain])?;
    let to = address.to_string();
    super::output(netns, "nft", "nftables", &["add", "rule", "inet", "t", "s", "snat", "ip", "to", &to])?;
    Ok(())
}
