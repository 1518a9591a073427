//! A plot: for each row one bar a side, as long as the side is good against the first one.

use std::fmt::Write as _;

use super::{Line, markdown::number};
use crate::rows::Metric;

const WIDTH: f64 = 900.0;
const LABELS: f64 = 330.0;
const BARS: f64 = 430.0;
const ROW: f64 = 16.0;
const GAP: f64 = 10.0;
const TOP: f64 = 44.0;
/// Readable on white and on black.
const COLOURS: [&str; 4] = ["#8a8f98", "#d9622b", "#2f7fb8", "#3f9a5a"];
/// Longer bars are cut, or the short ones couldn't be seen.
const RATIO_MAX: f64 = 10.0;

/// The bars of one figure.
pub(super) fn bars(title: &str, metric: Metric, lines: &[Line<'_>], sides: &[&'static str]) -> String {
    let lines: Vec<&Line<'_>> = lines.iter().filter(|line| line.metric == metric).collect();
    let group = ROW * sides.len() as f64 + GAP;
    let height = TOP + group * lines.len() as f64 + GAP;
    let longest = lines
        .iter()
        .flat_map(|line| (0..sides.len()).filter_map(|side| line.ratio(side)))
        .fold(1.0, f64::max)
        .min(RATIO_MAX);
    let mut svg = format!(
        "<svg xmlns=\"http://www.w3.org/2000/svg\" viewBox=\"0 0 {WIDTH} {height}\" \
         font-family=\"sans-serif\" font-size=\"12\" fill=\"#777\">\n\
         <text x=\"8\" y=\"18\" font-size=\"15\" font-weight=\"bold\">{title}</text>\n"
    );
    for (at, side) in sides.iter().enumerate() {
        let (x, colour) = (LABELS + 110.0 * at as f64, COLOURS[at % COLOURS.len()]);
        let _ = writeln!(
            svg,
            "<rect x=\"{x}\" y=\"26\" width=\"10\" height=\"10\" fill=\"{colour}\"/>\
             <text x=\"{}\" y=\"35\">{side}</text>",
            x + 14.0
        );
    }
    for (row, line) in lines.iter().enumerate() {
        let top = TOP + group * row as f64;
        let middle = top + ROW * sides.len() as f64 / 2.0 + 4.0;
        let _ = writeln!(svg, "<text x=\"{}\" y=\"{middle}\" text-anchor=\"end\">{}</text>", LABELS - 8.0, line.row);
        for (at, value) in line.sides.iter().enumerate() {
            let (y, colour) = (top + ROW * at as f64, COLOURS[at % COLOURS.len()]);
            let Some((value, _)) = value else { continue };
            let ratio = line.ratio(at).unwrap_or(0.0);
            let width = BARS * ratio.min(RATIO_MAX) / longest;
            let note = if at == 0 { String::new() } else { format!(" ({ratio:.1}×)") };
            let _ = writeln!(
                svg,
                "<rect x=\"{LABELS}\" y=\"{y}\" width=\"{width:.1}\" height=\"{}\" fill=\"{colour}\"/>\
                 <text x=\"{:.1}\" y=\"{:.1}\">{}{note}</text>",
                ROW - 3.0,
                LABELS + width + 5.0,
                y + 10.5,
                number(*value)
            );
        }
    }
    svg.push_str("</svg>\n");
    svg
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_bar_is_as_long_as_its_ratio() {
        let lines = [Line { row: "put", metric: Metric::Rate, sides: vec![Some((10.0, 0.0)), Some((20.0, 0.0))] }];
        let svg = bars("T", Metric::Rate, &lines, &["etcd", "rusd"]);
        assert!(svg.contains("width=\"215.0\"") && svg.contains("width=\"430.0\""), "{svg}");
        assert!(svg.contains("20.0 (2.0×)") && svg.ends_with("</svg>\n"));
    }
}
