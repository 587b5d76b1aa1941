// SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause
//! Random cases, one after the other, each of its own seed.
//!
//! `BPF_SCTP_FUZZ=N` runs N packets in each place; `BPF_SCTP_FUZZ_SEED=N` begins with the case of
//! this seed, and else there is a seed for each run if N is given, or always the same.

use std::cell::{Cell, RefCell};
use std::collections::BTreeMap;
use std::fmt::Debug;
use std::time::{Duration, Instant};

use proptest::strategy::Strategy;
use proptest::test_runner::{Config, RngAlgorithm, TestCaseError, TestError, TestRng, TestRunner};

use crate::support::fail;

const PACKETS: u64 = 2000;
/// Of all associations: longer than a case takes, also under emulation; in a long run, where there
/// is none, so short that the kernel has the memory for their timers.
const TIMEOUT: Duration = Duration::from_secs(3);
const LONG_RUN_TIMEOUT: Duration = Duration::from_millis(30);

fn number(name: &str) -> Option<u64> {
    let text = std::env::var(name).ok()?;
    Some(
        text.parse()
            .unwrap_or_else(|_| panic!("{name}={text}: no number")),
    )
}

/// Some packets, and what became of them.
pub struct Seeds {
    wanted: Option<u64>,
    /// How long associations last.
    pub timeout: Duration,
    runs: Cell<u32>,
    packets: Cell<u64>,
    /// What happened how often.
    tally: RefCell<BTreeMap<String, u64>>,
    /// Of the last case: what was sent.
    frames: RefCell<Vec<Vec<u8>>>,
}

impl Seeds {
    pub fn new() -> Self {
        let wanted = number("BPF_SCTP_FUZZ");
        Self {
            wanted,
            timeout: wanted.map_or(TIMEOUT, |_| LONG_RUN_TIMEOUT),
            runs: Cell::new(0),
            packets: Cell::new(0),
            tally: RefCell::default(),
            frames: RefCell::default(),
        }
    }

    /// A case begins: which one of all.
    pub fn begin(&self) -> u32 {
        self.frames.borrow_mut().clear();
        self.runs.replace(self.runs.get() + 1)
    }

    /// A packet is sent.
    pub fn sent(&self, frame: &[u8]) {
        self.packets.set(self.packets.get() + 1);
        self.frames.borrow_mut().push(frame.to_vec());
    }

    pub fn note(&self, what: &str) {
        *self.tally.borrow_mut().entry(what.into()).or_default() += 1;
    }

    /// Runs the case of this seed. If it fails, smaller ones are tried.
    fn run_seed<S: Strategy>(
        &self,
        seed: u64,
        cases: &S,
        run: &impl Fn(&S::Value) -> Result<(), String>,
    ) where
        S::Value: Debug,
    {
        let mut bytes = [0; 32];
        bytes[..8].copy_from_slice(&seed.to_le_bytes());
        let rng = TestRng::from_seed(RngAlgorithm::ChaCha, &bytes);
        let config = Config {
            failure_persistence: None,
            max_shrink_iters: 4000,
            ..Config::default()
        };
        let mut runner = TestRunner::new_with_rng(config, rng);
        let tree = cases.new_tree(&mut runner).expect("a case");
        let failed = RefCell::new(Vec::new());
        let outcome = runner.run_one(tree, |case| {
            run(&case).map_err(|why| {
                failed.replace(self.frames.borrow().clone());
                TestCaseError::fail(why)
            })
        });
        let why = match outcome {
            Ok(_) => return,
            Err(TestError::Fail(why, case)) => format!("{why}\n{case:#?}"),
            Err(error) => error.to_string(),
        };
        let frames = failed.into_inner();
        let frames: Vec<_> = frames.iter().map(Vec::as_slice).collect();
        fail(format!("BPF_SCTP_FUZZ_SEED={seed}: {why}"), &frames);
    }

    /// Runs as many cases as are wanted. If none are, the usual ones have to show what is `usual`:
    /// else the packets are not what they should be.
    pub fn run<S: Strategy>(
        &self,
        place: &str,
        cases: &S,
        usual: &[&str],
        run: impl Fn(&S::Value) -> Result<(), String>,
    ) where
        S::Value: Debug,
    {
        let first = number("BPF_SCTP_FUZZ_SEED")
            .unwrap_or_else(|| self.wanted.map_or(0, |_| rand::random::<u32>().into()));
        let (begin, mut seed) = (Instant::now(), first);
        while self.packets.get() < self.wanted.unwrap_or(PACKETS) {
            self.run_seed(seed, cases, &run);
            seed += 1;
        }
        let (tally, nr, took) = (self.tally.borrow(), self.packets.get(), begin.elapsed());
        eprintln!("{place}: {nr} packets in {took:.1?}, seeds {first} to {seed}: {tally:?}");
        for what in usual {
            assert!(
                self.wanted.is_some() || tally.contains_key(*what),
                "not one: {what}"
            );
        }
    }
}
