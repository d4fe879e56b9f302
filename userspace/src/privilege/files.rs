//! Which files the agent may read and write, as rules of Landlock. Before Linux 5.13, and where it is not switched on at boot,
//! there are none, which is said.
//!
//! Landlock looks at opening, making and removing, and not at descriptors that are open. What it does not look at (owner,
//! mode, attributes) is refused by [`super::syscalls`]. Sockets are not files here.

use super::{Needs, Part, PrivilegeConfig, PrivilegeError};
use landlock::{
    ABI, Access as _, AccessFs, BitFlags, CompatLevel, Compatible as _, PathBeneath, PathFd, Ruleset,
    RulesetAttr as _, RulesetCreated, RulesetCreatedAttr as _,
};
use std::{
    io,
    os::fd::OwnedFd,
    path::{Path, PathBuf},
    ptr::null,
};

/// What every run reads: state and settings of kernel and system, namespaces by name, which modules are built in, and what
/// names and times are looked up in.
const READ: &[&str] = &[
    "/proc",
    "/sys",
    "/etc",
    "/run",
    "/var/run",
    "/lib/modules",
    "/usr/lib/modules",
    "/usr/share/zoneinfo",
    "/dev/null",
    "/dev/urandom",
];
/// What is written to besides the agent's own directories.
const WRITE: &[&str] = &["/dev/null"];

/// The newest version whose rights are asked for; a kernel that knows fewer gets those.
const NEWEST: ABI = ABI::V5;

/// The rules, and what they mean here; none where the kernel has no Landlock.
pub(super) fn ruleset(
    config: &PrivilegeConfig,
    needs: &Needs,
) -> Result<(Option<OwnedFd>, Part), PrivilegeError> {
    let abi = match version() {
        Ok(abi) => abi,
        Err(error) => return Ok((None, Part::Off(why_not(&error)))),
    };
    let mut rules = Ruleset::default()
        .set_compatibility(CompatLevel::BestEffort)
        .handle_access(AccessFs::from_all(NEWEST))?
        .create()?;
    let own = needs.read.iter().chain(&config.read).map(PathBuf::as_path);
    for path in READ.iter().map(Path::new).chain(own.map(where_it_is)) {
        // What is not there cannot be read anyway, nor can what may not be opened.
        if let Ok(place) = PathFd::new(path) {
            rules = allow(rules, place, path, reading())?;
        }
    }
    for path in WRITE.iter().map(Path::new) {
        if let Ok(place) = PathFd::new(path) {
            rules = allow(rules, place, path, reading() | AccessFs::WriteFile)?;
        }
    }
    for path in &needs.write {
        let error = |error| PrivilegeError::Directory { path: path.clone(), error: io::Error::other(error) };
        rules = allow(rules, PathFd::new(path).map_err(error)?, path, reading() | writing())?;
    }
    let what = format!("ABI {abi}, {}", told(&needs.write));
    Ok((rules.into(), Part::On(what)))
}

/// The directory of a file: a configuration or a token is replaced by another file of its name, which no rule of the old one is
/// for. The root directory is not one that a file opens.
fn where_it_is(path: &Path) -> &Path {
    let narrow = |dir: &&Path| dir.parent().is_some() && dir.is_absolute();
    if path.is_dir() { path } else { path.parent().filter(narrow).unwrap_or(path) }
}

/// No execution.
fn reading() -> BitFlags<AccessFs> {
    AccessFs::ReadFile | AccessFs::ReadDir
}

/// No devices, and no symbolic links.
fn writing() -> BitFlags<AccessFs> {
    AccessFs::WriteFile
        | AccessFs::Truncate
        | AccessFs::MakeReg
        | AccessFs::MakeDir
        | AccessFs::MakeSock
        | AccessFs::RemoveFile
        | AccessFs::RemoveDir
        | AccessFs::Refer
}

fn allow(
    rules: RulesetCreated,
    place: PathFd,
    path: &Path,
    access: BitFlags<AccessFs>,
) -> Result<RulesetCreated, PrivilegeError> {
    // Rights over what is in a directory make no sense for a file.
    let access = if path.is_dir() { access } else { access & AccessFs::from_file(NEWEST) };
    Ok(rules.add_rule(PathBeneath::new(place, access))?)
}

fn told(write: &[PathBuf]) -> String {
    if write.is_empty() {
        return "writes nowhere".to_owned();
    }
    let paths: Vec<_> = write.iter().map(|path| path.display().to_string()).collect();
    format!("writes to {} alone", paths.join(", "))
}

/// The version that the kernel has (LANDLOCK_CREATE_RULESET_VERSION).
fn version() -> io::Result<i64> {
    // SAFETY: with this flag the call takes no structure, and yields a number.
    let abi = unsafe { libc::syscall(libc::SYS_landlock_create_ruleset, null::<u8>(), 0_usize, 1_u32) };
    if abi < 0 { Err(io::Error::last_os_error()) } else { Ok(abi) }
}

fn why_not(error: &io::Error) -> String {
    match error.raw_os_error() {
        Some(libc::ENOSYS) => "this kernel has no Landlock (Linux 5.13, CONFIG_SECURITY_LANDLOCK)".to_owned(),
        Some(libc::EOPNOTSUPP) => "Landlock is not switched on at boot (lsm=landlock,...)".to_owned(),
        _ => format!("the kernel says: {error}"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_missing_is_told_by_its_error() {
        let why = |errno| why_not(&io::Error::from_raw_os_error(errno));
        assert!(why(libc::ENOSYS).contains("5.13"));
        assert!(why(libc::EOPNOTSUPP).contains("lsm="));
        assert!(why(libc::EPERM).contains("not permitted"));
    }

    #[test]
    fn a_file_that_may_be_replaced_is_read_by_its_directory() {
        let of = |path: &'static str| where_it_is(Path::new(path)).to_str().unwrap();
        assert_eq!(of("/srv/nettrace/agent.toml"), "/srv/nettrace");
        assert_eq!(of("/agent.toml"), "/agent.toml");
        assert_eq!(of("agent.toml"), "agent.toml");
        assert_eq!(of("/proc"), "/proc");
    }

    #[test]
    fn a_directory_that_is_not_there_is_an_error_only_where_it_is_written_to() {
        if let Err(error) = version() {
            println!("not tested: {}", why_not(&error));
            return;
        }
        let config = PrivilegeConfig { read: vec!["/no/such/file".into()], ..PrivilegeConfig::default() };
        let (ruleset, part) = ruleset(&config, &Needs::default()).unwrap();
        assert!(
            ruleset.is_some() && matches!(&part, Part::On(what) if what.ends_with("writes nowhere")),
            "{part:?}"
        );
        let needs = Needs { write: vec!["/no/such/directory".into()], ..Needs::default() };
        let error = super::ruleset(&config, &needs).unwrap_err().to_string();
        assert!(error.contains("/no/such/directory"), "{error}");
    }
}
