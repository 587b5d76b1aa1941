// SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause
//! Compiles each `bpf/*.bpf.c` and writes its skeleton to `OUT_DIR/*.skel.rs`.

use std::env;
use std::ffi::OsString;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use anyhow::{Context, Result, bail};
use libbpf_cargo::SkeletonBuilder;

/// Newer than needed is fine; older than 16 lacks CO-RE relocations that the headers use.
const CLANG_VERSIONS: std::ops::RangeInclusive<u32> = 16..=30;

fn runs(clang: &str) -> bool {
    Command::new(clang)
        .arg("--version")
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .status()
        .is_ok_and(|status| status.success())
}

/// `$CLANG`, else the newest versioned clang on the path, else `clang`.
fn find_clang() -> Result<String> {
    println!("cargo:rerun-if-env-changed=CLANG");
    if let Ok(clang) = env::var("CLANG") {
        return Ok(clang);
    }
    CLANG_VERSIONS
        .rev()
        .map(|version| format!("clang-{version}"))
        .chain(["clang".to_string()])
        .find(|clang| runs(clang))
        .context("no clang found: run scripts/setup build, or set CLANG")
}

/// Debian keeps `asm/` below a directory named after the architecture, which `-target bpf` misses.
fn multiarch_include() -> Option<OsString> {
    let dir = format!(
        "/usr/include/{}-linux-gnu",
        env::var("CARGO_CFG_TARGET_ARCH").ok()?
    );
    Path::new(&dir).is_dir().then(|| format!("-I{dir}").into())
}

fn sources(dir: &Path) -> Result<Vec<PathBuf>> {
    let mut sources = Vec::new();
    for entry in fs::read_dir(dir).with_context(|| format!("no folder {}", dir.display()))? {
        let path = entry?.path();
        // libbpf-cargo does not track headers.
        println!("cargo:rerun-if-changed={}", path.display());
        if path.to_string_lossy().ends_with(".bpf.c") {
            sources.push(path);
        }
    }
    if sources.is_empty() {
        bail!("no *.bpf.c in {}", dir.display());
    }
    Ok(sources)
}

/// What the patch adds from the line that starts with `first` to the one that starts with `last`.
fn added<'a>(patch: &'a str, first: &str, last: &str) -> Vec<&'a str> {
    let mut done = false;
    patch
        .lines()
        .filter_map(|line| line.strip_prefix('+'))
        .skip_while(|line| !line.starts_with(first))
        .take_while(|line| !std::mem::replace(&mut done, line.starts_with(last)))
        .collect()
}

/// The shift of the kernel series, and what makes its table.
fn write_kernel_shift(patches: &Path, out: &Path) -> Result<()> {
    println!("cargo:rerun-if-changed={}", patches.display());
    let mut patch = String::new();
    for entry in fs::read_dir(patches).with_context(|| format!("no {}", patches.display()))? {
        let path = entry?.path();
        if path.to_string_lossy().ends_with("Add-crc32c_shift.patch") {
            patch = fs::read_to_string(path)?;
        }
    }
    let mut text = added(&patch, "static void crc32cinit_shift", "}");
    text.extend(added(&patch, "#ifdef CONFIG_CRC32C_SHIFT", "#endif"));
    if text.is_empty() {
        bail!("no patch in {} adds crc32c_shift()", patches.display());
    }
    Ok(fs::write(
        out.join("kernel_shift.inc"),
        text.join("\n") + "\n",
    )?)
}

/// The shifts for this machine, which only `cargo bench` links, and only where they know its CRC
/// instructions.
fn build_shift(bpf: &Path, out: &Path) -> Result<()> {
    let sources = ["benches/shift.c", "benches/kernel_shift.c"];
    write_kernel_shift(&bpf.join("../kernel-patches/v7.3"), out)?;
    for source in sources {
        println!("cargo:rerun-if-changed={source}");
    }
    let crc = match env::var("CARGO_CFG_TARGET_ARCH")?.as_str() {
        "aarch64" => "-march=armv8-a+crc",
        "x86_64" => "-msse4.2",
        _ => return Ok(()),
    };
    cc::Build::new()
        .files(sources)
        .include(bpf)
        .include(out)
        .flag(crc)
        .opt_level(2)
        .cargo_metadata(false)
        .try_compile("bench_shift")
        .with_context(|| format!("no C compiler built {sources:?}: run scripts/setup build"))?;
    let library = out.join("libbench_shift.a");
    println!("cargo:rustc-link-arg-benches={}", library.display());
    Ok(())
}

fn main() -> Result<()> {
    let out = PathBuf::from(env::var("OUT_DIR")?);
    let bpf = Path::new(&env::var("CARGO_MANIFEST_DIR")?).join("../bpf");
    println!("cargo:rerun-if-changed={}", bpf.display());
    build_shift(&bpf, &out)?;
    let clang = find_clang()?;
    let args: Vec<OsString> = ["-Wall", "-Werror", "-mcpu=v3"]
        .into_iter()
        .map(OsString::from)
        .chain(multiarch_include())
        .collect();

    for source in sources(&bpf)? {
        let name = source
            .file_name()
            .unwrap_or_default()
            .to_string_lossy()
            .replace(".bpf.c", "");
        SkeletonBuilder::new()
            .source(&source)
            .obj(out.join(format!("{name}.bpf.o")))
            .clang(&clang)
            .clang_args(&args)
            .build_and_generate(out.join(format!("{name}.skel.rs")))
            .with_context(|| format!("{clang} could not build {}", source.display()))?;
    }
    Ok(())
}
