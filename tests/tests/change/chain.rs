//! `run --apply`: a fault that was measured is mended, and measured again.

#![expect(clippy::unwrap_used, reason = "a test that cannot go on fails where it stands")]

use crate::{
    cli::{SETTING, command, get},
    round_trip::state,
};
use nettrace::lab::{Lab, LabConfig, Netns, Role};
use nettrace_tests::program::{stderr, stdout};
use std::{
    fs,
    net::{SocketAddr, TcpListener, TcpStream},
    sync::atomic::{AtomicBool, Ordering},
    thread,
    time::Duration,
};

/// Connections at once, of an application that accepts them all a moment later.
const BURST: usize = 40;

/// Bursts that are too much for a queue that the setting keeps short, but not for the application.
fn bursts(client: &Netns, server: &Netns, to: SocketAddr, done: &AtomicBool) {
    let listener = server.run(|| TcpListener::bind(to)).unwrap().unwrap();
    listener.set_nonblocking(true).unwrap();
    let accept = || {
        while let Ok(accepted) = listener.accept() {
            drop(accepted);
        }
    };
    while !done.load(Ordering::Relaxed) {
        let connect = || TcpStream::connect_timeout(&to, Duration::from_millis(300));
        thread::scope(|scope| {
            for _ in 0..BURST {
                scope.spawn(|| client.run(connect));
            }
            thread::sleep(Duration::from_millis(50));
            accept();
        });
        accept();
        thread::sleep(Duration::from_millis(800));
    }
}

#[test]
fn what_was_measured_is_mended_and_measured_again() {
    let lab = Lab::start(LabConfig::default()).unwrap();
    let (client, server) = (&lab.pod(Role::Client).netns, lab.pod(Role::Server));
    let (path, _) = state("chain");
    server.netns.set_sysctl("net/core/somaxconn", "8").unwrap();
    let to = SocketAddr::from((server.ipv4, 7300));
    let done = AtomicBool::new(false);
    let output = thread::scope(|scope| {
        scope.spawn(|| bursts(client, &server.netns, to, &done));
        let netns = ["--netns", client.name(), "--netns", server.netns.name()];
        let args = [&["run", "-q", "-d", "4s", "--signals", "tcp", "--apply", "--yes"][..], &netns].concat();
        let run = || command(&path, &args).output().unwrap();
        let mut output = run();
        // Whether the application catches up is told by its queue at the end: once in a while that falls into a burst.
        for _ in 0..2 {
            if stderr(&output).contains("nothing was changed") {
                output = run();
            }
        }
        done.store(true, Ordering::Relaxed);
        output
    });
    let (said, told) = (stdout(&output), stderr(&output));
    assert!(output.status.success(), "{told}");
    assert!(
        told.contains("tcp.accept-queue") && told.contains("done; `nettrace rollback 1`"),
        "{told}\n{said}"
    );
    assert!(told.contains("tcp.connect: p50 "), "{told}");
    assert!(said.starts_with("nettrace report"), "{said}");
    assert_ne!(get(&server.netns, SETTING), "8");
    assert!(command(&path, &["rollback", "tcp.accept-queue"]).output().unwrap().status.success());
    assert_eq!(get(&server.netns, SETTING), "8");
    fs::remove_dir_all(path).unwrap();
}
