//! Memory and disk over time: this crate beside a queue in memory.

use std::{error::Error, path::Path};

use plotters::prelude::*;

use super::{FAINT, FONT, GRID, GROUND, INK, OURS, OURS_ON_DISK, QUEUE};

/// What is drawn: seconds and MiB.
pub(crate) struct Curves {
    pub memory: Vec<(f64, f64)>,
    pub disk: Vec<(f64, f64)>,
    /// A queue in memory beside it, none if empty.
    pub queue: Vec<(f64, f64)>,
    /// When the reader begins to read.
    pub reader_begins: Option<f64>,
    /// Of what is drawn.
    pub unit: &'static str,
    pub title: String,
    pub machine: String,
}

pub(crate) fn draw(file: &Path, curves: &Curves) -> Result<(), Box<dyn Error>> {
    let root = SVGBackend::new(file, (960, 480)).into_drawing_area();
    root.fill(&GROUND)?;
    let (chart_area, foot) = root.split_vertically(448);
    let drawn = [
        ("queue in memory: RSS", QUEUE, &curves.queue),
        ("spillbuffer: disk", OURS_ON_DISK, &curves.disk),
        ("spillbuffer: RSS", OURS, &curves.memory),
    ];
    let drawn: Vec<_> = drawn.into_iter().filter(|(_, _, points)| !points.is_empty()).collect();
    let points = || drawn.iter().flat_map(|(_, _, points)| points.iter());
    let end = points().map(|(at, _)| *at).fold(0.1, f64::max);
    let top = 1.12 * points().map(|(_, mib)| *mib).fold(1.0, f64::max);

    let mut chart = ChartBuilder::on(&chart_area)
        .caption(&curves.title, (FONT, 20).into_font().color(&INK))
        .margin(14)
        .x_label_area_size(44)
        .y_label_area_size(64)
        .build_cartesian_2d(0.0..end, 0.0..top)?;
    let labels = (FONT, 14).into_font().color(&FAINT);
    chart
        .configure_mesh()
        .bold_line_style(GRID)
        .light_line_style(TRANSPARENT)
        .axis_style(FAINT)
        .label_style(labels.clone())
        .axis_desc_style((FONT, 15).into_font().color(&INK))
        .x_desc("seconds")
        .y_desc(curves.unit)
        .x_label_formatter(&|at| format!("{at:.0}"))
        .y_label_formatter(&|mib| format!("{mib:.0}"))
        .draw()?;
    if let Some(begins) = curves.reader_begins {
        chart.draw_series(LineSeries::new([(begins, 0.0), (begins, top)], FAINT))?;
        chart.draw_series([Text::new("the reader begins", (begins + end / 100.0, top * 0.985), labels.clone())])?;
    }
    // Hundreds of points a line are best drawn thin.
    let width = if drawn.iter().any(|(_, _, points)| points.len() > 1000) { 1 } else { 3 };
    for (name, colour, points) in drawn {
        chart
            .draw_series(LineSeries::new(points.iter().copied(), colour.stroke_width(width)))?
            .label(name)
            .legend(move |(x, y)| PathElement::new([(x, y), (x + 22, y)], colour.stroke_width(3)));
    }
    chart
        .configure_series_labels()
        .position(SeriesLabelPosition::UpperLeft)
        .legend_area_size(30)
        .label_font((FONT, 15).into_font().color(&INK))
        .background_style(GROUND)
        .border_style(GRID)
        .draw()?;
    foot.draw(&Text::new(curves.machine.clone(), (16, 10), (FONT, 12).into_font().color(&FAINT)))?;
    Ok(root.present()?)
}
