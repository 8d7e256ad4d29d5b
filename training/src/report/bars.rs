//! Shares as stacked bars, one below the other.

use super::drawing::style;
use super::format::Quantity::Percent;
use super::page::Html;

/// A bar of shares of 1, each by the index of its name.
pub struct Bar {
    /// What it shows the shares of.
    pub name: String,
    /// Index of a name and share.
    pub parts: Vec<(usize, f64)>,
}

/// Bars with the legend of their parts.
pub fn bars(names: &[&str], bars: &[Bar]) -> Html {
    let legend: String = names
        .iter()
        .enumerate()
        .map(|(index, name)| {
            format!(
                "<li class=\"{}\"><svg viewBox=\"0 0 32 12\" aria-hidden=\"true\">\
                 <rect class=\"part\" width=\"32\" height=\"12\"/></svg>{}</li>\n",
                style(index),
                Html::from(*name)
            )
        })
        .collect();
    let rows: String = bars.iter().map(|bar| row(names, bar)).collect();
    Html::raw(format!("<ul class=\"legend\">\n{legend}</ul>\n<ul class=\"bars\">\n{rows}</ul>\n"))
}

fn row(names: &[&str], bar: &Bar) -> String {
    let (mut parts, mut words, mut left) = (String::new(), Vec::new(), 0.0);
    for &(index, share) in &bar.parts {
        let (width, name) = (100.0 * share, names[index]);
        let text = format!("{name} {}", Percent.show(width));
        if share > 0.0 {
            parts += &format!(
                "<rect class=\"part {}\" x=\"{left:.2}\" width=\"{width:.2}\" height=\"10\">\
                 <title>{}</title></rect>",
                style(index),
                Html::from(text.as_str())
            );
            left += width;
        }
        words.push(text);
    }
    let label = Html::from(format!("{}: {}", bar.name, words.join(", ")));
    format!(
        "<li><span>{}</span><svg viewBox=\"0 0 100 10\" preserveAspectRatio=\"none\" role=\"img\" \
         aria-label=\"{label}\">{parts}</svg></li>\n",
        Html::from(bar.name.as_str()),
    )
}

#[cfg(test)]
mod tests {
    use super::super::testing::assert_well_formed;
    use super::*;

    #[test]
    fn parts_lie_side_by_side() {
        let bar = Bar {
            name: "conv <1>".into(),
            parts: vec![(1, 0.25), (0, 0.0), (2, f64::NAN), (0, 0.5)],
        };
        let html = bars(&["kxk", "1x1", "avg"], &[bar]).to_string();
        assert_well_formed(&html);
        for part in [
            "aria-label=\"conv &lt;1&gt;: 1x1 25.00 %, kxk 0.00 %, avg NaN, kxk 50.00 %\"",
            "c1 d1\" x=\"0.00\" width=\"25.00\"",
            "c0 d0\" x=\"25.00\" width=\"50.00\"",
        ] {
            assert!(html.contains(part), "no {part} in {html}");
        }
        assert_eq!(html.matches("<title>").count(), 2, "nothing of no width is drawn");
    }
}
