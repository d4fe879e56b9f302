//! The profile of tuned(8), which sets many values at once: it is told, and not written behind its back.

use super::{ChangeError, Kind, as_written, no_link, no_trial};
use std::{
    fs, io,
    path::Path,
    process::{Command, Stdio},
    thread,
    time::{Duration, Instant},
};

pub(super) const KIND: Kind = Kind {
    name: "tuned",
    key: "",
    value: "PROFILE",
    about: "The profile of tuned, which sets the machine's and kernel's values as a whole and sets them back by itself.",
    example: "tuned=network-latency",
    of_machine: true,
    read,
    plan,
    write,
    is_made_of: as_written,
    trial: no_trial,
    shown,
    link: no_link,
};

pub(in crate::change) const ACTIVE: &str = "/etc/tuned/active_profile";
/// `auto` where tuned chose the profile by itself.
const MODE: &str = "/etc/tuned/profile_mode";
/// Where profiles are: their administrator's first, and then those that came with it, before and after tuned 2.23.
pub(in crate::change) const PROFILES: &[&str] =
    &["/etc/tuned", "/etc/tuned/profiles", "/usr/lib/tuned", "/usr/lib/tuned/profiles"];
/// A profile may restart services and set each CPU's governor.
const WAIT: Duration = Duration::from_secs(60);
const AUTO: &str = "auto";
const DAEMON: &str = "tuned";
const TOOL: &str = "tuned-adm";

/// `MODE PROFILE`. One that is being set, by a process that was killed since, or by somebody else, is waited for.
fn read(_: &str) -> Result<String, ChangeError> {
    let started = Instant::now();
    while super::super::owner::process(TOOL) {
        if started.elapsed() > WAIT {
            let error = io::Error::other("somebody has been setting its profile for a minute");
            return Err(ChangeError::System { what: "tuned".to_owned(), error });
        }
        thread::sleep(Duration::from_millis(20));
    }
    let of = |file| fs::read_to_string(file).map(|text| text.trim().to_owned());
    let profile = of(ACTIVE).map_err(|error| ChangeError::of("tuned", "", error))?;
    let mode = of(MODE).unwrap_or_default();
    Ok(format!("{} {profile}", if mode == AUTO { AUTO } else { "manual" }))
}

fn plan(_: &str, wanted: &str, _: &str) -> Result<String, ChangeError> {
    let is_there = |dir: &str| Path::new(dir).join(wanted).join("tuned.conf").exists();
    if wanted.contains('/') || !PROFILES.iter().any(|dir| is_there(dir)) {
        return Err(ChangeError::Value {
            what: "the profile of tuned".to_owned(),
            value: wanted.to_owned(),
            why: "there is no such profile; `tuned-adm list` shows them".to_owned(),
        });
    }
    // Its tool writes the profile's name down all the same, and says that all went well.
    if !super::super::owner::process(DAEMON) {
        let error = io::Error::other("its daemon does not run, and would not hear of it");
        return Err(ChangeError::Missing { what: "tuned".to_owned(), error });
    }
    Ok(format!("manual {wanted}"))
}

fn write(_: &str, _: &str, value: &str) -> Result<(), ChangeError> {
    let (mode, profile) = value.split_once(' ').unwrap_or(("manual", value));
    let mut command = Command::new(TOOL);
    match (mode, profile) {
        (AUTO, _) => command.arg("auto_profile"),
        (_, "") => command.arg("off"),
        (_, profile) => command.arg("profile").args(profile.split_whitespace()),
    };
    run(&mut command).map_err(|error| ChangeError::of_write("the profile of tuned", value, error))
}

/// Runs it to its end, or ends it.
fn run(command: &mut Command) -> io::Result<()> {
    let mut child = command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null()).spawn()?;
    let started = Instant::now();
    loop {
        match child.try_wait()? {
            Some(status) if status.success() => return Ok(()),
            Some(status) => return Err(io::Error::other(format!("tuned-adm ended with {status}"))),
            None if started.elapsed() < WAIT => thread::sleep(Duration::from_millis(20)),
            None => {
                child.kill()?;
                child.wait()?;
                return Err(io::Error::other("tuned-adm did not end in a minute"));
            }
        }
    }
}

fn shown(value: &str) -> String {
    let (mode, profile) = value.split_once(' ').unwrap_or(("", value));
    let profile = if profile.is_empty() { "none" } else { profile };
    if mode == AUTO { format!("{profile} (chosen by tuned)") } else { profile.to_owned() }
}
