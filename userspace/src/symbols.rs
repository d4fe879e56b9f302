//! Names for what the kernel tells as numbers: code addresses and drop reasons.

use crate::btf::Btf;
use std::{
    collections::BTreeMap,
    fs::File,
    io::{self, Read as _, Seek as _},
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

fn kallsyms() -> io::Result<String> {
    let mut text = String::new();
    match OPENED.get() {
        Some(file) => {
            let mut file = file.lock().unwrap_or_else(PoisonError::into_inner);
            file.rewind()?;
            file.read_to_string(&mut text)?;
        }
        None => {
            File::open(KALLSYMS)?.read_to_string(&mut text)?;
        }
    }
    Ok(text)
}

/// Kernel functions by address.
pub struct Symbols(Vec<(u64, String)>);

impl Symbols {
    /// From /proc/kallsyms. Empty when it cannot be read or hides its addresses (kptr_restrict).
    #[must_use]
    pub fn kernel() -> Self {
        Self::parse(&kallsyms().unwrap_or_default())
    }

    /// From the text of kallsyms: `ffffffff81000000 T _text [module]`.
    #[must_use]
    pub fn parse(text: &str) -> Self {
        let mut symbols: Vec<_> = text
            .lines()
            .filter_map(|line| {
                let mut words = line.split_ascii_whitespace();
                let address = u64::from_str_radix(words.next()?, 16).ok().filter(|a| *a != 0)?;
                words
                    .next()
                    .filter(|kind| kind.eq_ignore_ascii_case("t") || kind.eq_ignore_ascii_case("w"))?;
                Some((address, words.next()?.to_owned()))
            })
            .collect();
        symbols.sort_unstable();
        Self(symbols)
    }

    /// The function that an address lies in, without its suffixes (`.constprop.0`), or the address itself.
    #[must_use]
    pub fn name(&self, address: u64) -> String {
        let next = self.0.partition_point(|(start, _)| *start <= address);
        match next.checked_sub(1).and_then(|i| self.0.get(i)) {
            Some((start, name)) => {
                let name = name.split('.').next().unwrap_or(name);
                format!("{name}+{:#x}", address - start)
            }
            None => format!("{address:#x}"),
        }
    }
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
        let s = Symbols::parse(
            "00000010 T first\n00000020 t second.constprop.0 [mod]\n00000028 d data\n0 T hidden\n",
        );
        assert_eq!(s.name(0x10), "first+0x0");
        assert_eq!(s.name(0x2f), "second+0xf");
        assert_eq!(s.name(0x5), "0x5");
        assert_eq!(Symbols::parse("").name(0xff), "0xff");
    }
}
