//! Reliability diagrams.

use super::chart::Chart;
use super::format::Quantity::Percent;
use super::page::{Html, grid, paragraph};
use super::scale::Axis;
use super::series::{Column, Series};
use crate::classification::{BINS, Bin, Calibration};

/// Probabilities of predictions, percent.
const PROBABILITY: Axis = Axis { name: "probability", quantity: Percent, from_zero: true };

/// The expected calibration error with its diagram (Guo et al., ICML 2017, figure 1).
pub(super) fn reliability(calibration: &Calibration) -> Html {
    let Some(ece) = calibration.ece() else { return paragraph("No image was evaluated.") };
    let sums = calibration.bins().iter().fold([0.0; 2], |[right, sure], bin| {
        let share = bin.images as f64 / calibration.images() as f64;
        let part = |value: Option<f64>| share * value.unwrap_or(0.0);
        [right + part(bin.accuracy()), sure + part(bin.confidence())]
    });
    let [accuracy, confidence] = sums.map(|value| Percent.show(value));
    let note = format!(
        "The expected calibration error is {}: the mean difference between the probability of a prediction \
         and the share of such predictions that are right, over {BINS} bins of equal width (Guo et al., ICML \
         2017, arXiv:1706.04599). The mean probability is {confidence}, and {accuracy} are right. Columns \
         below the diagonal are overconfident.",
        Percent.show(ece)
    );
    let total = calibration.images() as f64;
    let accuracy = Series {
        name: "right".into(),
        columns: columns(calibration, Bin::accuracy),
        ..Series::default()
    };
    let diagonal = Series {
        remark: Some(String::new()),
        ..Series::line("calibrated", [[0.0, 0.0], [100.0, 100.0]])
    };
    let images = Series {
        name: "images".into(),
        columns: columns(calibration, |bin| {
            (bin.images > 0).then_some(100.0 * bin.images as f64 / total)
        }),
        ..Series::default()
    };
    let charts = [
        Chart {
            title: "Reliability",
            note: "Share of the predictions in a bin that are right.".into(),
            x: PROBABILITY,
            y: Axis { name: "right", quantity: Percent, from_zero: true },
            series: vec![accuracy, diagonal],
        },
        Chart {
            title: "Probabilities of the predictions",
            note: "Share of the images in each bin.".into(),
            x: PROBABILITY,
            y: Axis { name: "images", quantity: Percent, from_zero: true },
            series: vec![images],
        },
    ];
    Html::from_iter([paragraph(note), grid(charts.iter().map(Chart::figure).collect())])
}

fn columns(calibration: &Calibration, height: impl Fn(&Bin) -> Option<f64>) -> Vec<Column> {
    let edge = |i: usize| 100.0 * i as f64 / BINS as f64;
    let bins = calibration.bins().iter().enumerate();
    bins.filter_map(|(i, bin)| Some(Column { x: [edge(i), edge(i + 1)], y: height(bin)? }))
        .collect()
}

#[cfg(test)]
mod tests {
    use super::super::testing::assert_well_formed;
    use super::*;
    use crate::classification::Classification;

    #[test]
    fn a_diagram_has_a_column_for_every_bin_with_images() {
        let mut found = Classification::default();
        // 0.75 for two images of which one is right: 25 points apart.
        let logits = [0.0, 3f32.ln()];
        found.add(0, 0, &logits);
        found.add(1, 1, &logits);
        let html = reliability(&found.calibration).to_string();
        assert_well_formed(&html);
        for part in [
            "The expected calibration error is 25.00 %",
            "The mean probability is 75.00 %, and 50.00 % are right",
            "right: a column of 50.00 %",
            "<td>73.33 % to 80.00 %</td><td>50.00 %</td>",
        ] {
            assert!(html.contains(part), "no {part} in {html}");
        }
        assert_eq!(html.matches("class=\"column\"").count(), 2);
        let nothing = reliability(&Calibration::default()).to_string();
        assert!(nothing.contains("No image was evaluated"));
    }
}
