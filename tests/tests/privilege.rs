//! What is left of the agent's privileges: given up by a process of its own, which says what it can still do; and a program
//! that never had them, because it is nobody's and has file capabilities.

#![expect(clippy::unwrap_used, reason = "a test that cannot go on fails where it stands")]

use nettrace::{
    capture::{Capture, Options},
    iface::Namespace,
    lab::{
        Family, Lab, LabConfig, Role,
        traffic::udp::{self, RequestResponse},
    },
    load::ProgramOptions,
    privilege::{self, Needs, PrivilegeConfig, PrivilegeError, statistics},
    snapshot::Snapshot,
};
use nettrace_common::Signal;
use nettrace_tests::{comes_about, count, program::nettrace};
use serde::{Deserialize, Serialize};
use std::{
    collections::BTreeMap,
    env, fs, io,
    net::UdpSocket,
    os::{
        fd::{AsRawFd as _, FromRawFd as _, OwnedFd},
        unix::fs::{OpenOptionsExt as _, PermissionsExt as _},
    },
    path::{Path, PathBuf},
    process::{Child, Command, Stdio},
    thread::sleep,
    time::Duration,
};

const REQUESTS: u32 = 500;

/// What the process found after it had given up what it may.
#[derive(Debug, Default, Serialize, Deserialize)]
struct Found {
    words: Vec<String>,
    late: Vec<String>,
    threads: usize,
    /// Lines of `/proc/self/task/*/status`, by the thread's name.
    status: Vec<(String, BTreeMap<String, String>)>,
    /// What was tried, and what came of it: `ok`, or the error's number.
    tried: BTreeMap<String, String>,
    /// Whether it says so when it is to do it again.
    again: bool,
}

/// Waits until something is so; false when it is not within 30 s.
fn wait_for(done: impl FnMut() -> bool) -> bool {
    comes_about(Duration::from_secs(30), done)
}

/// A directory of a test's own, which goes with it.
struct Scratch(PathBuf);

impl Scratch {
    fn new(name: &str) -> Self {
        let path = env::temp_dir().join(format!("nettrace-{name}-{}", std::process::id()));
        let _ = fs::remove_dir_all(&path);
        fs::create_dir_all(&path).unwrap();
        fs::set_permissions(&path, fs::Permissions::from_mode(0o755)).unwrap();
        Self(path)
    }

    fn join(&self, name: &str) -> PathBuf {
        self.0.join(name)
    }
}

impl Drop for Scratch {
    fn drop(&mut self) {
        let _ = fs::remove_dir_all(&self.0);
    }
}

/// A process that captures in a lab's node, and the directory that it may write to.
struct Unprivileged {
    child: Child,
    dir: PathBuf,
}

impl Unprivileged {
    fn start(lab: &Lab, scratch: &Scratch, parts: &str) -> Self {
        let dir = scratch.join("own");
        fs::create_dir_all(&dir).unwrap();
        fs::write(scratch.join("secret"), "not for the agent").unwrap();
        let child = Command::new(env::current_exe().unwrap())
            .args(["--exact", "a_process_that_gives_up_what_it_may", "--ignored", "--nocapture"])
            .env("NETTRACE_TEST_NETNS", lab.node().netns.path())
            .env("NETTRACE_TEST_DIR", &scratch.0)
            .env("NETTRACE_TEST_PARTS", parts)
            .stdin(Stdio::null())
            .stdout(Stdio::inherit())
            .spawn()
            .unwrap();
        Self { child, dir }
    }

    /// What it wrote under this name; waits for it.
    fn wrote(&mut self, name: &str) -> Vec<u8> {
        let path = self.dir.join(name);
        assert!(wait_for(|| path.exists() || self.child.try_wait().unwrap().is_some()), "{name}");
        fs::read(&path).unwrap_or_else(|error| panic!("{name}: {error}; it ended before"))
    }

    fn found(&mut self) -> Found {
        serde_json::from_slice(&self.wrote("found")).unwrap()
    }

    /// Ends its capture.
    fn finish(mut self) -> Snapshot {
        fs::write(self.dir.join("stop"), "").unwrap();
        let snapshot = Snapshot::from_json(&self.wrote("snapshot")).unwrap();
        assert!(self.child.wait().unwrap().success());
        snapshot
    }
}

impl Drop for Unprivileged {
    fn drop(&mut self) {
        // It has ended where all went well.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

fn ip(lab: &Lab, command: &str) {
    let done =
        Command::new("ip").args(["-n", lab.node().netns.name()]).args(command.split(' ')).status().unwrap();
    assert!(done.success(), "ip {command}");
}

fn exchange(lab: &Lab) {
    let path = lab.path(Role::Client, Role::Server, Family::V4).unwrap();
    let done =
        udp::request_response(&path, &RequestResponse { requests: REQUESTS, ..RequestResponse::default() })
            .unwrap();
    assert_eq!(done.answered, u64::from(REQUESTS));
    // To a port where nobody is: a drop, whose place has a name.
    let target = lab.node().ipv4;
    // The first ones may wait for the neighbour's address.
    let send = || {
        for _ in 0..10 {
            UdpSocket::bind("0.0.0.0:0").and_then(|socket| socket.send_to(b"x", (target, 9))).unwrap();
            sleep(Duration::from_millis(50));
        }
    };
    lab.pod(Role::Client).netns.run(send).unwrap();
}

/// On all threads nothing is left but what is needed, which is enough for a capture and for an interface that comes later.
#[test]
fn what_is_left_is_enough_to_measure_and_for_nothing_else() {
    let lab = Lab::start(LabConfig::default()).unwrap();
    let scratch = Scratch::new("privilege");
    let mut process = Unprivileged::start(&lab, &scratch, "all");
    let found = process.found();
    println!("{}\n{:#?}", found.words.join("\n"), found.tried);
    assert_eq!(found.late, Vec::<String>::new());
    assert!(found.again, "it is done once");
    assert!(found.status.len() >= found.threads && found.threads > 3, "{found:?}");
    let keepers: Vec<_> = found.status.iter().filter(|(name, _)| name == "statistics").collect();
    assert_eq!(keepers.len(), 1, "{:?}", found.status);
    for (name, status) in &found.status {
        // CAP_SYS_ADMIN; CAP_NET_ADMIN, CAP_PERFMON and CAP_BPF.
        let kept = if name == "statistics" { "0000000000200000" } else { "000000c000001000" };
        let none = "0000000000000000";
        let expected =
            [("CapEff", kept), ("CapPrm", kept), ("CapInh", none), ("CapBnd", none), ("CapAmb", none)];
        for (line, value) in expected.into_iter().chain([("NoNewPrivs", "1"), ("Seccomp", "2")]) {
            assert_eq!(status.get(line).map(String::as_str), Some(value), "{name}: {line}");
        }
    }
    let landlock = found.words.iter().any(|line| line.starts_with("Landlock: ABI"));
    if !landlock {
        println!("files are not restricted here: {:?}", found.words);
    }
    for (what, came) in &found.tried {
        let expected = match what.as_str() {
            "write its own" | "statistics" | "read a setting" => "ok".to_owned(),
            "write elsewhere" | "read elsewhere" | "write a setting" if landlock => libc::EACCES.to_string(),
            "write elsewhere" | "read elsewhere" | "write a setting" => continue,
            _ => libc::EPERM.to_string(),
        };
        assert_eq!(came, &expected, "{what}");
    }
    assert!(found.tried.len() >= 18, "{:?}", found.tried);

    ip(&lab, "link add veth-new type veth peer name peer-new");
    ip(&lab, "link set veth-new up");
    let attached = process.wrote("attached");
    exchange(&lab);
    let snapshot = process.finish();
    assert!(count(&snapshot, Signal::FwdHost) >= 2 * u64::from(REQUESTS));
    let new = snapshot.interfaces.iter().find(|row| row.name == "veth-new").expect("it came while measuring");
    assert_eq!(String::from_utf8(attached).unwrap(), new.attached.join(","));
    assert!(new.error.is_none() && !new.attached.is_empty(), "{new:?}");
    assert!(snapshot.overhead.programs.iter().any(|program| program.runs > 0), "{:?}", snapshot.overhead);
    let place = snapshot.drops.first().expect("a drop");
    assert!(!place.location.starts_with("0x"), "{place:?}");
    let node = snapshot.node.of_each("net.core.somaxconn").next();
    assert!(node.is_some(), "what the node is set to can be read");
}

/// Capabilities alone stop what only capabilities are for: the filter and the rules for files are there for the rest.
#[test]
fn without_capabilities_nothing_is_mounted_loaded_or_entered() {
    let lab = Lab::start(LabConfig::default()).unwrap();
    let scratch = Scratch::new("capabilities");
    let mut process = Unprivileged::start(&lab, &scratch, "capabilities");
    let found = process.found();
    for what in ["mount", "setns", "unshare", "ptrace", "packet socket", "statistics by itself"] {
        assert_eq!(found.tried[what], libc::EPERM.to_string(), "{what}: {:?}", found.words);
    }
    for what in ["write elsewhere", "read elsewhere", "statistics"] {
        assert_eq!(found.tried[what], "ok", "{what}");
    }
    process.finish();
}

fn errno<T>(result: io::Result<T>) -> String {
    match result {
        Ok(_) => "ok".to_owned(),
        Err(error) => error.raw_os_error().map_or_else(|| error.to_string(), |errno| errno.to_string()),
    }
}

/// A system call by its number, with small numbers and null pointers: what is refused is refused before they are looked at.
fn call(number: libc::c_long, arguments: [libc::c_long; 3]) -> io::Result<libc::c_long> {
    // SAFETY: pointers among the arguments are null or those of static texts, and the calls made do not write through them.
    let code = unsafe { libc::syscall(number, arguments[0], arguments[1], arguments[2], 0, 0) };
    if code < 0 { Err(io::Error::last_os_error()) } else { Ok(code) }
}

fn tried(dir: &Path, elsewhere: &Path) -> BTreeMap<String, String> {
    let mut tried = BTreeMap::new();
    let mut note = |what: &str, came: String| drop(tried.insert(what.to_owned(), came));
    let pointer = |text: &'static std::ffi::CStr| text.as_ptr() as libc::c_long;
    let own_net = fs::File::open("/proc/thread-self/ns/net").unwrap();
    let parent = i64::from(std::os::unix::process::parent_id());
    let calls: [(&str, libc::c_long, [libc::c_long; 3]); 12] = [
        ("mount", libc::SYS_mount, [pointer(c"none"), pointer(c"/mnt"), pointer(c"tmpfs")]),
        ("setns", libc::SYS_setns, [own_net.as_raw_fd().into(), libc::CLONE_NEWNET.into(), 0]),
        ("unshare", libc::SYS_unshare, [libc::CLONE_NEWNS.into(), 0, 0]),
        ("ptrace", libc::SYS_ptrace, [16, parent, 0]),
        ("process_vm_readv", libc::SYS_process_vm_readv, [parent, 0, 0]),
        ("kexec_load", libc::SYS_kexec_load, [0, 0, 0]),
        ("init_module", libc::SYS_init_module, [0, 0, pointer(c"")]),
        ("load a program", libc::SYS_bpf, [5, 0, 0]),
        ("a map by its number", libc::SYS_bpf, [14, 0, 0]),
        ("packet socket", libc::SYS_socket, [libc::AF_PACKET.into(), libc::SOCK_RAW.into(), 0]),
        ("setuid", libc::SYS_setuid, [0, 0, 0]),
        ("io_uring_setup", libc::SYS_io_uring_setup, [1, 0, 0]),
    ];
    for (what, number, arguments) in calls {
        let made = call(number, arguments);
        if let (Ok(fd), "packet socket") = (&made, what) {
            // SAFETY: the call has just made this descriptor, and nobody else has it.
            drop(unsafe { OwnedFd::from_raw_fd(*fd as i32) });
        }
        note(what, errno(made));
    }
    let own = dir.join("mine");
    note("write its own", errno(fs::write(&own, "x")));
    note("chmod", errno(fs::set_permissions(&own, fs::Permissions::from_mode(0o777))));
    note("start a program", errno(Command::new("/bin/true").status()));
    note("write elsewhere", errno(fs::write(elsewhere.join("other"), "x")));
    note("read elsewhere", errno(fs::read(elsewhere.join("secret"))));
    let setting = "/proc/sys/net/core/somaxconn";
    note("read a setting", errno(fs::read(setting)));
    note(
        "write a setting",
        errno(fs::OpenOptions::new().write(true).custom_flags(libc::O_CLOEXEC).open(setting)),
    );
    note("statistics", statistics::enable().map_or_else(|error| error.to_string(), |_| "ok".to_owned()));
    let by_itself = aya::sys::enable_stats(aya::sys::Stats::RunTime);
    note(
        "statistics by itself",
        by_itself.map_or_else(|error| errno::<()>(Err(error.io_error)), |_| "ok".to_owned()),
    );
    tried
}

fn threads() -> Vec<(String, BTreeMap<String, String>)> {
    let status = |tid: fs::DirEntry| {
        let text = fs::read_to_string(tid.path().join("status")).unwrap();
        let lines: BTreeMap<String, String> = text
            .lines()
            .filter_map(|line| line.split_once(':'))
            .map(|(name, value)| (name.to_owned(), value.trim().to_owned()))
            .collect();
        (lines["Name"].clone(), lines)
    };
    fs::read_dir("/proc/self/task").unwrap().flatten().map(status).collect()
}

/// Whole or not at all: another process waits for it.
fn publish(dir: &Path, name: &str, content: &[u8]) {
    let temporary = dir.join(format!(".{name}"));
    fs::write(&temporary, content).unwrap();
    fs::rename(&temporary, dir.join(name)).unwrap();
}

#[test]
#[ignore = "gives its privileges away; run in a process of its own by the tests above"]
fn a_process_that_gives_up_what_it_may() {
    let variable = |name: &str| env::var_os(name).expect("set by the test that starts this");
    let scratch = PathBuf::from(variable("NETTRACE_TEST_DIR"));
    let all = variable("NETTRACE_TEST_PARTS") == "all";
    let dir = scratch.join("own");
    let netns = PathBuf::from(variable("NETTRACE_TEST_NETNS"));
    // For good: every thread that is made from here on is in it, and it is this process's own from then on.
    Namespace { name: "node".to_owned(), path: Some(netns), wire: true }.enter().unwrap();
    let options = Options {
        programs: ProgramOptions { packets_per_second: 0, ..ProgramOptions::default() },
        namespaces: vec![Namespace::host()],
        ..Options::default()
    };
    let mut capture = Capture::start(options).unwrap();
    let config =
        PrivilegeConfig { seccomp: all, landlock: all, loading: false, ..PrivilegeConfig::default() };
    let needs = Needs { write: vec![dir.clone()], ..Needs::default() };
    assert!(privilege::may_load());
    let status = privilege::drop(&config, &needs).unwrap();
    assert_eq!(privilege::may_load(), !all);
    // Made afterwards, and the same.
    let later = std::thread::Builder::new().name("later".to_owned()).spawn(threads).unwrap();
    let found = Found {
        words: status.words(),
        late: status.late,
        threads: status.threads,
        status: later.join().unwrap(),
        tried: tried(&dir, &scratch),
        again: matches!(privilege::drop(&config, &needs), Err(PrivilegeError::Again)),
    };
    publish(&dir, "found", &serde_json::to_vec(&found).unwrap());
    let mut said = false;
    while !dir.join("stop").exists() {
        capture.tick();
        let interfaces = capture.interfaces();
        let new = interfaces.iter().find(|row| row.name == "veth-new");
        if let Some(new) = new.filter(|row| !said && (!row.attached.is_empty() || row.error.is_some())) {
            publish(&dir, "attached", new.attached.join(",").as_bytes());
            said = true;
        }
        sleep(Duration::from_millis(20));
    }
    let snapshot = capture.stop().unwrap().snapshot;
    publish(&dir, "snapshot", &serde_json::to_vec(&snapshot).unwrap());
}

/// Nobody with file capabilities measures as well as root does, but for what needs CAP_SYS_ADMIN.
#[test]
fn nobody_measures_with_file_capabilities() {
    let scratch = Scratch::new("setcap");
    let program = scratch.join("nettrace");
    fs::copy(nettrace().unwrap().get_program(), &program).unwrap();
    fs::set_permissions(&program, fs::Permissions::from_mode(0o755)).unwrap();
    let file = program.to_str().unwrap();
    match Command::new("setcap").args(["cap_bpf,cap_perfmon,cap_net_admin+ep", file]).status() {
        Ok(done) if done.success() => {}
        Ok(done) => return println!("not tested: setcap: {done}"),
        Err(error) => return println!("not tested: setcap: {error}"),
    }
    let lab = Lab::start(LabConfig::default()).unwrap();
    let nobody = ["--reuid=65534", "--regid=65534", "--clear-groups", "--inh-caps=-all"];
    let inside =
        Namespace { name: "node".to_owned(), path: Some(lab.node().netns.path().to_owned()), wire: true };
    let output = std::thread::scope(|scope| {
        let measured = scope.spawn(|| {
            inside.enter().unwrap();
            let arguments = ["run", "-d", "3s", "--quiet", "--format", "json"];
            Command::new("setpriv")
                .args(nobody)
                .arg(&program)
                .args(arguments)
                .stdin(Stdio::null())
                .output()
                .unwrap()
        });
        sleep(Duration::from_secs(2));
        for _ in 0..3 {
            exchange(&lab);
        }
        measured.join().unwrap()
    });
    let said = String::from_utf8_lossy(&output.stderr);
    assert_eq!(output.status.code(), Some(0), "{said}");
    let snapshot = Snapshot::from_json(&output.stdout).unwrap();
    assert!(count(&snapshot, Signal::FwdHost) > 0, "{said}");
    let wired = snapshot.interfaces.iter().filter(|row| !row.attached.is_empty()).count();
    assert!(wired >= 3, "{:?}", snapshot.interfaces);
    let root = nettrace_tests::captured_in(&lab, |_| {}, |_| Ok(())).unwrap().0.snapshot;
    let sources = |snapshot: &Snapshot| -> Vec<(String, Option<String>)> {
        snapshot.probes.iter().map(|p| (p.name.clone(), p.source.clone())).collect()
    };
    assert_eq!(sources(&snapshot), sources(&root), "{said}");
    assert!(snapshot.overhead.programs.is_empty(), "run-time statistics need CAP_SYS_ADMIN");
}
