use super::*;
use proptest::prelude::*;

/// Builds BTF type by type.
#[derive(Default)]
pub(crate) struct Builder {
    types: Vec<u8>,
    /// Types so far.
    count: u32,
    strings: Vec<u8>,
}

impl Builder {
    pub(crate) fn new() -> Self {
        Self { types: Vec::new(), count: 0, strings: vec![0] }
    }

    fn string(&mut self, s: &str) -> u32 {
        if s.is_empty() {
            return 0;
        }
        let at = self.strings.len() as u32;
        self.strings.extend_from_slice(s.as_bytes());
        self.strings.push(0);
        at
    }

    fn ty(&mut self, name: &str, info: u32, size_or_type: u32, extra: &[u32]) {
        self.count += 1;
        let name = self.string(name);
        for word in [name, info, size_or_type].iter().chain(extra) {
            self.types.extend_from_slice(&word.to_ne_bytes());
        }
    }

    /// `typedef void (*btf_trace_NAME)(void *)`
    pub(crate) fn tracepoint(&mut self, name: &str) {
        self.ty("", kind::FUNC_PROTO << 24 | 1, 0, &[0, 0]);
        self.ty("", kind::PTR << 24, self.count, &[]);
        self.ty(&format!("btf_trace_{name}"), kind::TYPEDEF << 24, self.count, &[]);
    }

    /// A function without arguments.
    pub(crate) fn function(&mut self, name: &str) {
        self.ty("", kind::FUNC_PROTO << 24, 0, &[]);
        self.ty(name, kind::FUNC << 24, self.count, &[]);
    }

    pub(crate) fn build(self) -> Vec<u8> {
        let mut raw = Vec::new();
        raw.extend_from_slice(&MAGIC.to_ne_bytes());
        raw.extend_from_slice(&[1, 0]);
        let (types, strings) = (self.types.len() as u32, self.strings.len() as u32);
        for word in [24, 0, types, types, strings] {
            raw.extend_from_slice(&u32::to_ne_bytes(word));
        }
        raw.extend(self.types);
        raw.extend(self.strings);
        raw
    }
}

fn sample() -> Vec<u8> {
    let mut b = Builder::new();
    b.ty("int", kind::INT << 24, 4, &[32]); // 1
    let (low, high) = (b.string("low"), b.string("high"));
    b.ty("", kind::UNION << 24 | 2, 8, &[low, 1, 0, high, 1, 32]); // 2, anonymous
    let (first, flag) = (b.string("first"), b.string("flag"));
    b.ty("outer", 1 << 31 | kind::STRUCT << 24 | 3, 16, &[first, 1, 0, 0, 2, 32, flag, 1, 2 << 24 | 101]); // 3
    b.ty("outer_t", kind::TYPEDEF << 24, 3, &[]); // 4
    let held = b.string("held");
    b.ty("holder", kind::STRUCT << 24 | 1, 32, &[held, 4, 64]); // 5
    b.ty("", kind::FUNC_PROTO << 24 | 3, 0, &[0, 1, 0, 1, 0, 1]); // 6
    b.ty("", kind::PTR << 24, 6, &[]); // 7
    b.ty("btf_trace_hit", kind::TYPEDEF << 24, 7, &[]); // 8
    let (a, z) = (b.string("A_ONE"), b.string("A_NINE"));
    b.ty("letters", kind::ENUM << 24 | 2, 4, &[a, 1, z, 9]); // 9
    b.build()
}

#[test]
fn members_are_found_through_anonymous_and_nested_types() {
    let btf = Btf::parse(sample()).unwrap();
    assert_eq!(btf.member("outer.first").map(Member::byte), Some(0));
    assert_eq!(btf.member("outer.high").map(Member::byte), Some(8));
    assert_eq!(btf.member("holder.held.high").map(Member::byte), Some(16));
    let flag = btf.member("outer.flag").unwrap();
    assert_eq!((flag.byte(), flag.mask()), (12, 0b0110_0000));
    assert_eq!(btf.member("outer.none"), None);
    assert_eq!(btf.member("none.first"), None);
    assert_eq!(btf.member("outer.first.deeper"), None);
}

#[test]
fn enums_and_tracepoints() {
    let btf = Btf::parse(sample()).unwrap();
    assert_eq!(btf.enum_values("letters"), [("A_ONE".to_owned(), 1), ("A_NINE".to_owned(), 9)]);
    assert_eq!(btf.tracepoint_args("hit"), Some(2));
    assert_eq!(btf.tracepoint_args("miss"), None);
}

proptest! {
    #[test]
    fn hostile_bytes_never_panic(at in 0..400_usize, byte: u8, cut in 0..400_usize) {
        let mut raw = sample();
        if let Some(b) = raw.get_mut(at) {
            *b = byte;
        }
        raw.truncate(cut.max(2));
        if let Ok(btf) = Btf::parse(raw) {
            let _ = (btf.member("holder.held.high"), btf.enum_values("letters"), btf.tracepoint_args("hit"));
        }
    }
}
