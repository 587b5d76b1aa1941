// SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause
//! The states of an association, by the cases of `tests/packets/associations.yaml`.

use serde::Deserialize;

use super::*;

/// A case of `tests/packets/associations.yaml`, which says what a step is.
#[derive(Debug, Deserialize)]
struct Case {
    case: String,
    steps: Vec<String>,
}

fn tag(text: &str) -> u32 {
    match text {
        "0" => 0,
        _ => 0x7a60_0000 + u32::from(text.as_bytes()[0]),
    }
}

fn from_hex(text: &str) -> Vec<u8> {
    let digits: Vec<u32> = text.chars().map_while(|c| c.to_digit(16)).collect();
    assert_eq!(digits.len(), text.len(), "not a chunk: {text}");
    digits.chunks(2).map(|d| (d[0] << 4 | d[1]) as u8).collect()
}

fn parse_chunk(text: &str) -> Vec<u8> {
    let (text, flags) = match text.strip_suffix("/T") {
        Some(text) => (text, chunk::T_BIT),
        None => (text, 0),
    };
    let (kind, init_tag) = text.split_once('=').unwrap_or((text, ""));
    match (chunk::type_of(kind), kind) {
        (Some(kind), "INIT" | "INIT-ACK") => chunk::init(kind, tag(init_tag), &[]),
        (Some(0), _) => chunk::data(b"payload"),
        (Some(kind), _) => chunk::chunk(kind, flags, &[0; 8]),
        (None, _) => from_hex(text),
    }
}

fn run_step(lb: &Datapath<'_>, place: Place, client: SocketAddr, step: &str) -> Result<(), String> {
    let mut words = step.split_whitespace();
    let mut word = || words.next().unwrap_or_default();
    let (who, vtag, chunks, _arrow, outcome_wanted, state) =
        (word(), word(), word(), word(), word(), word());
    let ends = match who {
        "client" => [client, place.vip(), client, place.backend(1)],
        _ => [place.backend(1), client, place.vip(), client],
    };
    let chunks: Vec<u8> = chunks.split(',').flat_map(parse_chunk).collect();
    let packet = |source, dest| spec(source, dest, tag(vtag), chunks.clone());
    let before = packet(ends[0], ends[1]).build().expect("it fits");
    let after = packet(ends[2], ends[3]).build().expect("it fits");

    let got = match outcome(lb, &before.bytes) {
        Ok(got) if got == after.bytes => "pass".to_string(),
        Ok(got) if got == before.bytes => "untouched".to_string(),
        Ok(_) => "wrongly translated".to_string(),
        Err(reason) => reason,
    };
    if got != outcome_wanted {
        return Err(got);
    }
    let mut all = lb.maps().associations().expect("it can be read");
    all.retain(|assoc| assoc.original.source == client);
    assert!(all.len() <= 1, "{all:?}");
    let found = all
        .pop()
        .map_or("none".to_string(), |assoc| assoc.state.to_string());
    if !state.is_empty() && state != found {
        return Err(format!("the state {found}"));
    }
    Ok(())
}

#[rstest]
fn go_through_their_states(
    #[values(Hook::Tc, Hook::Xdp)] hook: Hook,
    #[values(Update::Kfunc, Update::Bpf)] update: Update,
    #[values(false, true)] ipv6: bool,
) {
    require!(Feature::Root, Feature::Btf, feature_of(update));
    let place = Place { hook, update, ipv6 };
    let text = include_str!("../../packets/associations.yaml");
    let cases: Vec<Case> = serde_saphyr::from_str(text).expect("cases");
    // Each has a port of its own: a guest takes seconds to load the program.
    with_lb(place, &desired(service(place, &[place.backend(1)])), |lb| {
        for (port, case) in (place.client().port()..).zip(cases) {
            let client = SocketAddr::new(place.client().ip(), port);
            for step in &case.steps {
                if let Err(got) = run_step(lb, place, client, step) {
                    panic!("{}: {step}: got {got}", case.case);
                }
            }
        }
    });
}
