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

impl Builder {
    /// Of a module: types and strings go on where those of another one end.
    fn of_module(after: &Self) -> Self {
        Self { types: Vec::new(), count: after.count, strings: Vec::new() }
    }

    fn module_string(&mut self, after: &Self, s: &str) -> u32 {
        after.strings.len() as u32 + self.string(s)
    }
}

#[test]
fn a_modules_types_go_on_from_the_kernels() {
    let mut kernel = Builder::new();
    kernel.ty("long", kind::INT << 24, 8, &[64]); // 1
    let first = kernel.string("first");
    kernel.ty("inner", kind::STRUCT << 24 | 2, 16, &[0, 1, 0, first, 1, 64]); // 2
    let mut module = Builder::of_module(&kernel);
    let (name, status, within) = (
        module.module_string(&kernel, "nf_conn"),
        module.module_string(&kernel, "status"),
        module.module_string(&kernel, "within"),
    );
    module.count += 1;
    // struct nf_conn { struct inner within; long status; }
    for word in [name, kind::STRUCT << 24 | 2, 24, within, 2, 0, status, 1, 128] {
        module.types.extend_from_slice(&word.to_ne_bytes());
    }
    let module = module.build();
    let kernel = Btf::parse(kernel.build()).unwrap();
    assert_eq!(kernel.member("nf_conn.status"), None);
    let joined = kernel.joined(&module).unwrap();
    assert_eq!(joined.member("nf_conn.status").map(Member::byte), Some(16));
    assert_eq!(joined.member("nf_conn.within.first").map(Member::byte), Some(8));
    assert_eq!(joined.member("inner.first").map(Member::byte), Some(8));
    assert!(joined.joined(&module).is_err() && kernel.joined(b"text").is_err());
    for cut in 0..module.len() {
        drop(kernel.joined(&module[..cut]).map(|joined| joined.member("nf_conn.status")));
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
