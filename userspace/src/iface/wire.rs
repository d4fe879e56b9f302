//! The TC and XDP programs at the interfaces of one namespace. Used by that namespace's thread alone, which is in it.

use super::Link;
use aya::{
    Ebpf,
    programs::{
        LinkOrder, ProgramError, SchedClassifier, TcAttachType, Xdp,
        tc::{NlOptions, SchedClassifierLink, TcAttachOptions, TcError, qdisc_add_clsact},
        xdp::{XdpLink, XdpMode},
    },
};
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
    links: HashMap<u32, Links>,
}

impl Attached {
    pub(super) fn new(wanted: bool, xdp: bool) -> Self {
        Self { wanted, xdp, links: HashMap::new() }
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
            how.push(links.attach_tc(ebpf, "wire_in", &link.name, TcAttachType::Ingress)?);
        }
        let out = links.attach_tc(ebpf, "wire_out", &link.name, TcAttachType::Egress)?;
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
    ) -> Result<String, String> {
        let classifier: &mut SchedClassifier = ebpf
            .program_mut(program)
            .ok_or_else(|| format!("{program} is not in the object"))?
            .try_into()
            .map_err(|e: ProgramError| e.to_string())?;
        // First in the chain: a program before this one may end it.
        let tcx = TcAttachOptions::TcxOrder(LinkOrder::first());
        let (id, how) = match classifier.attach_with_options(interface, direction, tcx) {
            Ok(id) => (id, "tcx"),
            Err(error) => {
                tracing::debug!("{interface}: no tcx: {error}");
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

fn attach_xdp(ebpf: &mut Ebpf, ifindex: u32) -> Result<XdpLink, String> {
    let xdp: &mut Xdp = ebpf
        .program_mut("wire_xdp")
        .ok_or("wire_xdp is not in the object")?
        .try_into()
        .map_err(|e: ProgramError| e.to_string())?;
    let id = xdp.attach_to_if_index(ifindex, XdpMode::Driver).map_err(|e| e.to_string())?;
    xdp.take_link(id).map_err(|e| e.to_string())
}

/// Only when it is as empty as we found it: the kernel removes a clsact with others' filters too.
async fn remove_clsact(handle: &rtnetlink::Handle, ifindex: u32) {
    let Ok(index) = i32::try_from(ifindex) else { return };
    let mut request = handle.qdisc().del(index);
    request.message_mut().header.parent = TcHandle::CLSACT;
    if let Err(error) = request.execute().await {
        tracing::warn!("interface {ifindex}: the clsact qdisc that was added could not be removed: {error}");
    }
}
