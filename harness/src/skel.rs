// SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause
//! The skeletons that `build.rs` generates from `bpf/*.bpf.c`.

macro_rules! skeletons {
    ($($name:ident),+ $(,)?) => {$(
        #[allow(
            missing_docs,
            unused_imports,
            clippy::all,
            clippy::restriction,
            dead_code
        )]
        pub(crate) mod $name {
            include!(concat!(env!("OUT_DIR"), "/", stringify!($name), ".skel.rs"));
        }
    )+};
}

skeletons!(
    bench_tc, bench_xdp, csum_tc, csum_xdp, lb_tc, lb_xdp, translate, wire
);

/// The tc program as an object file, for its BTF.
pub(crate) static LB_TC_OBJECT: &[u8] = include_bytes!(concat!(env!("OUT_DIR"), "/lb_tc.bpf.o"));
