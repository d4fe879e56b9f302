//! nettrace's user side, in the order the data takes: `load` -> `attach` -> `ring` -> `decode` -> `aggregate` ->
//! `snapshot`; then what lives off a snapshot: `report`; beside it `lab`, a node of network namespaces with real
//! traffic.

pub mod lab;
pub mod snapshot;
