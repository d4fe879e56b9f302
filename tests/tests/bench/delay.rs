//! The delay line: others than nettrace see its delay, it keeps the order, its counts are exact, and nothing is left of it.

use nettrace::lab::{Line, LineConfig, LineCounts, Pair, PairConfig, Wire};
use nettrace_tests::truth::output;
use std::{
    io::{Read as _, Write as _},
    net::{SocketAddr, TcpListener, TcpStream, UdpSocket},
    num::{NonZeroU64, NonZeroUsize},
    thread,
    time::{Duration, Instant},
};

/// Each way. On a busy machine a wake-up may come some ms late.
const DELAY: Duration = Duration::from_millis(25);
const HEADERS_BYTES: u64 = 14 + 20 + 8;
const PATIENCE: Duration = Duration::from_secs(10);

fn pair(config: LineConfig) -> Pair {
    Pair::with(PairConfig { mtu: 1500, wire: Wire::Line(config) }).unwrap()
}

fn line(pair: &Pair) -> &Line {
    pair.line().unwrap()
}

/// Waits until counts are as they are to be; yields the last ones.
fn settled(line: &Line, done: impl Fn([LineCounts; 2]) -> bool) -> [LineCounts; 2] {
    let begin = Instant::now();
    while !done(line.counts().unwrap()) && begin.elapsed() < PATIENCE {
        thread::sleep(Duration::from_millis(5));
    }
    line.counts().unwrap()
}

/// No packet but those of the test: nobody asks who has an address, and nobody speaks IPv6.
fn quiet(pair: &Pair) {
    for (end, other, mac) in [
        (pair.client(), pair.server(), "02:00:00:00:00:03"),
        (pair.server(), pair.client(), "02:00:00:00:00:02"),
    ] {
        end.netns.set_sysctl("net/ipv6/conf/eth0/disable_ipv6", "1").unwrap();
        let address = other.ipv4.to_string();
        let args = ["neigh", "replace", &address, "lladdr", mac, "dev", "eth0", "nud", "permanent"];
        output(&end.netns, "ip", "iproute2", &args).unwrap();
    }
    // What young interfaces had to say has arrived.
    thread::sleep(2 * line(pair).config().delay + Duration::from_millis(100));
}

/// Two sockets, of which the first sends to the second.
fn sockets(pair: &Pair) -> (UdpSocket, UdpSocket) {
    let bind = |end: &nettrace::lab::pair::End| {
        let (netns, address) = (&end.netns, end.ipv4);
        netns.run(|| UdpSocket::bind((address, 0))).unwrap().unwrap()
    };
    let (client, server) = (bind(pair.client()), bind(pair.server()));
    client.connect(server.local_addr().unwrap()).unwrap();
    server.set_read_timeout(Some(PATIENCE)).unwrap();
    (client, server)
}

#[test]
fn ping_and_connect_see_the_delay() {
    let pair = pair(LineConfig::delay(DELAY));
    let (client, server) = (pair.client(), pair.server());
    let least = 2 * DELAY;
    let to = server.ipv4.to_string();
    // The first one also waits for ARP.
    output(&client.netns, "ping", "iputils-ping", &["-c", "1", "-W", "2", &to]).unwrap();
    let said =
        output(&client.netns, "ping", "iputils-ping", &["-c", "10", "-i", "0.02", "-W", "2", &to]).unwrap();
    let times_ms: Vec<f64> =
        said.lines().filter_map(|line| line.split_once("time=")?.1.split(' ').next()?.parse().ok()).collect();
    assert_eq!(times_ms.len(), 10, "{said}");
    let least_ms = least.as_secs_f64() * 1e3;
    // `ping` prints three digits, cut.
    assert!(times_ms.iter().all(|ms| *ms > least_ms - 1.0), "{said}");
    assert!(middle(times_ms) < 2.0 * least_ms, "{said}");

    let listener = server.netns.run(|| TcpListener::bind((server.ipv4, 0))).unwrap().unwrap();
    let address = listener.local_addr().unwrap();
    let took = |_| {
        let begin = Instant::now();
        let stream = client.netns.run(|| TcpStream::connect(address)).unwrap().unwrap();
        let took = begin.elapsed();
        drop((stream, listener.accept().unwrap()));
        took.as_secs_f64()
    };
    let took: Vec<f64> = (0..10).map(took).collect();
    assert!(took.iter().all(|seconds| *seconds >= least.as_secs_f64()), "{took:?}");
    println!("worst lateness: {:?}", line(&pair).counts().unwrap().map(|c| c.worst_lateness));
    assert!(middle(took.clone()) < 2.0 * least.as_secs_f64(), "{took:?}");
}

fn middle(mut values: Vec<f64>) -> f64 {
    values.sort_by(f64::total_cmp);
    values[values.len() / 2]
}

#[test]
fn order_is_kept_and_every_frame_is_counted() {
    const COUNT: u16 = 200;
    const PAYLOAD: u64 = 100;
    let pair = pair(LineConfig::delay(Duration::from_millis(5)));
    quiet(&pair);
    let (client, server) = sockets(&pair);
    let before = line(&pair).counts().unwrap();
    let mut datagram = [0; PAYLOAD as usize];
    for n in 0..COUNT {
        datagram[..2].copy_from_slice(&n.to_be_bytes());
        client.send(&datagram).unwrap();
    }
    for n in 0..COUNT {
        assert_eq!(server.recv(&mut datagram).unwrap() as u64, PAYLOAD);
        assert_eq!(datagram[..2], n.to_be_bytes(), "out of order");
    }
    let [there, back] = line(&pair).counts().unwrap();
    assert_eq!(there.frames - before[0].frames, u64::from(COUNT));
    assert_eq!(there.bytes - before[0].bytes, u64::from(COUNT) * (PAYLOAD + HEADERS_BYTES));
    assert_eq!((there.dropped, there.refused, there.overrun), (0, 0, 0));
    assert_eq!(back, before[1], "nothing went back");
}

#[test]
fn what_has_no_room_is_lost_and_counted() {
    const COUNT: u64 = 100;
    const FRAME_BYTES: u64 = 1000;
    const ROOM: u64 = 10;
    // All of them are sent within the delay, so that those which fit are the first ones.
    let delay = Duration::from_millis(500);
    let room_bytes = NonZeroUsize::new((ROOM * FRAME_BYTES) as usize).unwrap();
    let pair = pair(LineConfig { room_bytes, ..LineConfig::delay(delay) });
    quiet(&pair);
    let (client, server) = sockets(&pair);
    let before = line(&pair).counts().unwrap()[0];
    let begin = Instant::now();
    for _ in 0..COUNT {
        client.send(&[0; (FRAME_BYTES - HEADERS_BYTES) as usize]).unwrap();
    }
    let after = settled(line(&pair), |[there, _]| {
        there.frames + there.dropped - before.frames - before.dropped == COUNT
    })[0];
    assert!(begin.elapsed() >= delay);
    assert_eq!((after.frames - before.frames, after.dropped - before.dropped), (ROOM, COUNT - ROOM));
    for _ in 0..ROOM {
        server.recv(&mut [0; FRAME_BYTES as usize]).unwrap();
    }
    server.set_nonblocking(true).unwrap();
    assert!(server.recv(&mut [0; 1]).is_err(), "one was there twice");
}

#[test]
fn a_rate_is_kept() {
    const COUNT: u32 = 100;
    const FRAME_BYTES: u32 = 1000;
    // 8 ms for each kilobyte: 100 of them take 800 ms.
    let rate_bits_per_second = NonZeroU64::new(1_000_000);
    let pair = pair(LineConfig { rate_bits_per_second, ..LineConfig::delay(Duration::ZERO) });
    quiet(&pair);
    let (client, server) = sockets(&pair);
    let begin = Instant::now();
    for _ in 0..COUNT {
        client.send(&vec![0; FRAME_BYTES as usize - HEADERS_BYTES as usize]).unwrap();
    }
    for _ in 0..COUNT {
        server.recv(&mut [0; FRAME_BYTES as usize]).unwrap();
    }
    let least = Duration::from_millis(8) * COUNT;
    let took = begin.elapsed();
    assert!((least..3 * least).contains(&took), "{took:?}");
}

#[test]
fn a_transfer_over_the_line_arrives_whole() {
    const BYTES: usize = 50 << 20;
    let pair = pair(LineConfig::delay(Duration::ZERO));
    let (client, server) = (pair.client(), pair.server());
    let listener = server.netns.run(|| TcpListener::bind((server.ipv4, 0))).unwrap().unwrap();
    let address: SocketAddr = listener.local_addr().unwrap();
    let begin = Instant::now();
    let sender = thread::spawn(move || {
        let (mut stream, _) = listener.accept().unwrap();
        stream.write_all(&vec![7; BYTES]).unwrap();
    });
    let mut stream = client.netns.run(|| TcpStream::connect(address)).unwrap().unwrap();
    let mut received = Vec::with_capacity(BYTES);
    stream.read_to_end(&mut received).unwrap();
    let took = begin.elapsed();
    sender.join().unwrap();
    assert_eq!(received.len(), BYTES);
    assert!(received.iter().all(|byte| *byte == 7));
    println!("{:.0} Mbit/s", BYTES as f64 * 8e-6 / took.as_secs_f64());
}

#[test]
fn what_an_end_that_is_down_does_not_take_is_counted() {
    let delay = Duration::from_millis(100);
    let pair = pair(LineConfig::delay(delay));
    quiet(&pair);
    let (client, _server) = sockets(&pair);
    let before = line(&pair).counts().unwrap()[0];
    client.send(&[0; 100]).unwrap();
    output(&pair.server().netns, "ip", "iproute2", &["link", "set", "dev", "eth0", "down"]).unwrap();
    let after = settled(line(&pair), |[there, _]| there.refused > before.refused)[0];
    assert_eq!((after.frames - before.frames, after.refused - before.refused), (0, 1));
}

#[test]
fn nothing_is_left_of_a_line() {
    let threads = || {
        let all = std::fs::read_dir("/proc/self/task").unwrap().flatten();
        let name = |task: std::fs::DirEntry| std::fs::read_to_string(task.path().join("comm"));
        all.filter_map(|task| name(task).ok()).filter(|name| name.trim() == "lab-line").count()
    };
    let pair = pair(LineConfig::delay(Duration::from_secs(3600)));
    assert_eq!(threads(), 2);
    let (client, _server) = sockets(&pair);
    client.send(&[0; 100]).unwrap();
    // A namespace that somebody still is in keeps its interfaces, but not the line's.
    let names = |netns: &nettrace::lab::Netns| output(netns, "ip", "iproute2", &["-o", "link"]).unwrap();
    assert!(names(&pair.client().netns).contains("eth0"));
    let begin = Instant::now();
    let netns_path = pair.client().netns.path().to_owned();
    drop(pair);
    assert!(begin.elapsed() < Duration::from_secs(60), "it waited for a frame that is due in an hour");
    assert_eq!(threads(), 0);
    assert!(!netns_path.exists());
}
