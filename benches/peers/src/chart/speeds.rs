//! Speeds as bars: a panel for each kind of work, the spread as a thin line through the end of each bar.

// Pixels, and a handful of bars.
#![allow(clippy::cast_possible_wrap, clippy::cast_sign_loss, reason = "pixels and rows: small numbers")]

use std::{error::Error, path::Path};

use plotters::{
    prelude::*,
    style::text_anchor::{HPos, Pos, VPos},
};

use super::{FAINT, FONT, GRID, GROUND, INK, OTHERS, OURS, step};

/// The bars of one kind of work.
pub(crate) struct Panel {
    pub title: &'static str,
    pub bars: Vec<Bar>,
}

/// GB/s of a contender.
pub(crate) struct Bar {
    pub name: &'static str,
    pub ours: bool,
    pub median: f64,
    pub least: f64,
    pub most: f64,
}

// In pixels.
const WIDTH: i32 = 960;
const NAMES: i32 = 320;
const VALUES: i32 = 80;
const TITLE: i32 = 44;
const BAR: i32 = 20;
const ROW: i32 = 30;
const AXIS: i32 = 46;
const FOOT: i32 = 30;

pub(crate) fn draw(file: &Path, panels: &[Panel], foot: &str) -> Result<(), Box<dyn Error>> {
    let height = panels.iter().map(height_of).sum::<i32>() + FOOT;
    let root = SVGBackend::new(file, (WIDTH as u32, height as u32)).into_drawing_area();
    root.fill(&GROUND)?;
    let mut top = 0;
    for panel in panels {
        draw_panel(&root, panel, top)?;
        top += height_of(panel);
    }
    write(&root, foot, (16, height - FOOT / 2), 12, FAINT, HPos::Left)?;
    Ok(root.present()?)
}

type Area<'a> = DrawingArea<SVGBackend<'a>, plotters::coord::Shift>;

fn height_of(panel: &Panel) -> i32 {
    TITLE + ROW * panel.bars.len() as i32 + AXIS
}

fn draw_panel(root: &Area<'_>, panel: &Panel, top: i32) -> Result<(), Box<dyn Error>> {
    let most = panel.bars.iter().map(|bar| bar.most).fold(0.0, f64::max);
    let right = WIDTH - VALUES;
    let x = |value: f64| NAMES + (value / most * f64::from(right - NAMES)).round() as i32;
    let (first, last) = (top + TITLE, top + TITLE + ROW * panel.bars.len() as i32);
    write(root, panel.title, (16, top + TITLE / 2 + 4), 17, INK, HPos::Left)?;

    let step = step(most);
    for value in (0..).map(|mark| f64::from(mark) * step).take_while(|value| *value <= most) {
        root.draw(&PathElement::new([(x(value), first), (x(value), last)], GRID))?;
        let decimals = usize::from(step < 1.0);
        write(root, &format!("{value:.decimals$}"), (x(value), last + 12), 12, FAINT, HPos::Center)?;
    }
    write(root, "GB/s, median of the rounds, least to most", (right, last + 29), 12, FAINT, HPos::Right)?;

    for (bar, row) in panel.bars.iter().zip(0..) {
        let middle = first + ROW * row + ROW / 2;
        let colour = if bar.ours { OURS } else { OTHERS };
        write(root, bar.name, (NAMES - 10, middle), 14, INK, HPos::Right)?;
        let corners = [(x(0.0), middle - BAR / 2), (x(bar.median), middle + BAR / 2)];
        root.draw(&Rectangle::new(corners, colour.filled()))?;
        root.draw(&PathElement::new([(x(bar.least), middle), (x(bar.most), middle)], INK))?;
        for end in [bar.least, bar.most] {
            root.draw(&PathElement::new([(x(end), middle - 4), (x(end), middle + 4)], INK))?;
        }
        let value = format!("{:.*}", if bar.median < 10.0 { 2 } else { 1 }, bar.median);
        write(root, &value, (x(bar.most.max(bar.median)) + 8, middle), 14, INK, HPos::Left)?;
    }
    Ok(())
}

fn write(
    root: &Area<'_>,
    text: &str,
    at: (i32, i32),
    size: u32,
    colour: RGBColor,
    anchor: HPos,
) -> Result<(), Box<dyn Error>> {
    let style = (FONT, size).into_font().color(&colour).pos(Pos::new(anchor, VPos::Center));
    Ok(root.draw(&Text::new(text.to_owned(), at, style))?)
}
