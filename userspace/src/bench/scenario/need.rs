//! What a scenario needs of the machine, and why it is not there.

use super::{Program, ScenarioError, Script};
use crate::{
    change::{ChangeError, Engine, Request, StateDir, plan},
    lab::Pair,
};
use std::{fmt, path::Path};

/// A dataplane of nettrace's own, by name.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum FastPath {
    /// Packets between pods go from one interface to the other without the node's stack (`bpf_redirect_peer`).
    HostRouting,
    /// Addresses of Services are translated when a socket connects.
    ServiceTranslation,
    /// Traffic that waits for answers is marked, and goes before bulk.
    Priority,
    /// Answers to DNS queries come from the kernel of the client's node.
    DnsCache,
}

impl FastPath {
    /// As it will be typed.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::HostRouting => "host-routing",
            Self::ServiceTranslation => "service-translation",
            Self::Priority => "priority",
            Self::DnsCache => "dns-cache",
        }
    }
}

/// Something that not every machine has.
#[derive(Clone, Copy, Debug)]
pub enum Need {
    /// A program.
    Program(Program),
    /// A device file.
    Device(&'static str),
    /// A kernel setting, below `/proc/sys`, and the kernel that brought it.
    Sysctl(&'static str, &'static str),
    /// A queue.
    Qdisc(&'static str),
    /// Rules that are not in every kernel: what they are, and some.
    Rules(&'static str, fn() -> Script),
    /// A fast path.
    FastPath(FastPath),
}

/// For people.
impl fmt::Display for Need {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Program(program) => write!(f, "the program `{}`", program.name()),
            Self::Device(path) => write!(f, "`{path}`"),
            Self::Sysctl(key, since) => write!(f, "the setting `{}` (Linux {since})", key.replace('/', ".")),
            Self::Qdisc(kind) => write!(f, "the queue `{kind}`"),
            Self::Rules(what, _) => f.write_str(what),
            Self::FastPath(path) => write!(f, "the fast path `{}`, which is not built yet", path.name()),
        }
    }
}

impl Need {
    /// Why it is not there; none where it is.
    pub(super) fn missing(&self) -> Option<String> {
        match *self {
            Self::Program(program) => (!program.is_there()).then(|| {
                format!("there is no {}; install the package {}", program.name(), program.package())
            }),
            Self::Device(path) => (!Path::new(path).exists()).then(|| format!("there is no {path}")),
            Self::Sysctl(key, since) => (!Path::new("/proc/sys").join(key).exists())
                .then(|| format!("the kernel has no setting {} (Linux {since})", key.replace('/', "."))),
            Self::Qdisc(kind) => qdisc(kind),
            Self::Rules(what, script) => {
                let there = script_in_a_pair(&script());
                there.err().map(|error| format!("{what}: {error}"))
            }
            // None is built yet: those that are will be looked for in the one table of changes.
            Self::FastPath(path) => Some(format!("the fast path {} is not built yet", path.name())),
        }
    }
}

fn script_in_a_pair(script: &Script) -> Result<(), ScenarioError> {
    script.run(&Pair::start()?.client().netns)
}

/// Whether the kernel has it is known when it is put in place, on an interface that is made for that.
fn qdisc(kind: &str) -> Option<String> {
    let tried = || -> Result<(), ScenarioError> {
        let pair = Pair::start()?;
        let request =
            Request { netns: pair.client().netns.name().to_owned(), setting: format!("qdisc:eth0={kind}") };
        let plan = plan("need", "whether the kernel has it", &[request], false)?;
        let (mut engine, _) = Engine::open(&StateDir::new(Some(&pair.directory())))?;
        engine.apply(&plan, None)?;
        Ok(())
    };
    match tried() {
        Ok(()) => None,
        Err(ScenarioError::Change(ChangeError::Refused { error, .. }))
            if error.raw_os_error() == Some(libc::ENOENT) =>
        {
            Some(format!("the kernel has no queue {kind} (sch_{kind})"))
        }
        Err(error) => Some(format!("whether the kernel has the queue {kind} cannot be known: {error}")),
    }
}
