//! The parts that are pictures: SVG files of their own, in light and dark.

use super::part::Study;
use crate::compare::Outcome;
use crate::report::format::Quantity;
use crate::report::page::Html;
use crate::report::scale::{Axis, Scale};
use crate::statistics::difference::paired;

/// A picture and what it says in words.
pub(super) struct Picture {
    pub svg: String,
    pub description: String,
}

/// A line of a picture.
enum Line {
    /// The name of a group.
    Title(String),
    Values(Values),
}

/// A value with its interval, and the single values that it is the mean of.
struct Values {
    name: String,
    dots: Vec<f64>,
    mean: f64,
    interval: Option<[f64; 2]>,
    /// The numbers in words, beside the plot.
    text: String,
}

/// The comparisons of some studies with their intervals.
pub(super) fn differences(studies: &[Study]) -> Picture {
    let mut lines = Vec::new();
    for study in studies {
        lines.push(Line::Title(study.name.clone()));
        let outcomes = study.comparison.comparisons.iter().filter_map(|outcome: &Outcome| {
            let (delta, half) = (outcome.delta?, outcome.delta_ci95?);
            Some(Line::Values(Values {
                name: format!("{} − {}", outcome.arm, outcome.baseline),
                dots: Vec::new(),
                mean: delta,
                interval: Some([delta - half, delta + half]),
                text: outcome.interval().replace('-', "−"),
            }))
        });
        lines.extend(outcomes);
    }
    let axis = Axis { name: "difference of top-1", quantity: Quantity::Points, from_zero: true };
    draw("Differences of top-1 with their 95 % intervals", axis, &lines)
}

/// The top-1 of every run of a study, by arm.
pub(super) fn runs(study: &Study) -> Picture {
    let lines = study.comparison.summary.iter().map(|arm| {
        let rows = study.comparison.rows.iter().filter(|row| row.name == arm.name);
        let dots: Vec<f64> = rows.map(|row| row.top1).collect();
        // Of a single sample, the interval of its mean.
        let estimate = paired(&dots);
        Line::Values(Values {
            name: arm.name.clone(),
            mean: arm.top1_mean,
            interval: estimate.map(|e| [e.delta - e.half, e.delta + e.half]),
            text: match estimate {
                Some(estimate) => format!("{:.2} ± {:.2}", arm.top1_mean, estimate.half),
                None => format!("{:.2}", arm.top1_mean),
            },
            dots,
        })
    });
    let lines: Vec<Line> = lines.collect();
    draw(
        &format!("{}: top-1 of every run, mean and its 95 % interval", study.name),
        Axis::TOP1,
        &lines,
    )
}

const WIDTH: f64 = 880.0;
const TOP: f64 = 34.0;
const BOTTOM: f64 = 50.0;
const HEIGHT: f64 = 24.0;
/// Width of a character, a little more than needed.
const CHARACTER: f64 = 7.6;

const STYLE: &str = "
    .paper { fill: #ffffff; stroke: #d0d7de; }
    text { fill: #1f2328; }
    .soft { fill: #59636e; }
    .grid { stroke: #d0d7de; }
    .zero { stroke: #59636e; stroke-width: 1.5; }
    .line { stroke: #0969da; stroke-width: 3; }
    .mean { fill: #0969da; }
    .dot { fill: #9a6700; fill-opacity: 0.6; }
    @media (prefers-color-scheme: dark) {
      .paper { fill: #0d1117; stroke: #3d444d; }
      text { fill: #f0f6fc; }
      .soft { fill: #9198a1; }
      .grid { stroke: #3d444d; }
      .zero { stroke: #9198a1; }
      .line { stroke: #4493f8; }
      .mean { fill: #4493f8; }
      .dot { fill: #d29922; fill-opacity: 0.75; }
    }
";

fn draw(title: &str, axis: Axis, lines: &[Line]) -> Picture {
    let values: Vec<&Values> = lines
        .iter()
        .filter_map(|line| match line {
            Line::Values(values) => Some(values),
            Line::Title(_) => None,
        })
        .collect();
    let widest = |text: fn(&Values) -> &str| {
        let lengths = values.iter().map(|values| text(values).chars().count());
        lengths.max().unwrap_or(0) as f64 * CHARACTER
    };
    let [left, right] = [56.0 + widest(|v| &v.name), WIDTH - 30.0 - widest(|v| &v.text)];
    let height = TOP + lines.len() as f64 * HEIGHT + BOTTOM;
    let floor = height - BOTTOM + 4.0;
    let all = values.iter().flat_map(|v| {
        v.dots.iter().copied().chain(v.interval.into_iter().flatten()).chain([v.mean])
    });
    let all: Vec<f64> = if values.is_empty() { vec![0.0] } else { all.collect() };
    let mut scale = Scale::new(axis, all.iter().copied());
    scale.pixels = [left, right];
    let mut drawing = axes(&scale, axis, floor);
    for (at, line) in lines.iter().enumerate() {
        let y = TOP + (at as f64 + 0.5) * HEIGHT;
        drawing += &match line {
            Line::Title(name) => {
                let name = Html::from(name.as_str());
                let y = y + 5.0;
                format!("  <text x=\"16\" y=\"{y:.1}\" font-weight=\"600\">{name}</text>\n")
            }
            Line::Values(values) => values.draw(&scale, right, y),
        };
    }
    let label = Html::from(scale.name());
    let description = format!("{title}.{}", words(lines));
    let [title, described] = [title, &description].map(Html::from);
    let [middle, below] = [(left + right) / 2.0, height - 10.0];
    let svg = format!(
        "<svg xmlns=\"http://www.w3.org/2000/svg\" viewBox=\"0 0 {WIDTH} {height}\" role=\"img\" \
         aria-labelledby=\"title desc\" font-family=\"system-ui, -apple-system, 'Segoe UI', Helvetica, \
         Arial, sans-serif\" font-size=\"14\">\n  <title id=\"title\">{title}</title>\n  \
         <desc id=\"desc\">{described}</desc>\n  <style>{STYLE}  </style>\n  \
         <rect class=\"paper\" x=\"0.5\" y=\"0.5\" width=\"{}\" height=\"{}\" rx=\"6\"/>\n  \
         <text class=\"soft\" x=\"16\" y=\"22\">{title}</text>\n{drawing}  \
         <text class=\"soft\" x=\"{middle:.1}\" y=\"{below:.1}\" text-anchor=\"middle\">{label}</text>\n</svg>\n",
        WIDTH - 1.0,
        height - 1.0
    );
    // It stands between the brackets of a Markdown image.
    Picture { svg, description: description.replace(['[', ']', '\n'], " ") }
}

/// The ticks of the horizontal axis, and its zero.
fn axes(scale: &Scale, axis: Axis, floor: f64) -> String {
    let tick = |(x, text): (f64, String)| {
        format!(
            "  <path class=\"grid\" d=\"M{x:.1} {TOP}V{floor:.1}\"/>\n  \
             <text class=\"soft\" x=\"{x:.1}\" y=\"{:.1}\" text-anchor=\"middle\">{text}</text>\n",
            floor + 17.0
        )
    };
    let mut drawing: String = scale.ticks().into_iter().map(tick).collect();
    if axis.from_zero {
        let zero = scale.place(0.0);
        drawing += &format!("  <path class=\"zero\" d=\"M{zero:.1} {TOP}V{floor:.1}\"/>\n");
    }
    drawing
}

impl Values {
    fn draw(&self, scale: &Scale, right: f64, y: f64) -> String {
        let [name, text] = [&self.name, &self.text].map(|text| Html::from(text.as_str()));
        let mut drawing = format!(
            "  <text x=\"28\" y=\"{:.1}\">{name}</text>\n  \
             <text x=\"{:.1}\" y=\"{:.1}\">{text}</text>\n",
            y + 5.0,
            right + 14.0,
            y + 5.0
        );
        if let Some([low, high]) = self.interval.map(|interval| interval.map(|v| scale.place(v))) {
            drawing += &format!("  <path class=\"line\" d=\"M{low:.1} {y:.1}H{high:.1}\"/>\n");
        }
        for dot in &self.dots {
            let x = scale.place(*dot);
            drawing += &format!("  <circle class=\"dot\" cx=\"{x:.1}\" cy=\"{y:.1}\" r=\"4\"/>\n");
        }
        let x = scale.place(self.mean);
        drawing + &format!("  <circle class=\"mean\" cx=\"{x:.1}\" cy=\"{y:.1}\" r=\"5\"/>\n")
    }
}

/// What the lines say.
fn words(lines: &[Line]) -> String {
    let say = |line: &Line| match line {
        Line::Title(name) => format!(" {name}:"),
        Line::Values(Values { name, text, .. }) => format!(" {name} {text};"),
    };
    let text: String = lines.iter().map(say).collect();
    text.trim_end_matches(';').to_string() + "."
}
