//! Generated programs and live sessions over them, for the benches.

pub mod live;
pub mod process;
pub mod workload;
