//! The page of `dbb lr-find`: learning-rate range tests of one or several blocks.

use dbb_models::BlockKind;

use super::chart::Chart;
use super::format::Quantity::{Logarithmic, Number};
use super::page::{Html, Page, cards, grid, paragraph, table};
use super::scale::Axis;
use super::series::Series;
use crate::train::{RangeCurve, RangePoint};

/// Range tests of one configuration.
#[derive(Clone, Debug)]
pub struct LrRanges<'a> {
    /// The configuration, as it is to be called.
    pub name: String,
    /// Its own learning rate.
    pub lr: f64,
    /// The curve of each block.
    pub curves: &'a [(BlockKind, RangeCurve)],
}

/// The page of range tests.
pub fn lr_range_page(ranges: &LrRanges<'_>) -> String {
    let mut page = Page::new(format!("Learning rates for {}", ranges.name), false);
    let facts: Vec<_> = ranges
        .curves
        .iter()
        .map(|(block, curve)| {
            let value = curve.suggested.map_or_else(|| "none".into(), |lr| Number.show(lr));
            (block.name(), value, "suggested learning rate".to_string())
        })
        .chain([("optim.lr", Number.show(ranges.lr), "in the configuration".to_string())])
        .collect();
    page.add(cards(&facts));
    let note = "A learning-rate range test (Smith, WACV 2017, section 3.3): training from the start, with \
                a rate that rises by the same factor at every step. The loss falls as soon as the rate \
                is large enough to learn with, and rises where it is too large.";
    page.add(paragraph(note));
    let charts = [loss(ranges), gradient(ranges)];
    page.add(grid(charts.iter().filter(|chart| chart.is_wide()).map(Chart::figure).collect()));
    page.section("Suggestions", suggestions(ranges));
    page.render()
}

/// Learning rates on a logarithmic axis.
const RATE: Axis = Axis { name: "learning rate", quantity: Logarithmic, from_zero: false };

/// Losses so many times that of the untrained network are not drawn: they would hide all others.
const DRAWN: f64 = 1.25;

fn loss(ranges: &LrRanges<'_>) -> Chart {
    let first = |(_, curve): &(BlockKind, RangeCurve)| curve.points.first().map(|p| p.smoothed);
    let highest = DRAWN * ranges.curves.iter().filter_map(first).fold(0.0, f64::max);
    let series = |(block, curve): &(BlockKind, RangeCurve)| {
        let points = curve.points.iter().take_while(|point| point.smoothed <= highest);
        let line = points.clone().map(|point| [point.lr, point.smoothed]);
        let drawn = |loss: f64| if loss <= highest { loss } else { f64::NAN };
        let suggested = curve.suggested.and_then(|lr| Some([lr, at(curve, lr)?]));
        let remark = match curve.suggested {
            Some(lr) => format!("suggested: {}", Number.show(lr)),
            None => "no suggestion".into(),
        };
        Series {
            thin: vec![points.clone().map(|point| [point.lr, drawn(point.loss)]).collect()],
            dots: suggested.into_iter().collect(),
            remark: Some(remark),
            ..Series::line(block.name(), line)
        }
    };
    Chart {
        title: "Loss over learning rate",
        note: "Smoothed, with the loss of every step as a thin line; the mark is the suggestion. What is \
               far above the loss of the untrained network is not drawn."
            .into(),
        x: RATE,
        y: Axis::LOSS,
        series: ranges.curves.iter().map(series).collect(),
    }
}

/// The smoothed loss at the step whose rate is nearest to one.
fn at(curve: &RangeCurve, lr: f64) -> Option<f64> {
    let distance = |point: &&RangePoint| (point.lr / lr).ln().abs();
    let nearest = curve.points.iter().min_by(|a, b| distance(a).total_cmp(&distance(b)));
    nearest.map(|point| point.smoothed)
}

fn gradient(ranges: &LrRanges<'_>) -> Chart {
    let series = |(block, curve): &(BlockKind, RangeCurve)| {
        let line = curve.points.iter().map(|point| [point.lr, point.grad_norm]);
        Series { remark: Some(String::new()), ..Series::line(block.name(), line) }
    };
    Chart {
        title: "Norm of the gradient",
        note: "Of every step, before clipping.".into(),
        x: RATE,
        y: Axis { name: "norm", quantity: Logarithmic, from_zero: false },
        series: ranges.curves.iter().map(series).collect(),
    }
}

fn suggestions(ranges: &LrRanges<'_>) -> Html {
    let show = |lr: Option<f64>| lr.map_or_else(|| "none".into(), |lr| Number.show(lr));
    let rows = ranges.curves.iter().map(|(block, curve)| {
        let diverged = match (curve.diverged, curve.points.last()) {
            (true, Some(last)) => format!("at {}", Number.show(last.lr)),
            _ => "no".into(),
        };
        [block.name().to_string(), show(curve.suggested), show(Some(curve.minimum)), diverged]
            .map(Html::from)
            .into()
    });
    let head = ["block", "suggested", "lowest loss at", "diverged"];
    let table = table("Suggested learning rates", &head, rows);
    let why = |(block, curve): &(BlockKind, RangeCurve)| {
        let suggestion = show(curve.suggested);
        paragraph(format!("{block}: {suggestion}, {}.", curve.why))
    };
    Html::from_iter(ranges.curves.iter().map(why).chain([table]))
}

#[cfg(test)]
mod tests {
    use super::super::testing::assert_well_formed;
    use super::*;

    fn curve(suggested: Option<f64>, points: usize) -> RangeCurve {
        let point = |i: usize| RangePoint {
            lr: 10f64.powi(i as i32 - 3),
            loss: 2.0,
            smoothed: 2.5 - i as f64,
            grad_norm: 1.0 + i as f64,
        };
        RangeCurve {
            points: (0..points).map(point).collect(),
            diverged: suggested.is_some(),
            minimum: 0.1,
            suggested,
            why: "because <so>".into(),
        }
    }

    #[test]
    fn every_block_has_its_curve_and_suggestion() {
        let curves = [(BlockKind::Base, curve(Some(0.01), 3)), (BlockKind::Dbb, curve(None, 3))];
        let ranges = LrRanges { name: "a & b".into(), lr: 0.2, curves: &curves };
        let page = lr_range_page(&ranges);
        assert_well_formed(&page);
        for part in [
            "Learning rates for a &amp; b",
            "<dt>base</dt><dd>0.01",
            "<dt>dbb</dt><dd>none",
            "<dt>optim.lr</dt><dd>0.2",
            "because &lt;so&gt;",
            "suggested: 0.01",
            "at 0.1000",
            // The mark lies on the curve.
            "<title>base: 1.500, learning rate 0.01</title>",
        ] {
            assert!(page.contains(part), "no {part:?} in {page}");
        }
    }

    #[test]
    fn a_single_step_is_no_curve() {
        let curves = [(BlockKind::Base, curve(None, 1))];
        let page = lr_range_page(&LrRanges { name: "a".into(), lr: 0.2, curves: &curves });
        assert_well_formed(&page);
        assert!(!page.contains("<svg"));
    }
}
