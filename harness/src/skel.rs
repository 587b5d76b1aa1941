// SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause
//! The skeletons that `build.rs` generates from `bpf/*.bpf.c`.

#[allow(
    missing_docs,
    unused_imports,
    clippy::all,
    clippy::restriction,
    dead_code
)]
pub(crate) mod csum_tc {
    include!(concat!(env!("OUT_DIR"), "/csum_tc.skel.rs"));
}

#[allow(
    missing_docs,
    unused_imports,
    clippy::all,
    clippy::restriction,
    dead_code
)]
pub(crate) mod csum_xdp {
    include!(concat!(env!("OUT_DIR"), "/csum_xdp.skel.rs"));
}

#[allow(
    missing_docs,
    unused_imports,
    clippy::all,
    clippy::restriction,
    dead_code
)]
pub(crate) mod translate {
    include!(concat!(env!("OUT_DIR"), "/translate.skel.rs"));
}

#[allow(
    missing_docs,
    unused_imports,
    clippy::all,
    clippy::restriction,
    dead_code
)]
pub(crate) mod lb_tc {
    include!(concat!(env!("OUT_DIR"), "/lb_tc.skel.rs"));
}

#[allow(
    missing_docs,
    unused_imports,
    clippy::all,
    clippy::restriction,
    dead_code
)]
pub(crate) mod lb_xdp {
    include!(concat!(env!("OUT_DIR"), "/lb_xdp.skel.rs"));
}

#[allow(
    missing_docs,
    unused_imports,
    clippy::all,
    clippy::restriction,
    dead_code
)]
pub(crate) mod bench_tc {
    include!(concat!(env!("OUT_DIR"), "/bench_tc.skel.rs"));
}

#[allow(
    missing_docs,
    unused_imports,
    clippy::all,
    clippy::restriction,
    dead_code
)]
pub(crate) mod bench_xdp {
    include!(concat!(env!("OUT_DIR"), "/bench_xdp.skel.rs"));
}

/// The tc program as an object file, for its BTF.
pub(crate) static LB_TC_OBJECT: &[u8] = include_bytes!(concat!(env!("OUT_DIR"), "/lb_tc.bpf.o"));
