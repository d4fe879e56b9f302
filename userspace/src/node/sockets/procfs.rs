//! Sockets by `/proc/net/tcp` and `tcp6`: one line each. A listener's line has what waits in its queue, not the limit.
//!
//! Needs: procfs. Yields: each [`Socket`] of a file. Source: net/ipv4/tcp_ipv4.c, get_tcp4_sock.

use super::Socket;
use crate::deadline::Deadline;
use std::{
    fs::File,
    io::{self, BufRead as _, BufReader},
    net::{IpAddr, Ipv4Addr, Ipv6Addr},
    ops::ControlFlow,
};

/// Looks at the sockets of one file in these states (a bit each) until `each` has seen enough. No file, no sockets: there
/// is none where IPv6 is off.
pub(super) fn each(
    path: &str,
    states: u32,
    deadline: Deadline,
    mut each: impl FnMut(Socket) -> ControlFlow<()>,
) -> io::Result<()> {
    let file = match File::open(path) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(()),
        file => file?,
    };
    let mut lines = BufReader::new(file);
    let mut line = String::new();
    while lines.read_line(&mut line)? > 0 {
        deadline.check()?;
        // The first line has the columns' names.
        let wanted =
            parse(&line).filter(|socket| states.checked_shr(u32::from(socket.state)).unwrap_or(0) & 1 == 1);
        if wanted.is_some_and(|socket| each(socket).is_break()) {
            break;
        }
        line.clear();
    }
    Ok(())
}

/// `0: 0100007F:0050 00000000:0000 0A 00000000:00000002 00:00000000 00000000 0 0 12345 ...`
fn parse(line: &str) -> Option<Socket> {
    let words: Vec<_> = line.split_whitespace().take(10).collect();
    let [_, local, remote, state, queues, _, _, _, _, inode] = words[..] else { return None };
    let (source, source_port) = end(local)?;
    let (destination, destination_port) = end(remote)?;
    Some(Socket {
        state: u8::from_str_radix(state, 16).ok()?,
        source,
        source_port,
        destination,
        destination_port,
        id: inode.parse().ok()?,
        queued: u32::from_str_radix(queues.split_once(':')?.1, 16).ok()?,
        limit: None,
        send_buffer: None,
        dropped: None,
    })
}

/// The address is words of 32 bits in the order of this machine's bytes.
fn end(text: &str) -> Option<(IpAddr, u16)> {
    let (address, port) = text.split_once(':')?;
    let word = |at: usize| Some(u32::from_str_radix(address.get(at..at + 8)?, 16).ok()?.to_ne_bytes());
    let address = match address.len() {
        8 => IpAddr::from(Ipv4Addr::from(word(0)?)),
        32 => {
            let mut bytes = [0; 16];
            for (n, chunk) in bytes.chunks_exact_mut(4).enumerate() {
                chunk.copy_from_slice(&word(8 * n)?);
            }
            Ipv6Addr::from(bytes).to_canonical()
        }
        _ => return None,
    };
    Some((address, u16::from_str_radix(port, 16).ok()?))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lines_of_both_files_are_read() {
        let of = |bytes: [u8; 4]| format!("{:08X}", u32::from_ne_bytes(bytes));
        let tail = "00000000:00000081 00:00000000 00000000     0        0 17 1 0 100 0 0 10 0";
        let v4 = format!("   0: {}:01BB 00000000:0000 0A {tail}", of([10, 0, 0, 1]));
        let socket = parse(&v4).unwrap();
        assert_eq!((socket.source, socket.source_port), ("10.0.0.1".parse().unwrap(), 443));
        assert_eq!((socket.state, socket.queued, socket.id, socket.limit), (10, 129, 17, None));
        let mapped = [of([0; 4]), of([0; 4]), of([0, 0, 255, 255]), of([10, 0, 0, 1])].concat();
        let v6 = format!("   1: {mapped}:9C40 {mapped}:01BB 06 {tail}");
        let socket = parse(&v6).unwrap();
        assert_eq!((socket.destination, socket.destination_port), ("10.0.0.1".parse().unwrap(), 443));
        assert_eq!((socket.source_port, socket.state), (40_000, 6));
    }

    #[test]
    fn any_line_is_survived() {
        let names = "  sl  local_address rem_address   st tx_queue rx_queue tr tm->when retrnsmt   uid  timeout inode";
        for line in ["", names, "0: 1:2 3:4 5 6 7 8 9 a b c", "0: éééé:0 éééé:0 0A 0:0 0 0 0 0 0", "\u{0}"]
        {
            assert_eq!(parse(line), None, "{line}");
        }
        let soon = Deadline::after(std::time::Duration::from_secs(60));
        each("/no/such/file", u32::MAX, soon, |_| panic!("a socket")).unwrap();
    }
}
