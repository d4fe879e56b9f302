//! Hardware interfaces of the host: driver, link, rings, channels, coalescing, offloads, and which CPUs packets go to.
//!
//! Needs: to be in the host's namespace. Yields: a [`Nic`] for each. Sources: sysfs (`/sys/class/net/NAME`), and the ethtool
//! requests of ioctl(2) that only read (include/uapi/linux/ethtool.h). Those work on all kernels, and unlike generic netlink
//! need no family that the kernel might load a module for. What a driver does not tell is none.

use super::NodeLink;
use crate::{
    ethtool::{COALESCING_WORDS, Ethtool, GET_COALESCING, GET_RINGS, RINGS_WORDS, request},
    files::Files,
};
use caps::{CapSet, Capability};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use std::path::Path;

/// `ETHTOOL_G*`, of what is only read.
const GET_TSO: u32 = 0x1e;
const GET_GSO: u32 = 0x23;
const GET_FLAGS: u32 = 0x25;
const GET_GRO: u32 = 0x2b;
const GET_CHANNELS: u32 = 0x3c;
/// Words of its structure, the request first.
const CHANNELS_WORDS: usize = 9;
/// `ETH_FLAG_LRO`
const LRO: u32 = 1 << 15;

/// A hardware interface of the host.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct Nic {
    /// Its name.
    pub name: String,
    /// Its driver.
    pub driver: Option<String>,
    /// Speed of the link, Mbit/s; none where it is down, or the driver does not know, as on most virtual machines.
    pub speed_mbit_s: Option<u32>,
    /// `full` or `half`.
    pub duplex: Option<String>,
    /// Sizes of the rings, packets.
    pub rings: Option<Rings>,
    /// Queues that the hardware serves.
    pub channels: Option<Channels>,
    /// For how long the hardware may hold an interrupt back.
    pub coalescing: Option<Coalescing>,
    /// Work that is put off to the hardware, or done for many packets at once.
    pub offloads: Offloads,
    /// By receive queue, in order: CPUs that packets are handed to (RPS), a mask in hexadecimal; all 0 where it is off.
    pub rps: Vec<String>,
    /// By transmit queue, in order: CPUs whose packets go there (XPS), a mask in hexadecimal.
    pub xps: Vec<String>,
    /// Packets lost for want of room in a ring, since the driver was loaded: `rx_missed_errors` and `rx_fifo_errors`.
    pub rx_missed: Option<u64>,
    /// Requests that the driver does not answer, and why.
    pub unread: Vec<String>,
}

/// Sizes of the rings between driver and hardware, packets.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct Rings {
    /// For packets that are received.
    pub rx: u32,
    /// What the hardware can have at most.
    pub rx_max: u32,
    /// For packets that are sent.
    pub tx: u32,
    /// What the hardware can have at most.
    pub tx_max: u32,
}

/// Queues that the hardware serves.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct Channels {
    /// That receive.
    pub rx: u32,
    /// That send.
    pub tx: u32,
    /// That do both.
    pub combined: u32,
    /// How many of either kind it can have at most.
    pub max: u32,
}

/// For how long the hardware may hold an interrupt back.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct Coalescing {
    /// After a packet was received, us.
    pub rx_us: u32,
    /// Packets received, after which it does not wait longer; 0 for no such limit.
    pub rx_frames: u32,
    /// After a packet was sent, us.
    pub tx_us: u32,
    /// The same of packets sent.
    pub tx_frames: u32,
    /// Whether the driver changes the times for receiving by itself.
    pub adaptive_rx: bool,
}

/// Work that is put off to the hardware, or done for many packets at once. None where the driver does not tell.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct Offloads {
    /// The hardware cuts segments.
    pub tso: Option<bool>,
    /// Segments are cut as late as can be.
    pub gso: Option<bool>,
    /// Received segments are joined.
    pub gro: Option<bool>,
    /// The hardware joins received segments; it must not where packets are forwarded.
    pub lro: Option<bool>,
}

/// What has the kernel look for a module of an interface's name, where there is no interface of that name any more
/// (`dev_load` in net/core/dev_ioctl.c).
const LOADING: [Capability; 2] = [Capability::CAP_NET_ADMIN, Capability::CAP_SYS_MODULE];

/// Hardware among the interfaces of the namespace that this thread is in, which must be the host's. This thread gives up the
/// privileges by which a question could load a module, and is to end afterwards.
pub(super) fn read(root: &Path, links: &[NodeLink]) -> Vec<Nic> {
    let files = Files::new(root);
    let harmless = LOADING.iter().try_for_each(|capability| caps::drop(None, CapSet::Effective, *capability));
    let hardware = |link: &&NodeLink| link.kind.is_none() && link.name != "lo";
    links.iter().filter(hardware).map(|link| Nic::read(&files, root, link, harmless.is_ok())).collect()
}

impl Nic {
    fn read(files: &Files, root: &Path, link: &NodeLink, may_ask: bool) -> Self {
        let mut nic = Self { name: link.name.clone(), ..Self::default() };
        // sysfs shows the interfaces of the namespace that it was mounted in.
        let index = files.number::<u32>(&format!("/sys/class/net/{}/ifindex", link.name)).ok();
        if index == Some(link.ifindex) {
            nic = Self::of_sysfs(files, root, &link.name);
        } else {
            nic.unread.push("/sys/class/net is not of this network namespace".to_owned());
        }
        let power = format!("/sys/class/net/{}/device/power/runtime_status", link.name);
        if files.text(&power).is_ok_and(|status| status == "suspended") {
            nic.unread.push("ethtool: the device sleeps, and a question would wake it".to_owned());
            return nic;
        }
        if !may_ask {
            nic.unread.push("ethtool: a question could load a module".to_owned());
            return nic;
        }
        match Ethtool::open() {
            Ok(ethtool) => nic.ask(&ethtool),
            Err(error) => nic.unread.push(format!("ethtool: {error}")),
        }
        nic
    }

    fn of_sysfs(files: &Files, root: &Path, name: &str) -> Self {
        let dir = format!("/sys/class/net/{name}");
        let of = |what: &str| format!("{dir}/{what}");
        let driver = std::fs::read_link(root.join(of("device/driver").trim_start_matches('/'))).ok();
        let driver = driver.and_then(|path| Some(path.file_name()?.to_string_lossy().into_owned()));
        // -1 where it is not known; reading fails while the link is down.
        let known = |what: &str| files.text(&of(what)).ok().filter(|text| text != "unknown");
        let counter = |what: &str| files.number::<u64>(&of(&format!("statistics/{what}"))).ok();
        let missed = (counter("rx_missed_errors"), counter("rx_fifo_errors"));
        Self {
            name: name.to_owned(),
            driver,
            speed_mbit_s: known("speed")
                .and_then(|text| text.parse().ok())
                .filter(|speed| *speed != 0 && *speed != u32::MAX),
            duplex: known("duplex"),
            rps: masks(files, &dir, "rx-", "rps_cpus"),
            xps: masks(files, &dir, "tx-", "xps_cpus"),
            rx_missed: missed.0.zip(missed.1).map(|(a, b)| a.saturating_add(b)),
            ..Self::default()
        }
    }

    fn ask(&mut self, ethtool: &Ethtool) {
        let (name, unread) = (self.name.clone(), &mut self.unread);
        let mut asked = |what: &str, words: &mut [u32]| {
            let answer = ethtool.ask(&name, words);
            answer.map_err(|error| unread.push(format!("{what}: {error}"))).is_ok()
        };
        let mut words = request::<RINGS_WORDS>(GET_RINGS);
        if asked("rings", &mut words) {
            self.rings = Some(Rings { rx: words[5], rx_max: words[1], tx: words[8], tx_max: words[4] });
        }
        let mut words = request::<CHANNELS_WORDS>(GET_CHANNELS);
        if asked("channels", &mut words) {
            let max = words[1].max(words[2]).max(words[4]);
            self.channels = Some(Channels { rx: words[5], tx: words[6], combined: words[8], max });
        }
        let mut words = request::<COALESCING_WORDS>(GET_COALESCING);
        if asked("coalescing", &mut words) {
            self.coalescing = Some(Coalescing {
                rx_us: words[1],
                rx_frames: words[2],
                tx_us: words[5],
                tx_frames: words[6],
                adaptive_rx: words[10] != 0,
            });
        }
        let mut flag = |what: &str, kind, bits: u32| {
            let mut words = request::<2>(kind);
            asked(what, &mut words).then_some(words[1] & bits != 0)
        };
        self.offloads = Offloads {
            tso: flag("tso", GET_TSO, u32::MAX),
            gso: flag("gso", GET_GSO, u32::MAX),
            gro: flag("gro", GET_GRO, u32::MAX),
            lro: flag("lro", GET_FLAGS, LRO),
        };
    }
}

/// A mask for each queue, by the queues' numbers.
fn masks(files: &Files, dir: &str, begin: &str, file: &str) -> Vec<String> {
    let names = files.names(&format!("{dir}/queues")).unwrap_or_default();
    let number = |name: &String| name.strip_prefix(begin)?.parse::<u32>().ok();
    let mut queues: Vec<_> = names.iter().filter_map(|name| Some((number(name)?, name))).collect();
    queues.sort_unstable();
    let mask = |(_, name): (u32, &String)| files.text(&format!("{dir}/queues/{name}/{file}")).ok();
    queues.into_iter().filter_map(mask).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::fs;

    #[test]
    fn sysfs_tells_of_hardware() {
        let root = tempfile::tempdir().unwrap();
        let dir = root.path().join("sys/class/net/eth0");
        let texts = [
            ("ifindex", "2\n"),
            ("speed", "25000\n"),
            ("duplex", "full\n"),
            ("statistics/rx_missed_errors", "7\n"),
            ("statistics/rx_fifo_errors", "1\n"),
            ("queues/rx-10/rps_cpus", "3\n"),
            ("queues/rx-2/rps_cpus", "0\n"),
            ("queues/tx-0/xps_cpus", "f\n"),
        ];
        for (path, text) in texts {
            fs::create_dir_all(dir.join(path).parent().unwrap()).unwrap();
            fs::write(dir.join(path), text).unwrap();
        }
        fs::create_dir_all(dir.join("device")).unwrap();
        std::os::unix::fs::symlink("../../drivers/mlx5_core", dir.join("device/driver")).unwrap();
        let link = |name: &str, kind: Option<&str>| NodeLink {
            name: name.to_owned(),
            kind: kind.map(str::to_owned),
            ifindex: 2,
            ..NodeLink::default()
        };
        let nics = read(root.path(), &[link("lo", None), link("eth0", None), link("br0", Some("bridge"))]);
        let [nic] = &nics[..] else { panic!("{nics:?}") };
        assert_eq!((nic.driver.as_deref(), nic.speed_mbit_s), (Some("mlx5_core"), Some(25_000)));
        assert_eq!((nic.rps.join(","), nic.xps.join(",")), ("0,3".to_owned(), "f".to_owned()));
        assert_eq!((nic.duplex.as_deref(), nic.rx_missed), (Some("full"), Some(8)));
        fs::write(dir.join("speed"), "-1\n").unwrap();
        assert_eq!(read(root.path(), &[link("eth0", None)])[0].speed_mbit_s, None);
        // Of another namespace's interface by that name nothing is told.
        fs::write(dir.join("speed"), "25000\n").unwrap();
        fs::write(dir.join("ifindex"), "3\n").unwrap();
        let nics = read(root.path(), &[link("eth0", None)]);
        assert_eq!((nics[0].speed_mbit_s, nics[0].driver.as_deref()), (None, None));
        assert!(nics[0].unread.iter().any(|why| why.contains("not of this network namespace")), "{nics:?}");
    }

    #[test]
    fn requests_that_are_not_answered_say_why() {
        let ethtool = Ethtool::open().unwrap();
        let mut words = request::<2>(GET_GRO);
        ethtool.ask("lo", &mut words).unwrap();
        assert!(ethtool.ask("lo", &mut request::<2>(u32::MAX)).is_err());
        assert!(ethtool.ask("a-name-that-is-too-long", &mut words).is_err());
    }
}
