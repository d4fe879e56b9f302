//! The TC and XDP programs at the interfaces of one namespace. Used by that namespace's thread alone, which is in it.

use super::{Link, Selection};
use aya::{
    Ebpf,
    programs::{
        LinkOrder, ProgramError, SchedClassifier, TcAttachType, Xdp,
        tc::{
            NlOptions, SchedClassifierLink, SchedClassifierLinkId, TcAttachOptions, TcError, qdisc_add_clsact,
        },
        xdp::{XdpLink, XdpMode},
    },
};
use futures_util::TryStreamExt as _;
use rtnetlink::packet_route::tc::TcHandle;
use std::collections::HashMap;

/// What one interface holds; dropping a link detaches it.
#[derive(Default)]
struct Links {
    tc: Vec<SchedClassifierLink>,
    xdp: Option<XdpLink>,
    /// The clsact qdisc was not there before and goes when the programs go.
    added_clsact: bool,
}

/// Everything attached in the namespace.
pub(super) struct Attached {
    wanted: bool,
    xdp: bool,
    tcx: bool,
    links: HashMap<u32, Links>,
}

impl Attached {
    pub(super) fn new(wanted: bool, selection: &Selection) -> Self {
        Self { wanted, xdp: selection.xdp, tcx: !selection.clsact, links: HashMap::new() }
    }

    /// Attaches to one interface. Returns how, or why not.
    pub(super) fn attach(&mut self, ebpf: &mut Ebpf, link: &Link) -> Result<Vec<String>, String> {
        if !self.wanted {
            return Ok(Vec::new());
        }
        let mut links = Links::default();
        let mut how = Vec::new();
        if self.xdp {
            match attach_xdp(ebpf, link.ifindex) {
                Ok(xdp) => {
                    links.xdp = Some(xdp);
                    how.push("xdp".to_owned());
                }
                Err(error) => tracing::info!("{}: no native XDP, TC instead: {error}", link.name),
            }
        }
        if links.xdp.is_none() {
            how.push(links.attach_tc(ebpf, "wire_in", &link.name, TcAttachType::Ingress, self.tcx)?);
        }
        let out = links.attach_tc(ebpf, "wire_out", &link.name, TcAttachType::Egress, self.tcx)?;
        if !how.contains(&out) {
            how.push(out);
        }
        self.links.insert(link.ifindex, links);
        Ok(how)
    }

    /// The interface is gone, and its programs with it.
    pub(super) fn forget(&mut self, ifindex: u32) {
        self.links.remove(&ifindex);
    }

    /// Leaves every interface as it was.
    pub(super) async fn detach_all(&mut self, handle: &rtnetlink::Handle) {
        for (ifindex, links) in self.links.drain() {
            let added_clsact = links.added_clsact;
            drop(links);
            if added_clsact {
                remove_clsact(handle, ifindex).await;
            }
        }
    }
}

impl Links {
    /// tcx from Linux 6.6, and before, or where it is missing, a filter of a clsact qdisc.
    fn attach_tc(
        &mut self,
        ebpf: &mut Ebpf,
        program: &str,
        interface: &str,
        direction: TcAttachType,
        tcx: bool,
    ) -> Result<String, String> {
        let classifier: &mut SchedClassifier = ebpf
            .program_mut(program)
            .ok_or_else(|| format!("{program} is not in the object"))?
            .try_into()
            .map_err(|e: ProgramError| e.to_string())?;
        let (id, how) = match tcx_attach(classifier, interface, direction, tcx) {
            Ok(id) => (id, "tcx"),
            Err(why) => {
                tracing::debug!("{interface}: no tcx: {why}");
                match qdisc_add_clsact(interface) {
                    Ok(()) => self.added_clsact = true,
                    Err(TcError::AlreadyAttached) => {}
                    Err(error) => tracing::debug!("{interface}: clsact: {error}"),
                }
                let netlink = TcAttachOptions::Netlink(NlOptions::default());
                let id = classifier
                    .attach_with_options(interface, direction, netlink)
                    .map_err(|e| format!("cannot attach TC program {program} to {interface}: {e}"))?;
                (id, "clsact")
            }
        };
        self.tc.push(classifier.take_link(id).map_err(|e| e.to_string())?);
        Ok(how.to_owned())
    }
}

/// First in the chain: a program before this one may end it.
fn tcx_attach(
    classifier: &mut SchedClassifier,
    interface: &str,
    direction: TcAttachType,
    wanted: bool,
) -> Result<SchedClassifierLinkId, String> {
    if !wanted {
        return Err("clsact is asked for".to_owned());
    }
    let first = TcAttachOptions::TcxOrder(LinkOrder::first());
    classifier.attach_with_options(interface, direction, first).map_err(|e| e.to_string())
}

fn attach_xdp(ebpf: &mut Ebpf, ifindex: u32) -> Result<XdpLink, String> {
    let xdp: &mut Xdp = ebpf
        .program_mut("wire_xdp")
        .ok_or("wire_xdp is not in the object")?
        .try_into()
        .map_err(|e: ProgramError| e.to_string())?;
    let id = xdp.attach_to_if_index(ifindex, XdpMode::Driver).map_err(|e| e.to_string())?;
    xdp.take_link(id).map_err(|e| e.to_string())
}

/// Only while nobody else has filters there: the kernel would remove those too.
async fn remove_clsact(handle: &rtnetlink::Handle, ifindex: u32) {
    let Ok(index) = i32::try_from(ifindex) else { return };
    if others_filter(handle, index).await {
        tracing::warn!(
            "interface {ifindex}: the clsact qdisc that was added stays, others have filters in it now"
        );
        return;
    }
    let mut request = handle.qdisc().del(index);
    request.message_mut().header.parent = TcHandle::CLSACT;
    if let Err(error) = request.execute().await {
        tracing::warn!("interface {ifindex}: the clsact qdisc that was added could not be removed: {error}");
    }
}

/// Whether there are filters, now that ours are gone.
async fn others_filter(handle: &rtnetlink::Handle, index: i32) -> bool {
    for egress in [false, true] {
        let request = handle.traffic_filter(index).get();
        let request = if egress { request.egress() } else { request.ingress() };
        let mut filters = request.execute();
        if let Ok(Some(_)) = filters.try_next().await {
            return true;
        }
    }
    false
}
