//! Receive packet steering: CPUs that a queue's packets are handed to (Documentation/networking/scaling.rst).

use super::{ChangeError, Kind, as_written, before_colon, no_trial, plain};
use rustix::{
    mount::{MountFlags, MountPropagationFlags, mount, mount_change},
    thread::UnshareFlags,
};
use std::{fs, io, path::PathBuf};

pub(super) const KIND: Kind = Kind {
    name: "rps",
    key: "INTERFACE:QUEUE",
    value: "MASK",
    about: "CPUs that packets of an interface's receive queue are handed to: a mask in hexadecimal, 0 for none.",
    example: "rps:eth0:0=f",
    of_machine: false,
    read,
    plan,
    write,
    is_made_of: as_written,
    trial: no_trial,
    shown: plain,
    link: before_colon,
};

/// Where this thread, and no other, sees the interfaces of its namespace.
const SYS: &str = "/sys";

/// The file of a queue. sysfs shows the namespace in which it was mounted; where that is another one, this thread gets a sysfs
/// of its own, which goes with it.
fn path(key: &str) -> Result<PathBuf, ChangeError> {
    let form = || ChangeError::Form { found: format!("rps:{key}"), expected: KIND.syntax() };
    let (link, queue) = key.split_once(':').ok_or_else(form)?;
    let queue: u32 = queue.parse().map_err(|_| form())?;
    if link.contains('/') || matches!(link, "." | "..") {
        return Err(form());
    }
    let index = super::link(link)?.index;
    let shown = || fs::read_to_string(format!("{SYS}/class/net/{link}/ifindex"));
    if !shown().is_ok_and(|text| text.trim() == index.to_string()) || !is_own() {
        own_sysfs().map_err(|error| ChangeError::of("a sysfs of the network namespace", "", error))?;
    }
    Ok(PathBuf::from(format!("{SYS}/class/net/{link}/queues/rx-{queue}/rps_cpus")))
}

/// Whether this thread is in the namespace of its process, whose /sys it is then.
fn is_own() -> bool {
    let of = |thread: &str| fs::read_link(format!("/proc/{thread}/ns/net")).ok();
    of("self").is_some() && of("self") == of("thread-self")
}

fn own_sysfs() -> io::Result<()> {
    // SAFETY: this thread alone gets mounts, and a root and working directory, of its own; it ends when what is done in the
    // namespace is done, and nothing else runs on it.
    unsafe { rustix::thread::unshare_unsafe(UnshareFlags::NEWNS | UnshareFlags::FS) }?;
    mount_change("/", MountPropagationFlags::PRIVATE | MountPropagationFlags::REC)?;
    Ok(mount("sysfs", SYS, "sysfs", MountFlags::empty(), None)?)
}

fn read(key: &str) -> Result<String, ChangeError> {
    let text = fs::read_to_string(path(key)?)
        .map_err(|error| ChangeError::of(&format!("RPS of {key}"), "", error))?;
    Ok(text.trim_end().to_owned())
}

/// In the kernel's form: groups of eight digits, as wide as it is now.
fn plan(key: &str, wanted: &str, now: &str) -> Result<String, ChangeError> {
    let bad = |why: &str| ChangeError::Value {
        what: format!("RPS of {key}"),
        value: wanted.to_owned(),
        why: why.to_owned(),
    };
    let digits: String = wanted.trim_start_matches("0x").chars().filter(|c| *c != ',').collect();
    if digits.is_empty() || !digits.chars().all(|c| c.is_ascii_hexdigit()) {
        return Err(bad("it must be a mask of CPUs in hexadecimal, such as f for the first four"));
    }
    let digits = digits.trim_start_matches('0').to_ascii_lowercase();
    let width = now.chars().filter(char::is_ascii_hexdigit).count();
    if digits.len() > width {
        return Err(bad("it has more CPUs than this machine"));
    }
    let digits = format!("{digits:0>width$}");
    let mut out = String::new();
    for (n, digit) in digits.chars().enumerate() {
        if n > 0 && (width - n) % 8 == 0 {
            out.push(',');
        }
        out.push(digit);
    }
    Ok(out)
}

fn write(key: &str, _: &str, value: &str) -> Result<(), ChangeError> {
    fs::write(path(key)?, format!("{value}\n"))
        .map_err(|error| ChangeError::of_write(&format!("RPS of {key}"), value, error))
}
