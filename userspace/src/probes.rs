//! What user space makes of the event lane's records, by probe; a probe has the same name in `ebpf`, in `common`,
//! here, and in `tests`.

pub mod dns;
