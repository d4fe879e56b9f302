//! nettrace's user side, in the order the data takes: `load` -> `attach` -> `ring` -> `decode` -> `aggregate` ->
//! `snapshot`; then what lives off a snapshot: `report`.

pub mod attach;
pub mod btf;
pub mod decode;
pub mod kernel_state;
pub mod load;
pub mod offsets;
pub mod probes;
pub mod ring;
pub mod snapshot;
pub mod symbols;
