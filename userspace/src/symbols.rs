//! Names for what the kernel tells as numbers: code addresses and drop reasons.

use crate::btf::Btf;
use std::{
    collections::BTreeMap,
    fs::File,
    io::{BufRead, BufReader, Seek as _},
    sync::{Mutex, OnceLock, PoisonError},
};

const KALLSYMS: &str = "/proc/kallsyms";

/// [`KALLSYMS`], opened when this process might still see addresses in it.
static OPENED: OnceLock<Mutex<File>> = OnceLock::new();

/// Opens the kernel's list of symbols now, for all readings to come: whether it hides addresses depends on who opened it
/// (kallsyms_open), and CAP_SYSLOG may be given up before they are asked for. Without the file there are no names later either.
pub(crate) fn keep_open() {
    if let Ok(file) = File::open(KALLSYMS) {
        OPENED.get_or_init(|| Mutex::new(file));
    }
}

/// Names of kernel functions by address, of those that were asked for: the kernel's list is long, and is read anew only for an
/// address that was not asked for before.
#[derive(Debug, Default)]
pub struct Symbols(BTreeMap<u64, String>);

impl Symbols {
    /// Learns the names of these addresses, from /proc/kallsyms. Where that cannot be read or hides its addresses
    /// (kptr_restrict), the addresses are their names.
    pub fn learn(&mut self, addresses: impl Iterator<Item = u64>) {
        let mut new: Vec<_> = addresses.filter(|address| !self.0.contains_key(address)).collect();
        if new.is_empty() {
            return;
        }
        new.sort_unstable();
        new.dedup();
        if let Some(opened) = OPENED.get() {
            let mut file = opened.lock().unwrap_or_else(PoisonError::into_inner);
            if file.rewind().is_ok() {
                return self.parse(&new, BufReader::new(&*file));
            }
        }
        match File::open(KALLSYMS) {
            Ok(file) => self.parse(&new, BufReader::new(file)),
            Err(_) => self.parse(&new, &[][..]),
        }
    }

    /// From the text of kallsyms: `ffffffff81000000 T _text [module]`. Addresses ascend.
    fn parse(&mut self, addresses: &[u64], text: impl BufRead) {
        // For each address the latest function that begins at or before it, and after the address before it.
        let mut found: Vec<Option<(u64, String)>> = vec![None; addresses.len()];
        for line in text.lines().map_while(Result::ok) {
            let Some((start, name)) = function(&line) else { continue };
            let next = addresses.partition_point(|address| *address < start);
            if let Some(latest) = found.get_mut(next)
                && latest.as_ref().is_none_or(|(there, _)| *there <= start)
            {
                *latest = Some((start, name.to_owned()));
            }
        }
        let mut before = None;
        for (address, latest) in addresses.iter().zip(found) {
            before = latest.or(before);
            let name = before.as_ref().map(|(start, name)| format!("{name}+{:#x}", address - start));
            self.0.insert(*address, name.unwrap_or_else(|| format!("{address:#x}")));
        }
    }

    /// The function that an address lies in, without its suffixes (`.constprop.0`), or the address itself.
    #[must_use]
    pub fn name(&self, address: u64) -> String {
        self.0.get(&address).cloned().unwrap_or_else(|| format!("{address:#x}"))
    }
}

/// Where the function of a line begins, and its name without suffixes.
fn function(line: &str) -> Option<(u64, &str)> {
    let mut words = line.split_ascii_whitespace();
    let start = u64::from_str_radix(words.next()?, 16).ok().filter(|start| *start != 0)?;
    words.next().filter(|kind| kind.eq_ignore_ascii_case("t") || kind.eq_ignore_ascii_case("w"))?;
    let name = words.next()?;
    Some((start, name.split('.').next().unwrap_or(name)))
}

/// Drop reasons by number, without their prefix; the running kernel's own list.
#[must_use]
pub fn drop_reasons(btf: &Btf) -> BTreeMap<u32, String> {
    btf.enum_values("skb_drop_reason")
        .into_iter()
        .filter_map(|(name, value)| {
            let name = name.strip_prefix("SKB_DROP_REASON_").unwrap_or(&name).to_owned();
            Some((u32::try_from(value).ok()?, name))
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_address_is_named_by_the_function_before_it() {
        let text = "00000010 T first\n00000020 t second.constprop.0 [mod]\n00000028 d data\n0 T hidden\n";
        let mut symbols = Symbols::default();
        symbols.parse(&[0x5, 0x10, 0x1f, 0x2f, 0x30], text.as_bytes());
        let names = [0x5, 0x10, 0x1f, 0x2f, 0x30].map(|address| symbols.name(address));
        assert_eq!(names, ["0x5", "first+0x0", "first+0xf", "second+0xf", "second+0x10"]);
        symbols.parse(&[0xff], &[][..]);
        assert_eq!((symbols.name(0xff), symbols.name(0x77)), ("0xff".to_owned(), "0x77".to_owned()));
    }

    #[test]
    fn this_kernels_functions_are_found_and_asked_for_once() {
        let mut symbols = Symbols::default();
        symbols.learn([0x10_u64, 0x20].into_iter());
        assert_eq!(symbols.0.len(), 2);
        symbols.learn([0x20_u64].into_iter());
        assert_eq!(symbols.0.len(), 2);
    }
}
