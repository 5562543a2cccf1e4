//! Charts as SVG, on a ground of their own, so that they can be read on any page.

pub(crate) mod over_time;
pub(crate) mod speeds;

use plotters::style::RGBColor;

const GROUND: RGBColor = RGBColor(255, 255, 255);
const INK: RGBColor = RGBColor(36, 41, 47);
const FAINT: RGBColor = RGBColor(110, 119, 129);
const GRID: RGBColor = RGBColor(226, 230, 234);
const OURS: RGBColor = RGBColor(9, 105, 218);
const OURS_ON_DISK: RGBColor = RGBColor(26, 140, 80);
const OTHERS: RGBColor = RGBColor(164, 173, 183);
const QUEUE: RGBColor = RGBColor(207, 80, 30);

const FONT: &str = "sans-serif";

/// The distance of marks on an axis that ends at `most`: 1, 2 or 5 times a power of ten, at most eight of them.
fn step(most: f64) -> f64 {
    let least = most / 8.0;
    let power = 10_f64.powf(least.log10().floor());
    [1.0, 2.0, 5.0, 10.0].into_iter().map(|digit| digit * power).find(|step| *step >= least).unwrap_or(most)
}
