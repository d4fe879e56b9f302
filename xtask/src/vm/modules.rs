//! Which modules a kernel needs for what the tests do, and in which order they have to be loaded.

use std::{
    collections::{BTreeMap, BTreeSet},
    fs,
    path::{Path, PathBuf},
};

use anyhow::{Context, Result};
use object::{Object as _, ObjectSection as _};
use walkdir::WalkDir;

use super::unpack;

/// What the tests use: each takes a boot 50 ms, where the processor is emulated. What a kernel has built in or does not have is left out.
pub(super) const WANTED: &[&str] = &[
    // Interfaces.
    "virtio_pci",
    "virtio_net",
    "veth",
    "bridge",
    "dummy",
    "8021q",
    "tun",
    "vxlan",
    "geneve",
    "ipip",
    "sit",
    // Queueing disciplines, classifiers and their actions.
    "sch_netem",
    "sch_fq",
    "sch_fq_codel",
    "sch_htb",
    "sch_tbf",
    "sch_prio",
    "sch_ingress",
    "cls_bpf",
    "cls_u32",
    "act_bpf",
    "act_mirred",
    // Connection tracking, address translation, nftables, iptables.
    "nf_conntrack",
    "nf_conntrack_netlink",
    "nf_nat",
    "nf_tables",
    "nft_ct",
    "nft_nat",
    "nft_chain_nat",
    "nft_masq",
    "nft_counter",
    "nft_reject_inet",
    "nft_numgen",
    "nft_compat",
    "nft_objref",
    "nft_queue",
    "nfnetlink_queue",
    "iptable_filter",
    "iptable_nat",
    "iptable_mangle",
    "ip6table_filter",
    "ip6table_nat",
    "xt_conntrack",
    "xt_nat",
    "xt_MASQUERADE",
    "xt_statistic",
    "xt_mark",
    "xt_tcpudp",
    "xt_comment",
    "xt_addrtype",
    "ipt_REJECT",
    "ip6t_REJECT",
    // TCP and looking at sockets.
    "tcp_bbr",
    "inet_diag",
    "tcp_diag",
    "udp_diag",
];

/// Modules that another needs without naming it: a checksum or the like that it asks for by name.
const UNNAMED: &[&str] = &["crc32c_generic", "crc32c_cryptoapi", "libcrc32c"];

/// A module, unpacked.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Module {
    /// Its name, with underscores.
    pub(super) name: String,
    /// The file.
    pub(super) content: Vec<u8>,
}

/// The wanted modules of a kernel and those that they depend on, in an order in which they can be loaded.
pub(super) fn in_order(dir: &Path) -> Result<Vec<Module>> {
    let files = index(dir)?;
    let mut order = Order { read: &|name| read(&files, name), seen: BTreeSet::new(), modules: Vec::new() };
    for name in UNNAMED.iter().chain(WANTED) {
        order.add(name)?;
    }
    Ok(order.modules)
}

/// The files of all modules by name.
fn index(dir: &Path) -> Result<BTreeMap<String, PathBuf>> {
    let mut files = BTreeMap::new();
    for entry in WalkDir::new(dir) {
        let path = entry.with_context(|| dir.display().to_string())?.into_path();
        let name = path.file_name().unwrap_or_default().to_string_lossy();
        if let Some((name, "" | ".xz" | ".zst" | ".gz")) = name.split_once(".ko") {
            files.insert(canonical(name), path);
        }
    }
    Ok(files)
}

fn read(files: &BTreeMap<String, PathBuf>, name: &str) -> Result<Option<Vec<u8>>> {
    let Some(path) = files.get(name) else { return Ok(None) };
    let bytes = fs::read(path).and_then(|bytes| unpack::decompressed(&bytes).map_err(std::io::Error::other));
    bytes.map(|bytes| Some(unsigned(bytes))).with_context(|| path.display().to_string())
}

/// A module without the signature at its end: the package was checked already, and an emulated processor takes 50 ms to
/// check a module. The kernel marks itself as tainted and loads it.
///
/// Source: `struct module_signature` (include/linux/module_signature.h), and the magic text after it.
fn unsigned(mut module: Vec<u8>) -> Vec<u8> {
    const MAGIC: &[u8] = b"~Module signature appended~\n";
    let trailer = module.strip_suffix(MAGIC).and_then(|rest| rest.split_last_chunk());
    if let Some((rest, [_, _, _, signer, key, _, _, _, a, b, c, d])) = trailer {
        let signature = u32::from_be_bytes([*a, *b, *c, *d]) as usize;
        let appended = signature.saturating_add(usize::from(*signer)).saturating_add(usize::from(*key));
        module.truncate(rest.len().saturating_sub(appended));
    }
    module
}

/// Module names are written with dashes and with underscores and mean the same.
fn canonical(name: &str) -> String {
    name.replace('-', "_")
}

struct Order<'a> {
    read: &'a dyn Fn(&str) -> Result<Option<Vec<u8>>>,
    seen: BTreeSet<String>,
    modules: Vec<Module>,
}

impl Order<'_> {
    /// Adds a module after those that it depends on.
    fn add(&mut self, name: &str) -> Result<()> {
        let name = canonical(name);
        if !self.seen.insert(name.clone()) {
            return Ok(());
        }
        let Some(content) = (self.read)(&name)? else { return Ok(()) };
        for needed in dependencies(&content).with_context(|| format!("module {name}"))? {
            self.add(&needed)?;
        }
        self.modules.push(Module { name, content });
        Ok(())
    }
}

/// What a module says that it depends on: `depends=` in its section `.modinfo`.
fn dependencies(module: &[u8]) -> Result<Vec<String>> {
    let file = object::File::parse(module).context("not an object file")?;
    let info = file.section_by_name(".modinfo").context("no .modinfo section")?;
    Ok(depends(info.data().context("an unreadable .modinfo section")?))
}

fn depends(modinfo: &[u8]) -> Vec<String> {
    let fields = modinfo.split(|byte| *byte == 0).filter_map(|field| field.strip_prefix(b"depends="));
    let names = fields.map(String::from_utf8_lossy);
    names
        .flat_map(|names| names.split(',').filter(|name| !name.is_empty()).map(canonical).collect::<Vec<_>>())
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn dependencies_are_read_from_modinfo() {
        let info = b"license=GPL\0depends=nf_conntrack,libcrc32c,nf-nat\0\0retpoline=Y\0intree=Y\0name=x\0";
        assert_eq!(depends(info), ["nf_conntrack", "libcrc32c", "nf_nat"]);
        assert_eq!(depends(b"license=GPL\0depends=\0name=x\0"), Vec::<String>::new());
        assert_eq!(depends(b""), Vec::<String>::new());
        assert!(dependencies(b"text").is_err());
    }

    #[test]
    fn a_signature_is_taken_off_whole() {
        let signed = |length: u8| {
            let trailer = [0, 0, 2, 0, 0, 0, 0, 0, 0, 0, 0, length];
            [b"moduleSIGNATURE".as_slice(), &trailer, b"~Module signature appended~\n"].concat()
        };
        assert_eq!(unsigned(signed(9)), b"module");
        // Longer than all there is: nothing is left, and the kernel says so.
        assert_eq!(unsigned(signed(200)), b"");
        assert_eq!(unsigned(b"module".to_vec()), b"module");
        assert_eq!(unsigned(b"~Module signature appended~\n".to_vec()), b"~Module signature appended~\n");
    }

    /// A little-endian ELF file with one section besides its names.
    fn module(modinfo: &[u8]) -> Vec<u8> {
        let mut file = object::write::Object::new(
            object::BinaryFormat::Elf,
            object::Architecture::X86_64,
            object::Endianness::Little,
        );
        let section = file.add_section(Vec::new(), b".modinfo".to_vec(), object::SectionKind::ReadOnlyData);
        file.append_section_data(section, modinfo, 1);
        file.write().expect("a small file")
    }

    #[test]
    fn what_is_needed_comes_first_and_only_once() {
        let known = BTreeMap::from([
            ("a", module(b"depends=b,c\0")),
            ("b", module(b"depends=d\0")),
            ("c", module(b"depends=d,built_in\0")),
            ("d", module(b"depends=\0")),
        ]);
        let read = |name: &str| Ok(known.get(name).cloned());
        let mut order = Order { read: &read, seen: BTreeSet::new(), modules: Vec::new() };
        for wanted in ["a", "not-there", "c"] {
            order.add(wanted).expect("all are well formed");
        }
        let names: Vec<_> = order.modules.iter().map(|module| module.name.as_str()).collect();
        assert_eq!(names, ["d", "b", "c", "a"]);
    }
}
