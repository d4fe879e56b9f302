//! The interfaces of all namespaces: rows for the report, scopes for the kernel side.

use super::Link;
use crate::snapshot::Interface;
use aya::maps::{Array, MapData, MapError};
use nettrace_common::{
    SCOPE_OTHER,
    config::{IFACE_WAYS, IfaceSlot, iface_flag, iface_slot},
};
use std::collections::BTreeMap;

/// Said of what found no place.
const NO_SLOT: &str = "its slots in the kernel's table are others': it is counted as `other`, or not at all where only some \
                       namespaces are measured";

/// The kernel's table refused an entry.
#[derive(Debug, thiserror::Error)]
#[error("cannot tell the kernel side of {what}: {error}")]
pub struct TableError {
    what: String,
    error: MapError,
}

struct Row {
    id: u64,
    inode: u32,
    scope: u16,
    shown: Interface,
    /// Whether a window told that it is gone.
    told: bool,
}

/// Rows and scopes.
pub struct Table {
    map: Array<MapData, IfaceSlot>,
    rows: Vec<Row>,
    names: BTreeMap<u16, String>,
    /// Interfaces that there were.
    added: u64,
    scopes: u32,
}

impl Table {
    /// Over the programs' interface map, with so many scopes.
    #[must_use]
    pub fn new(map: Array<MapData, IfaceSlot>, scopes: u32) -> Self {
        let names = BTreeMap::from([(SCOPE_OTHER, "other".to_owned())]);
        Self { map, rows: Vec::new(), names, added: 0, scopes }
    }

    /// Makes the sockets of a namespace count.
    ///
    /// # Errors
    /// When the kernel refuses the entry.
    pub fn add_namespace(&mut self, name: &str, inode: u32) -> Result<(), TableError> {
        let slot = IfaceSlot { netns: inode, ifindex: 0, scope: u32::from(SCOPE_OTHER), flags: 0 };
        if !self.set(&slot, name)? {
            tracing::warn!("{name}: {NO_SLOT}");
        }
        Ok(())
    }

    /// Whether an interface has a row and is there.
    #[must_use]
    pub fn knows(&self, inode: u32, ifindex: u32) -> bool {
        self.rows.iter().any(|r| r.inode == inode && r.shown.ifindex == ifindex && !r.shown.gone)
    }

    /// Indices of a namespace's interfaces that are there.
    #[must_use]
    pub fn present(&self, inode: u32) -> Vec<u32> {
        let there = self.rows.iter().filter(|r| r.inode == inode && !r.shown.gone);
        there.map(|r| r.shown.ifindex).collect()
    }

    /// Adds an interface; returns the number of its row. When scopes run out, it shares the one called `other`.
    ///
    /// # Errors
    /// When the kernel refuses the entry.
    pub fn add(&mut self, netns: &str, inode: u32, link: &Link, wire: bool) -> Result<u64, TableError> {
        let label = if netns == "host" { link.name.clone() } else { format!("{netns}/{}", link.name) };
        let scope = self.scope_of(&label);
        let mut flags = if link.ethernet { 0 } else { iface_flag::NO_ETHERNET };
        if wire {
            flags |= iface_flag::WATCHED;
        }
        if link.is_host_end() {
            flags |= iface_flag::HOST_END;
        }
        let slot = IfaceSlot { netns: inode, ifindex: link.ifindex, scope: u32::from(scope), flags };
        let mut has_slot = self.set(&slot, &label)?;
        if wire {
            let scope = self.wire_scope(link.ifindex, slot.scope);
            has_slot &= self.set(&IfaceSlot { netns: 0, scope, ..slot }, &label)?;
        }
        let shown = Interface {
            name: link.name.clone(),
            ifindex: link.ifindex,
            netns: netns.to_owned(),
            scope: self.names.get(&scope).cloned().unwrap_or_default(),
            attached: Vec::new(),
            error: (!has_slot).then(|| NO_SLOT.to_owned()),
            gone: false,
        };
        let id = self.added;
        self.added += 1;
        self.rows.push(Row { id, inode, scope, shown, told: false });
        Ok(id)
    }

    /// TC and XDP programs cannot tell the namespace: interfaces of two namespaces with the same index share `other`.
    fn wire_scope(&self, ifindex: u32, wanted: u32) -> u32 {
        match self.slot_of(0, ifindex) {
            Ok(Some((_, there))) if there.scope != wanted => u32::from(SCOPE_OTHER),
            _ => wanted,
        }
    }

    /// An interface of the same name that came back has its scope again: pods restart.
    fn scope_of(&mut self, label: &str) -> u16 {
        if let Some((scope, _)) = self.names.iter().find(|(_, name)| name.as_str() == label) {
            return *scope;
        }
        let mut all = SCOPE_OTHER + 1..u16::try_from(self.scopes).unwrap_or(u16::MAX);
        let Some(scope) = all.find(|scope| !self.names.contains_key(scope)) else {
            return SCOPE_OTHER;
        };
        self.names.insert(scope, label.to_owned());
        scope
    }

    /// Notes how attaching went.
    pub fn attached(&mut self, row: u64, outcome: Result<Vec<String>, String>) {
        if let Some(row) = self.rows.iter_mut().find(|r| r.id == row) {
            match outcome {
                Ok(how) => row.shown.attached = how,
                Err(error) => row.shown.error = Some(error),
            }
        }
    }

    /// An interface vanished: its row stays, the kernel side forgets it.
    pub fn remove(&mut self, inode: u32, ifindex: u32) {
        let gone = |r: &&mut Row| r.inode == inode && r.shown.ifindex == ifindex && !r.shown.gone;
        let Some(row) = self.rows.iter_mut().find(gone) else { return };
        row.shown.gone = true;
        let label = row.shown.name.clone();
        // One of another namespace may have the same index, and with it the entry of none.
        let is_shared = self.rows.iter().any(|r| r.shown.ifindex == ifindex && !r.shown.gone);
        for netns in [inode, 0].into_iter().filter(|netns| *netns != 0 || !is_shared) {
            let forgotten = match self.slot_of(netns, ifindex) {
                Ok(Some((index, _))) => self.map.set(index, IfaceSlot::default(), 0),
                Ok(None) => Ok(()),
                Err(error) => Err(error),
            };
            if let Err(error) = forgotten {
                tracing::warn!("{}", TableError { what: label.clone(), error });
            }
        }
    }

    /// Where an interface is in the kernel's table, if it is there.
    fn slot_of(&self, netns: u32, ifindex: u32) -> Result<Option<(u32, IfaceSlot)>, MapError> {
        for index in (0..IFACE_WAYS).map(|way| iface_slot(netns, ifindex, way)) {
            let slot = self.map.get(&index, 0)?;
            if slot.scope != 0 && (slot.netns, slot.ifindex) == (netns, ifindex) {
                return Ok(Some((index, slot)));
            }
        }
        Ok(None)
    }

    /// The first of an interface's slots that nobody has.
    fn free_slot(&self, netns: u32, ifindex: u32) -> Result<Option<u32>, MapError> {
        for index in (0..IFACE_WAYS).map(|way| iface_slot(netns, ifindex, way)) {
            if self.map.get(&index, 0)?.scope == 0 {
                return Ok(Some(index));
            }
        }
        Ok(None)
    }

    /// Puts an interface into its slot, or the first that is free. False when all of them are another's.
    fn set(&mut self, slot: &IfaceSlot, label: &str) -> Result<bool, TableError> {
        let refused = |error| TableError { what: label.to_owned(), error };
        let index = match self.slot_of(slot.netns, slot.ifindex).map_err(refused)? {
            Some((index, _)) => Some(index),
            None => self.free_slot(slot.netns, slot.ifindex).map_err(refused)?,
        };
        let Some(index) = index else { return Ok(false) };
        self.map.set(index, slot, 0).map_err(refused).map(|()| true)
    }

    /// Ends a window: rows and names for its report. Interfaces that an earlier window told to be gone are forgotten, and
    /// after this window their scopes are free for others.
    pub fn turn(&mut self) -> (Vec<Interface>, BTreeMap<u16, String>) {
        let names = self.names.clone();
        self.rows.retain(|row| !row.told);
        let in_use = |scope: &u16| *scope == SCOPE_OTHER || self.rows.iter().any(|r| r.scope == *scope);
        self.names.retain(|scope, _| in_use(scope));
        self.rows.iter_mut().for_each(|row| row.told = row.shown.gone);
        (self.interfaces(), names)
    }

    /// Rows for the report.
    #[must_use]
    pub fn interfaces(&self) -> Vec<Interface> {
        self.rows.iter().map(|r| r.shown.clone()).collect()
    }

    /// Names of the scopes.
    #[must_use]
    pub fn scopes(&self) -> BTreeMap<u16, String> {
        self.names.clone()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::HashSet;

    /// How many of these find no slot.
    fn without_slot(keys: &[(u32, u32)]) -> usize {
        let mut taken = HashSet::new();
        let mut place = |(netns, ifindex): (u32, u32)| {
            (0..IFACE_WAYS).any(|way| taken.insert(iface_slot(netns, ifindex, way)))
        };
        keys.iter().filter(|key| !place(**key)).count()
    }

    #[test]
    fn a_full_node_has_a_slot_for_each_interface() {
        // As kernels number them: inodes from F0000000 on, some for each pod's other namespaces; indices at the host one for each
        // pod, in a pod lo and eth0.
        let host = 0xF000_0000;
        let mut keys = vec![(host, 0), (host, 1), (host, 2), (0, 2)];
        for pod in 0..250 {
            let netns = 0xF000_0100 + 6 * pod;
            keys.extend([(netns, 0), (netns, 1), (netns, 2), (host, 3 + pod), (0, 3 + pod)]);
        }
        assert_eq!((keys.len(), without_slot(&keys)), (1254, 0));
    }
}
