// SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause
//! Associations of the kernel's own SCTP through the translator.

use std::path::PathBuf;

use bpf_sctp::feature::Feature;
use bpf_sctp::lab::{Family, Lab};
use bpf_sctp::scenario::{Outcome, Scenario};
use bpf_sctp::translator::CsumMode;
use rstest::rstest;

use crate::support::{require, test_name};

const PAYLOAD: usize = 1 << 20;

/// Fails the test if anything is not as it should be, and leaves what was captured.
fn insist(outcome: &Outcome) {
    let complaints = outcome.complaints();
    if complaints.is_empty() {
        return;
    }
    let folder = PathBuf::from(env!("CARGO_TARGET_TMPDIR"));
    let name = test_name().replace("::", "-");
    for (side, report) in [("client", &outcome.client), ("backend", &outcome.backend)] {
        report
            .write_pcap(&folder.join(format!("{name}-{side}.pcap")))
            .expect("a file to write");
    }
    let folder = folder.display();
    panic!(
        "{}\npackets: {folder}/{name}-*.pcap\n{outcome:#?}",
        complaints.join("\n")
    );
}

fn lab() -> Lab {
    Lab::new().expect("namespaces and veth")
}

fn scenario(family: Family, offload: bool, mode: CsumMode) -> Scenario {
    Scenario {
        family,
        offload,
        mode,
        payload: PAYLOAD,
    }
}

#[rstest]
fn an_association_survives_a_port_translation(
    #[values(Family::V4, Family::V6)] family: Family,
    #[values(true, false)] offload: bool,
    #[values(CsumMode::Auto, CsumMode::Bpf)] mode: CsumMode,
) {
    require!(Feature::Root, Feature::Btf, Feature::Sctp);
    let outcome = scenario(family, offload, mode)
        .run(&lab())
        .expect("the lab works");
    insist(&outcome);
    let kfunc = mode == CsumMode::Auto && Feature::Kfunc.available();
    assert_eq!(
        outcome.update_kind(),
        Some(if kfunc { "kfunc" } else { "pure BPF" })
    );
}

#[rstest]
fn without_the_update_there_is_no_association(#[values(Family::V4, Family::V6)] family: Family) {
    require!(Feature::Root, Feature::Btf, Feature::Sctp);
    insist(
        &scenario(family, false, CsumMode::Skip)
            .run(&lab())
            .expect("the lab works"),
    );
}
