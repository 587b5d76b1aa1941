// SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause
//! `sctp-lb` as it is typed on a node, and what it prints.

use std::path::{Path, PathBuf};

use anyhow::{Context, Result};
use bpf_sctp::netns::Namespace;

/// Where this project's files are.
const FOLDER: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/..");

/// A word as it is typed in this project's folder, for a program that runs elsewhere.
fn path_of(word: &str) -> String {
    if word.starts_with("docs/") {
        Path::new(FOLDER).join(word).to_string_lossy().into_owned()
    } else {
        word.to_string()
    }
}

pub struct Shell<'a> {
    node: &'a Namespace,
    program: PathBuf,
}

impl<'a> Shell<'a> {
    pub fn new(node: &'a Namespace) -> Result<Self> {
        let program = std::env::current_exe()
            .context("where this program is")?
            .with_file_name("sctp-lb");
        Ok(Self { node, program })
    }

    /// Runs `sctp-lb`.
    pub fn run_quietly(&self, args: &str) -> Result<String> {
        let words: Vec<String> = args.split_whitespace().map(path_of).collect();
        let words: Vec<&str> = words.iter().map(String::as_str).collect();
        Ok(self.node.command(&self.program.to_string_lossy(), &words)?)
    }

    /// Runs `sctp-lb` and shows it as it would be typed in this project's folder.
    pub fn run(&self, args: &str) -> Result<String> {
        let output = self.run_quietly(args)?;
        println!("# sctp-lb {args}");
        print!("{output}");
        Ok(output)
    }
}
