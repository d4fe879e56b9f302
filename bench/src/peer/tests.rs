//! Peers over loopback: what works, and every way in which they do not come together.

use super::{auth::SHORTEST_TOKEN, *};
use crate::load::{
    LoadError, Profile, Stop,
    args::{KindName, LoadArgs},
};
use std::{
    io::{Read as _, Write as _},
    net::{Ipv4Addr, SocketAddr, TcpListener, TcpStream},
    sync::Mutex,
    thread,
    time::{Duration, Instant},
};

const LIMIT: Duration = Duration::from_secs(5);

fn token() -> Token {
    Token::new("the token of these tests").unwrap()
}

fn profile(kind: KindName, seconds: f64) -> Profile {
    let (warm_up_seconds, limit_seconds) = (Some(0.1), Some(0.5));
    let rate = (kind == KindName::UdpFlood).then_some(1000.0);
    LoadArgs { seconds: Some(seconds), warm_up_seconds, limit_seconds, rate, ..LoadArgs::of(kind) }
        .resolve()
        .unwrap()
}

/// A server for the time of some work, and what happened at it.
fn with_server<T>(
    change: impl FnOnce(&mut Config),
    work: impl FnOnce(SocketAddr, &Stop) -> T,
) -> (T, Vec<Event>) {
    let mut config = Config::new(token());
    change(&mut config);
    let server = Server::bind(config).unwrap();
    let (stop, events) = (Stop::default(), Mutex::new(Vec::new()));
    let done = thread::scope(|scope| {
        scope.spawn(|| server.run(&stop, |event| events.lock().unwrap().push(event)));
        // Also when the work fails: the server would be waited for without an end.
        let _ends = Ends(&stop);
        work(server.address(), &stop)
    });
    (done, events.into_inner().unwrap())
}

/// Ends a server when it goes.
struct Ends<'a>(&'a Stop);

impl Drop for Ends<'_> {
    fn drop(&mut self) {
        self.0.set();
    }
}

fn connect(address: SocketAddr) -> Client {
    Client::connect(address, &token(), LIMIT).unwrap()
}

#[test]
fn two_peers_run_loads_one_after_the_other() {
    let kinds = [KindName::TcpRr, KindName::UdpRr, KindName::UdpFlood, KindName::RrUnderBulk, KindName::Dns];
    let (runs, events) = with_server(
        |_| {},
        |address, _| {
            let mut client = connect(address);
            let options = ClientOptions::default();
            kinds.map(|kind| client.run(&profile(kind, 0.2), &options).unwrap())
        },
    );
    for run in &runs {
        assert_eq!(run.partial, None);
        for part in &run.parts {
            let (client, server) = (&part.client, part.server.as_ref().unwrap());
            assert!(client.answered > 0 && client.errors.total() == 0, "{client:?}");
            assert!(server.requests > 0 && server.strangers == 0, "{server:?}");
            assert_eq!(server.received.is_some(), part.load.kind.is_one_way());
        }
    }
    let finished = events.iter().filter(|e| matches!(e, Event::Finished { partial: None, .. })).count();
    assert_eq!((events.len(), finished), (2 * kinds.len(), kinds.len()), "{events:?}");
}

#[test]
fn a_peer_that_is_not_there_is_named() {
    let free = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).unwrap().local_addr().unwrap();
    let error = Client::connect(free, &token(), LIMIT).err().unwrap();
    assert!(matches!(error, PeerError::Unreachable { address, .. } if address == free), "{error}");
    assert!(error.to_string().contains(&free.to_string()));
}

#[test]
fn a_control_or_data_port_that_is_taken_is_named() {
    let taken = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
    let address = taken.local_addr().unwrap();
    let error = Server::bind(Config { control: address, ..Config::new(token()) }).err().unwrap();
    assert!(matches!(error, LoadError::PortInUse { address: at } if at == address), "{error}");
    let (error, _) = with_server(
        |config| config.data_port = address.port(),
        |control, _| {
            connect(control).run(&profile(KindName::TcpRr, 0.1), &ClientOptions::default()).unwrap_err()
        },
    );
    let says = |reason: &str| reason.contains(&address.to_string()) && reason.contains("in use");
    assert!(matches!(&error, PeerError::Refused { reason, .. } if says(reason)), "{error}");
}

#[test]
fn another_token_is_refused_at_both_ends() {
    let (error, events) = with_server(
        |_| {},
        |address, _| {
            let other = Token::new("a token of somebody else").unwrap();
            Client::connect(address, &other, LIMIT).err().unwrap()
        },
    );
    assert!(matches!(error, PeerError::WrongToken { .. }), "{error}");
    assert!(
        matches!(&events[..], [Event::TurnedAway { error: PeerError::WrongToken { .. }, .. }]),
        "{events:?}"
    );
    assert!(Token::new(&"x".repeat(SHORTEST_TOKEN - 1)).is_err());
}

/// A greeting of this version of the protocol, or of another.
fn greeting(version: u16) -> Vec<u8> {
    [&b"nettrace bench\r\n"[..], &version.to_be_bytes(), &[7; 32]].concat()
}

/// Somebody who says something to whoever comes.
fn says(bytes: Vec<u8>, work: impl FnOnce(SocketAddr)) {
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
    let address = listener.local_addr().unwrap();
    thread::scope(|scope| {
        scope.spawn(move || {
            let (mut stream, _) = listener.accept().unwrap();
            stream.write_all(&bytes).unwrap();
            // Until the other has gone.
            let _ = stream.read_to_end(&mut Vec::new());
        });
        work(address);
    });
}

#[test]
fn who_is_no_peer_or_one_of_another_version_is_told_apart() {
    says(b"SSH-2.0-OpenSSH_9.2p1 Debian-2\r\n".to_vec(), |address| {
        let error = Client::connect(address, &token(), LIMIT).err().unwrap();
        assert!(matches!(error, PeerError::NotAPeer { address: at } if at == address), "{error}");
    });
    says(greeting(PROTOCOL + 1), |address| {
        let error = Client::connect(address, &token(), LIMIT).err().unwrap();
        let theirs = PROTOCOL + 1;
        assert!(
            matches!(error, PeerError::Version { ours: PROTOCOL, theirs: t, .. } if t == theirs),
            "{error}"
        );
    });
    // One that does not know the token cannot make itself out to be the server.
    says([greeting(PROTOCOL), vec![1; 33]].concat(), |address| {
        let error = Client::connect(address, &token(), LIMIT).err().unwrap();
        assert!(matches!(error, PeerError::WrongToken { .. }), "{error}");
    });
    let (_, events) = with_server(
        |_| {},
        |address, _| {
            let mut stream = TcpStream::connect(address).unwrap();
            stream.write_all(&greeting(PROTOCOL + 3)).unwrap();
            let _ = stream.read_to_end(&mut Vec::new());
        },
    );
    let theirs = PROTOCOL + 3;
    assert!(
        matches!(&events[..], [Event::TurnedAway { error: PeerError::Version { theirs: t, .. }, .. }] if *t == theirs),
        "{events:?}"
    );
}

#[test]
fn one_experiment_runs_at_a_time() {
    let (error, _) = with_server(
        |_| {},
        |address, _| {
            thread::scope(|scope| {
                let mut first = connect(address);
                let long = profile(KindName::TcpRr, 3.0);
                let run = scope.spawn(move || first.run(&long, &ClientOptions::default()).unwrap());
                // Until the first is at it, however busy the machine is.
                thread::sleep(Duration::from_millis(500));
                let mut second = connect(address);
                let busy = second.run(&profile(KindName::TcpRr, 0.1), &ClientOptions::default()).unwrap_err();
                assert_eq!(run.join().unwrap().partial, None, "the first is not disturbed");
                // The same client may come again, once the server has cleared away.
                let again = || second.run(&profile(KindName::TcpRr, 0.1), &ClientOptions::default());
                let tried: Vec<_> = std::iter::repeat_with(again)
                    .inspect(|_| thread::sleep(Duration::from_millis(100)))
                    .take(50)
                    .skip_while(|tried| matches!(tried, Err(PeerError::Busy { .. })))
                    .take(1)
                    .collect();
                assert!(matches!(tried[..], [Ok(_)]), "{tried:?}");
                busy
            })
        },
    );
    assert!(matches!(error, PeerError::Busy { .. }), "{error}");
}

#[test]
fn what_is_beyond_the_limits_is_refused_in_words() {
    let limits = Limits {
        longest: Duration::from_secs(10),
        connections: 4,
        message_bytes: 1000,
        flood_per_second: 500.0,
    };
    let of = |kind| LoadArgs { seconds: Some(1.0), ..LoadArgs::of(kind) };
    with_server(
        |config| config.limits = limits,
        |address, _| {
            let mut client = connect(address);
            for (args, word) in [
                (LoadArgs { seconds: Some(60.0), ..of(KindName::TcpRr) }, "allowed"),
                (LoadArgs { connections: Some(5), ..of(KindName::TcpRr) }, "5 connections"),
                (LoadArgs { response_bytes: Some(1001), ..of(KindName::UdpRr) }, "1001 bytes"),
                (of(KindName::UdpFlood), "needs a rate"),
                (LoadArgs { rate: Some(501.0), ..of(KindName::UdpFlood) }, "501 datagrams"),
            ] {
                let error = client.run(&args.resolve().unwrap(), &ClientOptions::default()).unwrap_err();
                assert!(
                    matches!(&error, PeerError::Refused { reason, .. } if reason.contains(word)),
                    "{error}"
                );
            }
        },
    );
}

#[test]
fn a_client_that_dies_leaves_a_partial_result_and_a_free_server() {
    let (run, events) = with_server(
        |_| {},
        |address, _| {
            let mut dying = connect(address);
            // Its ports are opened, it sends something, and then it is gone.
            let ports = dying.start_for_test(&profile(KindName::UdpRr, 30.0));
            let socket = std::net::UdpSocket::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
            socket.send_to(&[1], (Ipv4Addr::LOCALHOST, ports[0])).unwrap();
            socket.recv(&mut [0; 8]).unwrap();
            drop(dying);
            let begun = Instant::now();
            let mut next = connect(address);
            loop {
                match next.run(&profile(KindName::UdpRr, 0.1), &ClientOptions::default()) {
                    Err(PeerError::Busy { .. }) if begun.elapsed() < LIMIT => {
                        thread::sleep(Duration::from_millis(20));
                    }
                    other => return other.unwrap(),
                }
            }
        },
    );
    assert_eq!(run.partial, None);
    let kept = events.iter().find_map(|event| match event {
        Event::Finished { served, partial: Some(why), .. } => Some((served[0].requests, why.clone())),
        _ => None,
    });
    let (requests, why) = kept.unwrap();
    assert_eq!(requests, 1);
    assert!(why.contains("lost the peer"), "{why}");
}

#[test]
fn a_server_that_goes_leaves_a_partial_result() {
    let ((run, took), events) = with_server(
        |_| {},
        |address, stop| {
            thread::scope(|scope| {
                let mut client = connect(address);
                let begun = Instant::now();
                let long = profile(KindName::TcpRr, 30.0);
                let run = scope.spawn(move || client.run(&long, &ClientOptions::default()).unwrap());
                thread::sleep(Duration::from_millis(500));
                stop.set();
                (run.join().unwrap(), begun.elapsed())
            })
        },
    );
    assert!(took < Duration::from_secs(20), "{took:?}");
    let part = &run.parts[0];
    assert!(part.client.answered > 0, "{run:?}");
    assert!(run.partial.as_ref().is_some_and(|why| why.contains("the server was stopped")), "{run:?}");
    assert!(part.client.partial.is_some());
    let partial = |e: &Event| matches!(e, Event::Finished { partial: Some(_), .. });
    assert!(events.iter().any(partial), "{events:?}");
}

#[test]
fn data_ports_serve_nobody_else() {
    with_server(
        |config| config.control.set_ip(Ipv4Addr::LOCALHOST.into()),
        |address, _| {
            let mut client = connect(address);
            let ports = client.start_for_test(&profile(KindName::UdpRr, 5.0));
            // All of 127/8 is loopback: this is another address.
            let stranger = std::net::UdpSocket::bind((Ipv4Addr::new(127, 0, 0, 2), 0)).unwrap();
            stranger.set_read_timeout(Some(Duration::from_millis(200))).unwrap();
            stranger.send_to(&[1], (Ipv4Addr::LOCALHOST, ports[0])).unwrap();
            assert!(stranger.recv(&mut [0; 8]).is_err());
            let (served, _) = client.stop_for_test();
            assert_eq!((served[0].strangers, served[0].requests, served[0].sent_bytes), (1, 0, 0));
        },
    );
}
