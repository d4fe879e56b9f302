//! Running other programs, with errors that name the whole command.

use std::{
    env,
    ffi::OsStr,
    path::{Path, PathBuf},
    process::{Command, Output},
};

use anyhow::{Context, Result, bail};

use crate::workspace;

/// The cargo that runs this task, started at the top of the repository.
pub(crate) fn cargo() -> Command {
    let mut cmd = Command::new(env::var_os("CARGO").unwrap_or_else(|| "cargo".into()));
    cmd.current_dir(workspace::root());
    cmd
}

/// Runs a command with our own stdin, stdout and stderr.
pub(crate) fn run(cmd: &mut Command) -> Result<()> {
    let status = cmd.status().with_context(|| format!("cannot start `{}`", shown(cmd)))?;
    if !status.success() {
        bail!("`{}` failed: {status}", shown(cmd));
    }
    Ok(())
}

/// Runs a command and gives back what it printed, whether it succeeded or not.
pub(crate) fn output(cmd: &mut Command) -> Result<Output> {
    cmd.output().with_context(|| format!("cannot start `{}`", shown(cmd)))
}

/// Runs a command and gives back its stdout; a failure carries its stderr.
pub(crate) fn stdout(cmd: &mut Command) -> Result<String> {
    let out = output(cmd)?;
    if !out.status.success() {
        let stderr = String::from_utf8_lossy(&out.stderr);
        bail!("`{}` failed: {}: {}", shown(cmd), out.status, stderr.trim());
    }
    Ok(String::from_utf8_lossy(&out.stdout).into_owned())
}

/// The command as it could be typed into a shell.
pub(crate) fn shown(cmd: &Command) -> String {
    let vars = cmd.get_envs().filter_map(|(name, value)| {
        let (name, value) = (name.to_string_lossy(), value?.to_string_lossy());
        Some(match name.strip_prefix("CARGO_ENCODED_") {
            Some(flags) => format!("{flags}={}", quoted(&value.replace('\x1f', " "))),
            None => format!("{name}={}", quoted(&value)),
        })
    });
    let program = Path::new(cmd.get_program());
    // Cargo and what it starts are found on PATH anyway, and the short name reads better.
    let program = program.file_name().filter(|name| *name == "cargo").unwrap_or(program.as_os_str());
    let words = [program].into_iter().chain(cmd.get_args()).map(|word| quoted(&word.to_string_lossy()));
    vars.chain(words).collect::<Vec<_>>().join(" ")
}

fn quoted(word: &str) -> String {
    let plain = |c: char| c.is_alphanumeric() || "-_=./:,+@%".contains(c);
    if !word.is_empty() && word.chars().all(plain) {
        return word.to_owned();
    }
    format!("'{}'", word.replace('\'', r"'\''"))
}

/// The file that a program name stands for; cargo's own bin directory counts as part of PATH.
pub(crate) fn find(name: &str) -> Option<PathBuf> {
    let path = env::var_os("PATH").unwrap_or_default();
    let system = ["/usr/local/sbin", "/usr/sbin", "/sbin"].map(PathBuf::from);
    env::split_paths(&path)
        .chain(workspace::cargo_home().map(|home| home.join("bin")))
        .chain(system)
        .map(|dir| dir.join(OsStr::new(name)))
        .find(|file| file.is_file())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_shown_command_can_be_pasted() {
        let mut cmd = Command::new("/some/where/cargo");
        cmd.args(["test", "it's"]).env("CARGO_ENCODED_RUSTFLAGS", "-Copt\x1f--cfg=a=\"b\"");
        assert_eq!(shown(&cmd), r#"RUSTFLAGS='-Copt --cfg=a="b"' cargo test 'it'\''s'"#);
    }

    #[test]
    fn programs_are_found_or_not() {
        assert!(find("sh").is_some());
        assert!(find("no-such-program-here").is_none());
    }
}
