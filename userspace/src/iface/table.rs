//! The interfaces of all namespaces: rows for the report, scopes for the kernel side.

use super::Link;
use crate::snapshot::Interface;
use aya::maps::{Array, MapData, MapError};
use nettrace_common::{
    SCOPE_OTHER,
    config::{IfaceSlot, iface_flag, iface_slot},
};
use std::collections::BTreeMap;

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
        self.set(&slot, name)
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
        self.set(&slot, &label)?;
        if wire {
            let scope = self.wire_scope(link.ifindex, slot.scope);
            self.set(&IfaceSlot { netns: 0, scope, ..slot }, &label)?;
        }
        let shown = Interface {
            name: link.name.clone(),
            ifindex: link.ifindex,
            netns: netns.to_owned(),
            scope: self.names.get(&scope).cloned().unwrap_or_default(),
            attached: Vec::new(),
            error: None,
            gone: false,
        };
        let id = self.added;
        self.added += 1;
        self.rows.push(Row { id, inode, scope, shown, told: false });
        Ok(id)
    }

    /// TC and XDP programs cannot tell the namespace: interfaces of two namespaces with the same index share `other`.
    fn wire_scope(&self, ifindex: u32, wanted: u32) -> u32 {
        match self.map.get(&iface_slot(0, ifindex), 0) {
            Ok(there)
                if there.netns == 0 && there.ifindex == ifindex && ![0, wanted].contains(&there.scope) =>
            {
                u32::from(SCOPE_OTHER)
            }
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
        let (scope, label) = (row.scope, row.shown.name.clone());
        for netns in [inode, 0] {
            let index = iface_slot(netns, ifindex);
            let mine =
                |s: &IfaceSlot| s.netns == netns && s.ifindex == ifindex && s.scope == u32::from(scope);
            if self.map.get(&index, 0).is_ok_and(|s| mine(&s)) {
                let empty = IfaceSlot::default();
                if let Err(error) = self.map.set(index, empty, 0) {
                    tracing::warn!("{}", TableError { what: label.clone(), error });
                }
            }
        }
    }

    /// Two interfaces whose slots collide: the later one goes without a scope of its own.
    fn set(&mut self, slot: &IfaceSlot, label: &str) -> Result<(), TableError> {
        let refused = |error| TableError { what: label.to_owned(), error };
        let index = iface_slot(slot.netns, slot.ifindex);
        let there = self.map.get(&index, 0).map_err(refused)?;
        let taken = there.scope != 0 && (there.netns, there.ifindex) != (slot.netns, slot.ifindex);
        if taken {
            tracing::warn!(
                "{label} shares a slot of the interface table with another and is counted as `other`"
            );
            return Ok(());
        }
        self.map.set(index, slot, 0).map_err(refused)
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
