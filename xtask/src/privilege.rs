//! Becoming root for the steps that need it, and only for those.

use std::{
    fs,
    io::{IsTerminal as _, stdin},
    os::unix::fs::MetadataExt as _,
    process::Command,
};

use crate::process;

/// How to become root.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Privilege {
    /// We are root.
    Root,
    /// `sudo` will do it.
    Sudo,
    /// There is no way, and this is why.
    None(&'static str),
}

impl Privilege {
    /// What this user may do.
    pub(crate) fn detect() -> Self {
        // A process's own directory belongs to its effective user.
        if fs::metadata("/proc/self").is_ok_and(|meta| meta.uid() == 0) {
            return Self::Root;
        }
        if process::find("sudo").is_none() {
            return Self::None("not root, and there is no sudo");
        }
        let silent = Command::new("sudo").args(["-n", "true"]).output().is_ok_and(|out| out.status.success());
        if silent || stdin().is_terminal() {
            return Self::Sudo;
        }
        Self::None("not root, and sudo wants a password that nobody is there to type")
    }

    /// A command that runs as root, with the variables given; the reason when that is not possible.
    pub(crate) fn command(self, vars: &[(&str, &str)], program: &str) -> Result<Command, &'static str> {
        let mut cmd = match self {
            Self::None(why) => return Err(why),
            Self::Root => {
                let mut cmd = Command::new(program);
                cmd.envs(vars.iter().copied());
                return Ok(cmd);
            }
            Self::Sudo => Command::new("sudo"),
        };
        // sudo resets the environment, so variables are handed over on its command line.
        cmd.arg("env").args(vars.iter().map(|(name, value)| format!("{name}={value}"))).arg(program);
        Ok(cmd)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sudo_gets_variables_as_arguments() {
        let cmd = Privilege::Sudo.command(&[("A", "b")], "apt-get").expect("sudo is given");
        assert_eq!(process::shown(&cmd), "sudo env A=b apt-get");
        let cmd = Privilege::Root.command(&[("A", "b")], "apt-get").expect("root is given");
        assert_eq!(process::shown(&cmd), "A=b apt-get");
        assert_eq!(Privilege::None("no").command(&[], "x").err(), Some("no"));
    }
}
