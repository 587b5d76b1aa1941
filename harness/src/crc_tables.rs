// SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause
//! The text of `bpf/crc32c_tables.h`. A unit test compares it with the file; run it with
//! `BLESS=1` to write the file anew.

/// CRC-32C's polynomial, bit-reflected.
const POLYNOMIAL: u32 = 0x82f6_3b78;

/// What the register `crc` becomes after one zero byte: a multiplication by x^8.
fn zero_byte(crc: u32) -> u32 {
    (0..8).fold(crc, |crc, _| {
        (crc >> 1) ^ if crc & 1 == 1 { POLYNOMIAL } else { 0 }
    })
}

/// x^-1 modulo the polynomial.
const X_INVERSE: u32 = (POLYNOMIAL ^ 1 << 31) << 1 | 1;

/// `x^(8 * step * n - 1)` for `n` below 256.
fn shifts(step: usize) -> Vec<u32> {
    std::iter::successors(Some(X_INVERSE), |crc| Some(zero_byte(*crc)))
        .step_by(step)
        .take(256)
        .collect()
}

fn table(name: &str, about: &str, values: &[u32]) -> String {
    let rows: String = values
        .chunks(4)
        .map(|row| {
            let row: Vec<String> = row.iter().map(|value| format!("0x{value:08x},")).collect();
            format!("\t{}\n", row.join(" "))
        })
        .collect();
    format!("\n/* {about} */\nstatic const __u32 {name}[256] = {{\n{rows}}};\n")
}

/// The whole header file.
pub fn header() -> String {
    let bytes: Vec<u32> = (0..256).map(zero_byte).collect();
    [
        "/* SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause */\n".to_string(),
        "/* Written and checked by harness/src/crc_tables.rs. Do not edit. */\n".to_string(),
        "#ifndef __CRC32C_TABLES_H\n#define __CRC32C_TABLES_H\n\n".to_string(),
        "#include <linux/types.h>\n".to_string(),
        table(
            "crc32c_table",
            "What a zero byte makes of the CRC register n.",
            &bytes,
        ),
        table(
            "crc32c_shift_lo",
            "x^(8 * n - 1) modulo the CRC-32C polynomial.",
            &shifts(1),
        ),
        table(
            "crc32c_shift_hi",
            "x^(8 * 256 * n - 1), likewise.",
            &shifts(256),
        ),
        "\n#endif /* __CRC32C_TABLES_H */\n".to_string(),
    ]
    .concat()
}

#[cfg(test)]
mod tests {
    use super::*;

    const PATH: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/../bpf/crc32c_tables.h");

    #[test]
    fn the_header_in_bpf_is_what_this_module_writes() {
        if std::env::var_os("BLESS").is_some() {
            std::fs::write(PATH, header()).expect("bpf/ is writable");
        }
        let file = std::fs::read_to_string(PATH).expect("bpf/crc32c_tables.h exists");
        assert!(
            file == header(),
            "bpf/crc32c_tables.h is stale: run this test with BLESS=1"
        );
    }

    #[test]
    fn the_byte_table_agrees_with_the_crc32c_crate() {
        for n in 0..=255u8 {
            // The crate inverts before and after; a zero register is !0 to it.
            let crc = !crc32c::crc32c_append(!0, &[n]);
            assert_eq!(zero_byte(n.into()), crc);
        }
    }
}
