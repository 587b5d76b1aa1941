// SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause
//! Cost over packet size, both logarithmic, a line for each way.

use std::path::Path;

use anyhow::{Context, Result, anyhow};
use bpf_sctp::bench::{LENGTHS, Way};
use plotters::prelude::*;

const COLORS: [RGBColor; Way::ALL.len()] = [
    RGBColor(120, 120, 120),
    RGBColor(0, 110, 180),
    RGBColor(0, 150, 90),
    RGBColor(150, 90, 180),
    RGBColor(220, 160, 0),
    RGBColor(200, 70, 40),
];

/// Draws what `cost` says, as SVG.
pub fn draw(path: &Path, cost: impl Fn(Way, usize) -> Option<u64>) -> Result<()> {
    draw_svg(path, cost)
        .map_err(|e| anyhow!("{e}"))
        .with_context(|| format!("draw {}", path.display()))
}

fn draw_svg(
    path: &Path,
    cost: impl Fn(Way, usize) -> Option<u64>,
) -> std::result::Result<(), Box<dyn std::error::Error>> {
    let area = SVGBackend::new(path, (800, 500)).into_drawing_area();
    area.fill(&WHITE)?;
    let (first, last) = (LENGTHS[0] as f64, LENGTHS[LENGTHS.len() - 1] as f64);
    let mut chart = ChartBuilder::on(&area)
        .margin(15)
        .x_label_area_size(45)
        .y_label_area_size(75)
        .build_cartesian_2d(
            (first * 0.9..last * 1.1).log_scale(),
            (100f64..3e6).log_scale(),
        )?;
    chart
        .configure_mesh()
        .x_desc("bytes of the SCTP packet")
        .y_desc("instructions for a packet, in tc")
        .draw()?;
    for (way, color) in Way::ALL.into_iter().zip(COLORS) {
        let points: Vec<(f64, f64)> = LENGTHS
            .into_iter()
            .filter_map(|len| Some((len as f64, cost(way, len)? as f64)))
            .collect();
        chart
            .draw_series(LineSeries::new(points.clone(), color.stroke_width(2)))?
            .label(way.title())
            .legend(move |(x, y)| PathElement::new([(x, y), (x + 20, y)], color.stroke_width(2)));
        chart.draw_series(
            points
                .iter()
                .map(|point| Circle::new(*point, 3, color.filled())),
        )?;
    }
    chart
        .configure_series_labels()
        .position(SeriesLabelPosition::UpperLeft)
        .background_style(WHITE)
        .border_style(BLACK)
        .draw()?;
    area.present()?;
    Ok(())
}
