//! Interfaces as they come and go: which are measured, under which scope, and the programs attached to them.
//!
//! Each network namespace that is looked at has a thread of its own, which entered it for good and listens to link
//! events there. A new interface gets its programs, a vanished one keeps its row and its histograms; no other
//! interface notices.

mod table;
mod wire;

pub use table::{Table, TableError};

use crate::{attach, load::Loaded};
use futures_util::{StreamExt, TryStreamExt};
use rtnetlink::{
    MulticastGroup, new_multicast_connection,
    packet_core::NetlinkPayload,
    packet_route::{
        RouteNetlinkMessage,
        link::{InfoKind, LinkAttribute, LinkFlags, LinkInfo, LinkLayerType, LinkMessage},
        tc::TcAttribute,
    },
};
use serde::{Deserialize, Serialize};
use std::{
    fs::File,
    io,
    os::{fd::AsFd, unix::fs::MetadataExt},
    path::PathBuf,
    sync::{Arc, Mutex, mpsc},
    thread::{JoinHandle, ScopedJoinHandle},
};
use tokio::sync::watch;

/// A network namespace that is looked at.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Namespace {
    /// Name for reports; `host` for the one nettrace runs in.
    pub name: String,
    /// Its file, e.g. `/run/netns/blue`; none for the one nettrace runs in.
    pub path: Option<PathBuf>,
    /// Whether TC or XDP programs are attached to its interfaces. Packets between namespaces of one node pass two
    /// interfaces: looking at one side is enough.
    pub wire: bool,
}

impl Namespace {
    /// The one nettrace runs in.
    #[must_use]
    pub fn host() -> Self {
        Self { name: "host".to_owned(), path: None, wire: true }
    }

    fn file(&self) -> io::Result<File> {
        File::open(self.path.clone().unwrap_or_else(|| PathBuf::from("/proc/thread-self/ns/net")))
    }

    /// Inode number, by which the kernel side knows it.
    ///
    /// # Errors
    /// When its file cannot be read.
    pub fn inode(&self) -> io::Result<u32> {
        // Inode numbers of the namespace file system are 32 bits wide (proc_alloc_inum).
        Ok(self.file()?.metadata()?.ino() as u32)
    }

    /// Moves the calling thread into it. The thread must not go back to a pool.
    ///
    /// # Errors
    /// When its file cannot be opened, or without CAP_SYS_ADMIN.
    pub fn enter(&self) -> io::Result<()> {
        if self.path.is_none() {
            return Ok(());
        }
        let kind = Some(rustix::thread::LinkNameSpaceType::Network);
        Ok(rustix::thread::move_into_link_name_space(self.file()?.as_fd(), kind)?)
    }

    /// Does something in it, on a thread of its own: entering a namespace cannot be undone.
    ///
    /// # Errors
    /// When it cannot be entered, or what was to be done panicked.
    pub fn within<T: Send>(&self, what: impl FnOnce() -> T + Send) -> io::Result<T> {
        let inside = || self.enter().map(|()| what());
        let joined = std::thread::scope(|scope| {
            std::thread::Builder::new().spawn_scoped(scope, inside).map(ScopedJoinHandle::join)
        });
        joined?.unwrap_or_else(|_| Err(io::Error::other("the thread in it panicked")))
    }
}

/// Which interfaces are wanted.
#[derive(Clone, Debug, Default)]
pub struct Selection {
    /// Globs of names; empty for all suitable ones.
    pub include: Vec<glob::Pattern>,
    /// Globs of names that are left out.
    pub exclude: Vec<glob::Pattern>,
    /// Whether received packets are looked at by XDP where the driver can.
    pub xdp: bool,
    /// Whether TC programs go to a clsact qdisc even where the kernel has tcx.
    pub clsact: bool,
}

/// One interface, as netlink tells it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Link {
    /// Interface index.
    pub ifindex: u32,
    /// Name.
    pub name: String,
    /// Whether it is up.
    pub up: bool,
    /// Kind: `veth`, `bridge`, ...; none for hardware and loopback.
    pub kind: Option<InfoKind>,
    /// Whether packets start with an Ethernet header.
    pub ethernet: bool,
    /// Whether packets that are sent wait in a queue (a qdisc other than `noqueue`).
    pub queue: bool,
}

impl Link {
    /// Whether the other end is a pod or a virtual machine: what it receives is sent on this machine.
    #[must_use]
    pub const fn is_host_end(&self) -> bool {
        matches!(self.kind, Some(InfoKind::Veth | InfoKind::Netkit | InfoKind::Tun))
    }
}

impl Selection {
    /// Whether some were asked for by name, so that finding none of them is an error.
    #[must_use]
    pub const fn is_explicit(&self) -> bool {
        !self.include.is_empty()
    }

    /// Whether an interface is to be measured. What is stacked on others (bridge, bond, VLAN, tunnels whose outer
    /// packets are parsed) would be seen twice and is only taken when named.
    #[must_use]
    pub fn wants(&self, link: &Link) -> bool {
        if self.exclude.iter().any(|g| g.matches(&link.name)) {
            return false;
        }
        if self.is_explicit() {
            return self.include.iter().any(|g| g.matches(&link.name));
        }
        !matches!(
            link.kind,
            Some(
                InfoKind::Bridge
                    | InfoKind::Bond
                    | InfoKind::Team
                    | InfoKind::Vlan
                    | InfoKind::Vrf
                    | InfoKind::MacVlan
                    | InfoKind::IpVlan
                    | InfoKind::Vxlan
                    | InfoKind::Geneve
                    | InfoKind::IpIp
                    | InfoKind::SitTun
                    | InfoKind::Ip6Tnl
                    | InfoKind::Ifb
                    | InfoKind::Nlmon
                    | InfoKind::Dummy
            )
        )
    }
}

fn link_of(message: &LinkMessage) -> Option<Link> {
    let mut link = Link {
        ifindex: message.header.index,
        name: String::new(),
        up: message.header.flags.contains(LinkFlags::Up),
        kind: None,
        ethernet: matches!(message.header.link_layer_type, LinkLayerType::Ether | LinkLayerType::Loopback),
        queue: false,
    };
    for attribute in &message.attributes {
        match attribute {
            LinkAttribute::IfName(name) => link.name.clone_from(name),
            LinkAttribute::Qdisc(kind) => link.queue = is_queue(kind),
            LinkAttribute::LinkInfo(infos) => {
                link.kind =
                    infos.iter().find_map(|i| if let LinkInfo::Kind(k) = i { Some(k.clone()) } else { None });
            }
            _ => {}
        }
    }
    (!link.name.is_empty()).then_some(link)
}

/// Whether packets wait in a qdisc of this kind. `ingress` and `clsact` only hold filters, and `noop` is that of a
/// device that is down.
fn is_queue(kind: &str) -> bool {
    !matches!(kind, "noqueue" | "noop" | "ingress" | "clsact")
}

/// Looking at a namespace failed.
#[derive(Debug, thiserror::Error)]
pub enum WatchError {
    /// It cannot be entered.
    #[error("cannot enter network namespace {0}: {1}")]
    Enter(String, io::Error),
    /// Its interfaces cannot be listed.
    #[error("cannot list the interfaces of network namespace {0}: {1}")]
    List(String, String),
    /// The interface table.
    #[error(transparent)]
    Table(#[from] TableError),
}

/// The thread of one namespace.
pub struct Watcher {
    stop: watch::Sender<bool>,
    thread: Option<JoinHandle<()>>,
}

impl Watcher {
    /// Starts one, and returns when all interfaces that exist have their programs.
    ///
    /// # Errors
    /// When the namespace cannot be entered or its interfaces cannot be listed.
    pub fn start(
        namespace: Namespace,
        selection: Selection,
        table: Arc<Mutex<Table>>,
        loaded: Arc<Mutex<Loaded>>,
    ) -> Result<Self, WatchError> {
        let (stop, stopped) = watch::channel(false);
        let (ready, first) = mpsc::channel();
        let name = namespace.name.clone();
        let thread = std::thread::Builder::new().name(format!("netns {name}")).spawn(move || {
            let looked_at = Looked { namespace, selection, table, loaded };
            looked_at.run(stopped, &ready);
        });
        let thread = thread.map_err(|e| WatchError::Enter(name.clone(), e))?;
        let watcher = Self { stop, thread: Some(thread) };
        match first.recv() {
            Ok(Ok(())) => Ok(watcher),
            Ok(Err(error)) => Err(error),
            Err(_) => Err(WatchError::List(name, "its thread ended".to_owned())),
        }
    }

    /// Detaches everything in the namespace.
    pub fn stop(mut self) {
        self.end();
    }

    fn end(&mut self) {
        // A receiver that is gone has ended already.
        let _ = self.stop.send(true);
        if let Some(thread) = self.thread.take()
            && thread.join().is_err()
        {
            tracing::error!("a namespace's thread panicked");
        }
    }
}

impl Drop for Watcher {
    fn drop(&mut self) {
        self.end();
    }
}

/// What the thread of a namespace works with.
struct Looked {
    namespace: Namespace,
    selection: Selection,
    table: Arc<Mutex<Table>>,
    loaded: Arc<Mutex<Loaded>>,
}

type Ready = mpsc::Sender<Result<(), WatchError>>;

impl Looked {
    fn run(self, stopped: watch::Receiver<bool>, ready: &Ready) {
        let name = self.namespace.name.clone();
        let entered = self.namespace.enter().and_then(|()| {
            let inode = self.namespace.inode()?;
            let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
            Ok((inode, runtime))
        });
        match entered {
            Ok((inode, runtime)) => runtime.block_on(self.watch(inode, stopped, ready)),
            // The starter waits for this; if it is gone, nobody cares.
            Err(error) => drop(ready.send(Err(WatchError::Enter(name, error)))),
        }
    }

    async fn watch(self, inode: u32, mut stopped: watch::Receiver<bool>, ready: &Ready) {
        let name = self.namespace.name.clone();
        let failed = |e: String| drop(ready.send(Err(WatchError::List(name.clone(), e))));
        // Subscribed before the listing, so that nothing comes in between unseen.
        let (connection, handle, mut messages) =
            match new_multicast_connection(&[MulticastGroup::Link, MulticastGroup::Tc]) {
                Ok(parts) => parts,
                Err(error) => return failed(error.to_string()),
            };
        tokio::spawn(connection);
        let mut attached = wire::Attached::new(self.namespace.wire, &self.selection);
        let links = match list(&handle).await {
            Ok(links) => links,
            Err(error) => return failed(error.to_string()),
        };
        let outcome = self.with_table(|t| t.add_namespace(&self.namespace.name, inode));
        if let Err(error) = outcome {
            drop(ready.send(Err(error.into())));
            return;
        }
        links.iter().for_each(|link| self.appeared(inode, link, &mut attached));
        drop(ready.send(Ok(())));
        loop {
            tokio::select! {
                _ = stopped.changed() => break,
                message = messages.next() => match message {
                    Some((message, _)) if matches!(message.payload, NetlinkPayload::Overrun(_)) => {
                        self.list_anew(inode, &handle, &mut attached).await;
                    }
                    Some((message, _)) => self.event(inode, message.payload, &mut attached),
                    None => break,
                },
            }
        }
        attached.detach_all(&handle).await;
    }

    /// More came and went than the kernel could tell: what is there now is listed, and what is not there went.
    async fn list_anew(&self, inode: u32, handle: &rtnetlink::Handle, attached: &mut wire::Attached) {
        match list(handle).await {
            Ok(links) => {
                let is_there = |ifindex| links.iter().any(|link| link.ifindex == ifindex);
                let gone = self.with_table(|t| t.present(inode));
                for ifindex in gone.into_iter().filter(|ifindex| !is_there(*ifindex)) {
                    attached.forget(ifindex);
                    self.with_table(|t| t.remove(inode, ifindex));
                }
                links.iter().for_each(|link| self.appeared(inode, link, attached));
            }
            Err(error) => {
                tracing::warn!("interfaces of {} may be missing: {error}", self.namespace.name);
            }
        }
    }

    fn event(&self, inode: u32, payload: NetlinkPayload<RouteNetlinkMessage>, attached: &mut wire::Attached) {
        match payload {
            NetlinkPayload::InnerMessage(RouteNetlinkMessage::NewLink(message)) => {
                if let Some(link) = link_of(&message) {
                    self.appeared(inode, &link, attached);
                }
            }
            NetlinkPayload::InnerMessage(RouteNetlinkMessage::NewQueueDiscipline(message)) => {
                let kind = |a: &TcAttribute| matches!(a, TcAttribute::Kind(kind) if is_queue(kind));
                let known = u32::try_from(message.header.index)
                    .is_ok_and(|ifindex| self.with_table(|t| t.knows(inode, ifindex)));
                if known && message.attributes.iter().any(kind) {
                    attach::need(&mut lock(&self.loaded));
                }
            }
            NetlinkPayload::InnerMessage(RouteNetlinkMessage::DelLink(message)) => {
                attached.forget(message.header.index);
                self.with_table(|t| t.remove(inode, message.header.index));
            }
            _ => {}
        }
    }

    /// A new interface, or news of one that is known: those are not touched again.
    fn appeared(&self, inode: u32, link: &Link, attached: &mut wire::Attached) {
        if !link.up || !self.selection.wants(link) || self.with_table(|t| t.knows(inode, link.ifindex)) {
            return;
        }
        if link.queue {
            attach::need(&mut lock(&self.loaded));
        }
        let wire = self.namespace.wire;
        let row = self.with_table(|t| t.add(&self.namespace.name, inode, link, wire));
        let row = match row {
            Ok(row) => row,
            Err(error) => {
                tracing::warn!("{}: {error}", link.name);
                return;
            }
        };
        if !wire {
            return;
        }
        let outcome = {
            let mut loaded = lock(&self.loaded);
            attached.attach(&mut loaded.ebpf, link)
        };
        self.with_table(|t| t.attached(row, outcome));
    }

    fn with_table<T>(&self, f: impl FnOnce(&mut Table) -> T) -> T {
        f(&mut lock(&self.table))
    }
}

/// All interfaces. Scopes are few: the node's own come before the many of its pods.
async fn list(handle: &rtnetlink::Handle) -> Result<Vec<Link>, rtnetlink::Error> {
    let messages: Vec<LinkMessage> = handle.link().get().execute().try_collect().await?;
    let mut links: Vec<Link> = messages.iter().filter_map(link_of).collect();
    links.sort_by_key(|link| link.kind == Some(InfoKind::Veth));
    Ok(links)
}

/// A lock whose holder panicked is still good: the data are counts and rows.
pub(crate) fn lock<T>(mutex: &Mutex<T>) -> std::sync::MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(std::sync::PoisonError::into_inner)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn link(name: &str, kind: Option<InfoKind>) -> Link {
        Link { ifindex: 1, name: name.to_owned(), up: true, kind, ethernet: true, queue: false }
    }

    #[test]
    fn what_is_stacked_on_others_is_taken_only_by_name() {
        let all = Selection::default();
        assert!(all.wants(&link("eth0", None)));
        assert!(all.wants(&link("veth1", Some(InfoKind::Veth))));
        assert!(!all.wants(&link("br0", Some(InfoKind::Bridge))));
        let named = Selection { include: vec![glob::Pattern::new("br*").unwrap()], ..Selection::default() };
        assert!(named.wants(&link("br0", Some(InfoKind::Bridge))));
        assert!(!named.wants(&link("eth0", None)));
        let without =
            Selection { exclude: vec![glob::Pattern::new("eth?").unwrap()], ..Selection::default() };
        assert!(!without.wants(&link("eth0", None)));
    }
}
