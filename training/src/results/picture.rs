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
                text: outcome.interval(),
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
        let interval = paired(&dots).map(|e| [e.delta - e.half, e.delta + e.half]);
        Line::Values(Values {
            name: arm.name.clone(),
            mean: arm.top1_mean,
            interval,
            text: arm.top1(),
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
    .dot { fill: #9a6700; fill-opacity: 0.45; }
    @media (prefers-color-scheme: dark) {
      .paper { fill: #0d1117; stroke: #3d444d; }
      text { fill: #f0f6fc; }
      .soft { fill: #9198a1; }
      .grid { stroke: #3d444d; }
      .zero { stroke: #9198a1; }
      .line { stroke: #4493f8; }
      .mean { fill: #4493f8; }
      .dot { fill: #d29922; fill-opacity: 0.6; }
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
    let [left, right] = [40.0 + widest(|v| &v.name), WIDTH - 30.0 - widest(|v| &v.text)];
    let height = TOP + lines.len() as f64 * HEIGHT + BOTTOM;
    let floor = height - BOTTOM + 4.0;
    let all = values.iter().flat_map(|v| {
        v.dots.iter().copied().chain(v.interval.into_iter().flatten()).chain([v.mean])
    });
    let all: Vec<f64> = if values.is_empty() { vec![0.0] } else { all.collect() };
    let mut scale = Scale::new(axis, all.iter().copied());
    scale.pixels = [left, right];
    let mut drawing = String::new();
    for (x, text) in scale.ticks() {
        drawing += &format!(
            "  <path class=\"grid\" d=\"M{x:.1} {TOP}V{floor:.1}\"/>\n  \
             <text class=\"soft\" x=\"{x:.1}\" y=\"{:.1}\" text-anchor=\"middle\">{text}</text>\n",
            floor + 17.0
        );
    }
    if axis.from_zero {
        let zero = scale.place(0.0);
        drawing += &format!("  <path class=\"zero\" d=\"M{zero:.1} {TOP}V{floor:.1}\"/>\n");
    }
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
    let description = Html::from(format!("{title}.{}", words(lines))).to_string();
    let [title_shown, middle, below] = [
        Html::from(title).to_string(),
        format!("{:.1}", (left + right) / 2.0),
        format!("{:.1}", height - 10.0),
    ];
    let svg = format!(
        "<svg xmlns=\"http://www.w3.org/2000/svg\" viewBox=\"0 0 {WIDTH} {height}\" role=\"img\" \
         aria-labelledby=\"title desc\" font-family=\"system-ui, -apple-system, 'Segoe UI', Helvetica, \
         Arial, sans-serif\" font-size=\"14\">\n  <title id=\"title\">{title_shown}</title>\n  \
         <desc id=\"desc\">{description}</desc>\n  <style>{STYLE}  </style>\n  \
         <rect class=\"paper\" x=\"0.5\" y=\"0.5\" width=\"{}\" height=\"{}\" rx=\"6\"/>\n  \
         <text class=\"soft\" x=\"16\" y=\"22\">{title_shown}</text>\n{drawing}  \
         <text class=\"soft\" x=\"{middle}\" y=\"{below}\" text-anchor=\"middle\">{label}</text>\n</svg>\n",
        WIDTH - 1.0,
        height - 1.0
    );
    // In the text between the brackets of a Markdown image.
    let description = format!("{title}.{}", words(lines)).replace(['[', ']', '\n'], " ");
    Picture { svg, description }
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
        for dot in &self.dots {
            let x = scale.place(*dot);
            drawing += &format!("  <circle class=\"dot\" cx=\"{x:.1}\" cy=\"{y:.1}\" r=\"4\"/>\n");
        }
        if let Some([low, high]) = self.interval.map(|interval| interval.map(|v| scale.place(v))) {
            drawing += &format!("  <path class=\"line\" d=\"M{low:.1} {y:.1}H{high:.1}\"/>\n");
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
    lines.iter().map(say).collect()
}
