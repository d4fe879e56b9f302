//! Files that nettrace writes for others to read at the next start: one for each setting.

use super::{super::atomic, ChangeError, Kind, Setting, as_written, no_link, no_trial};
use std::{fs, io, path::Path};

pub(super) const KIND: Kind = Kind {
    name: "file",
    key: "PATH",
    value: "TEXT",
    about: "A file of nettrace's own, by which a setting outlives a reboot.",
    example: "file:/etc/sysctl.d/zz-nettrace-net.core.somaxconn.conf=...",
    of_machine: true,
    read,
    plan,
    write,
    is_made_of: as_written,
    trial: no_trial,
    shown,
    link: no_link,
};

/// Where systemd-sysctl(8) and procps read settings; of files there the last in alphabetical order has the last word.
pub(super) const SYSCTL_DIR: &str = "/etc/sysctl.d";
const PREFIX: &str = "zz-nettrace-";
/// How a file that is not there is written.
const ABSENT: &str = "absent";
/// Before the text of one that is.
const TEXT: &str = "text:";

/// The file that keeps a kernel setting.
pub(super) fn of_sysctl(name: &str, value: &str) -> Setting {
    let file = name.replace('/', "-");
    Setting {
        kind: &KIND,
        key: format!("{SYSCTL_DIR}/{PREFIX}{file}.conf"),
        value: format!(
            "# Set by `nettrace apply --persist`; `nettrace rollback` takes it away.\n{name} = {value}\n"
        ),
    }
}

fn read(path: &str) -> Result<String, ChangeError> {
    match fs::read(path) {
        Ok(bytes) => Ok(format!("{TEXT}{}", String::from_utf8_lossy(&bytes))),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(ABSENT.to_owned()),
        Err(error) => Err(ChangeError::of(path, "", error)),
    }
}

fn plan(path: &str, wanted: &str, _: &str) -> Result<String, ChangeError> {
    let dir = Path::new(path).parent().unwrap_or(Path::new("/"));
    if !dir.is_dir() {
        let error = io::Error::from(io::ErrorKind::NotFound);
        return Err(ChangeError::Missing { what: dir.display().to_string(), error });
    }
    Ok(format!("{TEXT}{wanted}"))
}

fn write(path: &str, _: &str, value: &str) -> Result<(), ChangeError> {
    let written = match value.strip_prefix(TEXT) {
        Some(text) => atomic::replace(Path::new(path), text.as_bytes(), 0o644),
        None => fs::remove_file(path)
            .and_then(|()| atomic::sync_dir(Path::new(path).parent().unwrap_or(Path::new("/")))),
    };
    written.map_err(|error| ChangeError::of_write(path, &shown(value), error))
}

fn shown(value: &str) -> String {
    let text = value.strip_prefix(TEXT).unwrap_or(value);
    let lines: Vec<_> = text.lines().filter(|line| !line.starts_with('#')).collect();
    lines.join("; ")
}
