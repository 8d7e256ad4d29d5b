//! Charts as inline SVG, with a description and a table of their numbers.

use super::drawing::{Drawing, SIZE, mark, style};
use super::page::{Html, details, table};
use super::scale::Axis;
use super::series::{Column, Point, Series};

/// A chart.
#[derive(Clone, Debug)]
pub struct Chart {
    /// Its title, unique in the page.
    pub title: &'static str,
    /// How to read it; may be empty.
    pub note: String,
    /// The horizontal axis.
    pub x: Axis,
    /// The vertical axis.
    pub y: Axis,
    /// What is drawn.
    pub series: Vec<Series>,
}

impl Chart {
    /// Whether its points lie at more than one place of the horizontal axis.
    pub fn is_wide(&self) -> bool {
        let mut xs = self.series.iter().flat_map(Series::places).map(|place| place[0]);
        let first = xs.next();
        xs.any(|x| Some(x) != first)
    }

    /// The chart with caption, legend and the table of its numbers. At least one place must be
    /// drawable.
    pub fn figure(&self) -> Html {
        let [title, note] = [self.title, &self.note].map(Html::from);
        let [legend, drawing] = [self.legend(), self.svg()];
        let numbers = details("Numbers", &self.numbers());
        Html::raw(format!(
            "<figure>\n<figcaption><strong>{title}</strong> {note}</figcaption>\n\
             {legend}{drawing}{numbers}</figure>\n"
        ))
    }

    /// A description of the chart in words.
    fn description(&self) -> String {
        let mut text = format!("{} by {}.", self.y.name, self.x.name);
        for series in &self.series {
            let ys: Vec<f64> = series.dots.iter().map(|dot| dot[1]).collect();
            if let Some(last) = series.line.last() {
                let (x, y) = (self.x.quantity.show(last.x), self.y.quantity.show(last.y));
                text += &format!(" {}: at last {y} ({} {x}", series.name, self.x.name);
                if let Some([low, high]) = last.band {
                    let [low, high] = [low, high].map(|value| self.y.quantity.show(value));
                    text += &format!("; {low} to {high}");
                }
                text += ").";
                text.extend(series.remark.iter().map(|remark| format!(" {remark}.")));
            } else if let [column] = series.columns[..] {
                text +=
                    &format!(" {}: a column of {}.", series.name, self.y.quantity.show(column.y));
            } else if !series.columns.is_empty() {
                let heights = series.columns.iter().map(|column| self.y.quantity.show(column.y));
                let heights: Vec<_> = heights.collect();
                text += &format!(" {}: columns of {}.", series.name, heights.join(", "));
            } else if !ys.is_empty() {
                let low = ys.iter().copied().fold(f64::INFINITY, f64::min);
                let high = ys.iter().copied().fold(f64::NEG_INFINITY, f64::max);
                let [low, high] = [low, high].map(|value| self.y.quantity.show(value));
                text += &format!(" {}: from {low} to {high}.", series.name);
            }
            if let Some(level) = series.level {
                let [mean, low, high] = level.map(|value| self.y.quantity.show(value));
                text += &format!(" Mean {mean}, interval {low} to {high}.");
            }
        }
        text
    }

    fn numbers(&self) -> Html {
        let banded = self.series.iter().any(|s| s.line.iter().any(|p| p.band.is_some()));
        let mut head = vec!["series", self.x.name, self.y.name];
        head.extend(banded.then_some("band"));
        let [show_x, show_y] = [self.x, self.y].map(|axis| move |v| axis.quantity.show(v));
        let rows = self.series.iter().flat_map(|series| {
            let dots = series.dots.iter().map(|&[x, y]| Point { x, y, band: None });
            let points = series.line.iter().copied().chain(dots).map(move |point| {
                let mut row: Vec<Html> =
                    [series.name.clone(), show_x(point.x), show_y(point.y)].map(Html::from).into();
                let band = |[low, high]: [f64; 2]| format!("{} to {}", show_y(low), show_y(high));
                row.extend(banded.then(|| point.band.map(band).unwrap_or_default().into()));
                row
            });
            let columns = series.columns.iter().map(move |Column { x: [left, right], y }| {
                let edges = format!("{} to {}", show_x(*left), show_x(*right));
                [series.name.clone(), edges, show_y(*y)].map(Html::from).into()
            });
            columns.chain(points)
        });
        table(self.title, &head, rows)
    }

    fn legend(&self) -> Html {
        let entries: String = self
            .series
            .iter()
            .enumerate()
            .map(|(index, series)| {
                let last = series.line.last().map(|point| point.y);
                let value = last.or(series.level.map(|[mean, ..]| mean));
                let line = match value {
                    None => "",
                    Some(_) => "<path class=\"line\" d=\"M0 6H32\"/>",
                };
                let value = value.map(|value| self.y.quantity.show(value));
                let value = series.remark.clone().or(value);
                format!(
                    "<li class=\"{}\"><svg viewBox=\"0 0 32 12\" aria-hidden=\"true\">{line}\
                     <path class=\"dot\" d=\"{}\"/></svg>{} <b>{}</b></li>\n",
                    style(index),
                    mark(index, 16.0, 6.0, 3.5),
                    Html::from(series.name.as_str()),
                    Html::from(value.unwrap_or_default()),
                )
            })
            .collect();
        Html::raw(format!("<ul class=\"legend\">\n{entries}</ul>\n"))
    }
    /// The drawing alone. At least one place must be drawable.
    fn svg(&self) -> Html {
        let [width, height] = SIZE;
        let drawing = Drawing { x: self.x, y: self.y, series: &self.series }.markup();
        let id: String = self
            .title
            .chars()
            .map(|c| if c.is_ascii_alphanumeric() { c.to_ascii_lowercase() } else { '-' })
            .collect();
        let [title, description] = [self.title, &self.description()].map(Html::from);
        Html::raw(format!(
            "<svg class=\"chart\" viewBox=\"0 0 {width} {height}\" role=\"img\" \
             aria-labelledby=\"{id}-title {id}-description\">\n<title id=\"{id}-title\">{title}\
             </title>\n<desc id=\"{id}-description\">{description}</desc>\n{drawing}</svg>\n"
        ))
    }
}

#[cfg(test)]
mod tests {
    use super::super::format::Quantity;
    use super::super::testing::assert_well_formed;
    use super::*;

    fn chart(series: Vec<Series>) -> Chart {
        Chart { title: "A <chart>", note: String::new(), x: Axis::EPOCH, y: Axis::TOP1, series }
    }

    /// Ticks at whole epochs and round percents; the line from the lower left to the upper right
    /// of the plot, which begins after two characters and ends 12 before the edge.
    #[test]
    fn a_known_line_is_where_it_should_be() {
        let svg = chart(vec![Series::line("base", [[1.0, 50.0], [3.0, 90.0]])]).svg().to_string();
        assert!(svg.contains("<path class=\"line\" d=\"M24.8 198.0L368.0 24.0\"/>"), "{svg}");
        for (at, text) in [(198.0, "50"), (154.5, "60"), (111.0, "70"), (67.5, "80"), (24.0, "90")]
        {
            let label = at + 4.0;
            let tick = format!(
                "M24.8 {at:.1}H368.0\"/><text x=\"18.8\" y=\"{label:.1}\" text-anchor=\"end\">{text}<"
            );
            assert!(svg.contains(&tick), "{tick} in {svg}");
        }
        for (at, text) in [("24.8", "1"), ("196.4", "2"), ("368.0", "3")] {
            let tick = format!("<text x=\"{at}\" y=\"215.0\" text-anchor=\"middle\">{text}</text>");
            assert!(svg.contains(&tick), "{tick} in {svg}");
        }
        assert!(svg.contains("top-1 by epoch. base: at last 90.00 % (epoch 3)."), "{svg}");
        assert!(svg.contains(">top-1 (%)</text>"), "{svg}");
    }

    /// A non-finite value splits the line and affects nothing else.
    #[test]
    fn values_that_are_no_numbers_are_left_out() {
        let values = [1.0, 2.0, f64::NAN, 3.0, 4.0, f64::INFINITY, 1e300];
        let points = values.iter().enumerate().map(|(i, &y)| [i as f64, y]);
        let mut series = Series::line("a & b", points);
        series.line[0].band = Some([f64::NAN, 2.0]);
        series.dots = vec![[f64::NAN, 1.0], [1.0, 2.0]];
        let figure = chart(vec![series.clone(), series]).figure().to_string();
        assert_well_formed(&figure);
        let svg = &figure[figure.find("<svg class=\"chart\"").unwrap()..];
        let svg = &svg[..svg.find("</svg>").unwrap()];
        assert_eq!(svg.matches("class=\"line\"").count(), 4);
        assert!(!svg.contains("d=\"NaN") && !svg.contains("inf") && !svg.contains("A <chart>"));
        assert!(!chart(vec![Series::line("nothing", [[1.0, f64::NAN]])]).is_wide());
    }

    #[test]
    fn points_above_one_place_are_no_chart() {
        let point = |x: f64| Series::line("a", [[x, 50.0]]);
        assert!(!chart(vec![]).is_wide() && !chart(vec![point(1.0), point(1.0)]).is_wide());
        assert!(chart(vec![point(1.0), point(2.0)]).is_wide());
        let level = Series { level: Some([1.0, 0.0, 2.0]), dots: vec![[3.0, 1.0]], ..point(3.0) };
        assert!(!chart(vec![level]).is_wide());
    }

    /// From 24.8, beside the widest tick, to 368; the ticks are -1, 0, 1, 2, 3 at 198, 154.5, ..., 24.
    #[test]
    fn a_level_crosses_the_whole_chart_and_zero_is_marked() {
        let dots = vec![[0.0, 3.0], [1.0, -1.0]];
        let series = Series { level: Some([1.0, 0.0, 2.0]), dots, ..Series::default() };
        let y = Axis { name: "delta", quantity: Quantity::Points, from_zero: true };
        let svg = Chart { y, ..chart(vec![series]) }.svg().to_string();
        for part in [
            "class=\"band\" d=\"M24.8 67.5L368.0 67.5L368.0 154.5L24.8 154.5Z\"",
            "class=\"line\" d=\"M24.8 111.0L368.0 111.0\"",
            "class=\"axis\" d=\"M24.8 154.5H368.0\"",
            "from −1.00 points to +3.00 points. Mean +1.00 points, interval +0.00 points to",
        ] {
            assert!(svg.contains(part), "no {part:?} in {svg}");
        }
    }
}
