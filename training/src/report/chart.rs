//! Charts as inline SVG: lines, bands and dots, with their words and numbers beside them.

use super::page::{Html, details, table};
use super::scale::{Axis, Scale};
use crate::statistics::{mean, standard_deviation};

/// Size of the drawing in its own units; the page scales it.
const SIZE: [f64; 2] = [380.0, 240.0];
/// Room above and below the plot, for the names of the axes and the ticks.
const TOP: f64 = 24.0;
const BOTTOM: f64 = 42.0;
/// Width of a character and height of a line of the chart's text, a little more than needed.
const CHARACTER: f64 = 7.4;
const LINE: f64 = 14.0;
/// More points than this are not marked one by one.
const MARKED: usize = 40;
/// Values beyond are as good as infinite, and would leave nothing to see of the others.
const LARGEST: f64 = 1e30;

/// A point of a line.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Point {
    /// Where.
    pub x: f64,
    /// The value.
    pub y: f64,
    /// The band around it, from and to.
    pub band: Option<[f64; 2]>,
}

/// What belongs to one name: a line, thin lines for what it is the mean of, dots, a level.
#[derive(Clone, Debug, Default)]
pub struct Series {
    /// Its name.
    pub name: String,
    /// The line.
    pub line: Vec<Point>,
    /// Thin lines.
    pub thin: Vec<Vec<[f64; 2]>>,
    /// Dots.
    pub dots: Vec<[f64; 2]>,
    /// A value over the whole width, with the band around it, from and to.
    pub level: Option<[f64; 3]>,
}

impl Series {
    /// A single line.
    pub fn line(name: &str, points: impl IntoIterator<Item = [f64; 2]>) -> Self {
        let line = points.into_iter().map(|[x, y]| Point { x, y, band: None }).collect();
        Self { name: name.into(), line, ..Self::default() }
    }

    /// The mean of several curves, point by point as far as the shortest goes: between the lowest
    /// and the highest of two, within a standard deviation of more. A single one is just a line.
    pub fn mean(name: &str, curves: Vec<Vec<[f64; 2]>>) -> Self {
        let length = curves.iter().map(Vec::len).min().unwrap_or(0);
        let point = |i: usize| {
            let [xs, ys] = [0, 1].map(|axis| curves.iter().map(|c| c[i][axis]).collect::<Vec<_>>());
            let y = mean(&ys);
            let band = match ys[..] {
                [_] => None,
                [a, b] => Some([a.min(b), a.max(b)]),
                _ => standard_deviation(&ys).map(|sd| [y - sd, y + sd]),
            };
            Point { x: mean(&xs), y, band }
        };
        let line = (0..length).map(point).collect();
        let thin = if curves.len() > 1 { curves } else { Vec::new() };
        Self { name: name.into(), line, thin, ..Self::default() }
    }

    /// Every place that must be within the axes.
    fn places(&self) -> impl Iterator<Item = [f64; 2]> {
        let line = self.line.iter().map(|point| [point.x, point.y]);
        let bands = self.line.iter().flat_map(|p| p.band.into_iter().flatten().map(|y| [p.x, y]));
        let thin = self.thin.iter().flatten().copied();
        let beside = self.dots.first().map_or(0.0, |dot| dot[0]);
        let level = self.level.into_iter().flatten().map(move |y| [beside, y]);
        let dots = self.dots.iter().copied();
        line.chain(bands).chain(thin).chain(level).chain(dots).filter(drawable)
    }

    /// Where its name is written: at the end of the line, else at the last dot.
    fn end(&self) -> Option<[f64; 2]> {
        let mut line = self.line.iter().map(|point| [point.x, point.y]);
        line.rfind(drawable).or_else(|| {
            let dots = self.dots.iter().copied().filter(drawable);
            dots.max_by(|a, b| a[0].total_cmp(&b[0]))
        })
    }
}

fn drawable(place: &[f64; 2]) -> bool {
    place.iter().all(|value| value.abs() < LARGEST)
}

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

/// Colour and dash of a series; every pair of the first 32 is another one.
fn style(index: usize) -> String {
    format!("c{} d{}", index % 8, (index + index / 8) % 4)
}

impl Chart {
    /// Whether there is more to see than points above one place.
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

    /// What the chart says, in words.
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
            series.line.iter().copied().chain(dots).map(move |point| {
                let mut row: Vec<Html> =
                    [series.name.clone(), show_x(point.x), show_y(point.y)].map(Html::from).into();
                let band = |[low, high]: [f64; 2]| format!("{} to {}", show_y(low), show_y(high));
                row.extend(banded.then(|| point.band.map(band).unwrap_or_default().into()));
                row
            })
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
        let along =
            |axis: usize| self.series.iter().flat_map(Series::places).map(move |place| place[axis]);
        let mut y = Scale::new(self.y, along(1));
        y.pixels = [height - BOTTOM, TOP];
        let y_ticks = y.ticks();
        let widest = |texts: &mut dyn Iterator<Item = &str>| {
            texts.map(|text| text.chars().count()).max().unwrap_or(0) as f64 * CHARACTER
        };
        let left = 10.0 + widest(&mut y_ticks.iter().map(|(_, text)| text.as_str()));
        // A single series needs no name, and long ones stand in the legend only.
        let names = widest(&mut self.series.iter().map(|series| series.name.as_str()));
        let named = self.series.len() > 1 && names < width / 4.0;
        let right = width - if named { names + 16.0 } else { 12.0 };
        let mut x = Scale::new(self.x, along(0));
        x.pixels = [left, right];

        let mut drawing = String::new();
        for (at, text) in &y_ticks {
            drawing += &format!(
                "<path class=\"grid\" d=\"M{left:.1} {at:.1}H{right:.1}\"/>\
                 <text x=\"{:.1}\" y=\"{:.1}\" text-anchor=\"end\">{text}</text>\n",
                left - 6.0,
                at + 4.0
            );
        }
        let floor = height - BOTTOM;
        let zero = y.place(0.0);
        if self.y.from_zero && zero < floor - 1.0 {
            drawing += &format!("<path class=\"axis\" d=\"M{left:.1} {zero:.1}H{right:.1}\"/>\n");
        }
        drawing += &format!("<path class=\"axis\" d=\"M{left:.1} {floor:.1}H{right:.1}\"/>\n");
        for (at, text) in x.ticks() {
            drawing += &format!(
                "<path class=\"axis\" d=\"M{at:.1} {floor:.1}v4\"/>\
                 <text x=\"{at:.1}\" y=\"{:.1}\" text-anchor=\"middle\">{text}</text>\n",
                floor + 17.0
            );
        }
        drawing += &format!(
            "<text class=\"name\" x=\"2\" y=\"12\">{}</text>\
             <text class=\"name\" x=\"{right:.1}\" y=\"{:.1}\" text-anchor=\"end\">{}</text>\n",
            Html::from(y.name()),
            height - 6.0,
            Html::from(x.name()),
        );
        for (index, series) in self.series.iter().enumerate() {
            drawing += &format!("<g class=\"{}\">\n", style(index));
            drawing += &self.draw(index, series, &x, &y);
            drawing += "</g>\n";
        }
        if named {
            drawing += &self.names(&x, &y);
        }
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

    fn draw(&self, index: usize, series: &Series, x: &Scale, y: &Scale) -> String {
        let at = |[px, py]: [f64; 2]| [x.place(px), y.place(py)];
        let line: Vec<[f64; 2]> = series.line.iter().map(|point| [point.x, point.y]).collect();
        let mut drawing = String::new();
        if let Some(level) = series.level.filter(|level| level.iter().all(|v| v.abs() < LARGEST)) {
            let [left, right] = x.pixels;
            let [mean, low, high] = level.map(|value| y.place(value));
            let band = path(&[[left, high], [right, high], [right, low], [left, low]]);
            let line = path(&[[left, mean], [right, mean]]);
            drawing += &format!(
                "<path class=\"band\" d=\"{band}Z\"/>\n<path class=\"line\" d=\"{line}\"/>\n"
            );
        }
        // From left to right along the upper edge and back along the lower; a gap parts bands.
        for part in series.line.split(|p| !p.band.is_some_and(|band| drawable(&band))) {
            let edge = |i: usize| {
                // `split` has left only points with a band.
                part.iter().map(move |p| at([p.x, p.band.unwrap_or_default()[i]]))
            };
            let around: Vec<_> = edge(1).chain(edge(0).rev()).collect();
            if part.len() > 1 {
                drawing += &format!("<path class=\"band\" d=\"{}Z\"/>\n", path(&around));
            } else if let [from, .., to] = around[..] {
                drawing += &format!("<path class=\"thin\" d=\"{}\"/>\n", path(&[from, to]));
            }
        }
        let lines = series.thin.iter().map(|thin| ("thin", thin)).chain([("line", &line)]);
        for (class, places) in lines {
            for part in places.split(|place| !drawable(place)).filter(|part| part.len() > 1) {
                let points: Vec<_> = part.iter().copied().map(at).collect();
                drawing += &format!("<path class=\"{class}\" d=\"{}\"/>\n", path(&points));
            }
        }
        let marked = if line.len() <= MARKED { &line[..] } else { &[] };
        // A line of one point is its mark.
        let size = if line.len() == 1 { 4.5 } else { 2.2 };
        let small = marked.iter().map(|place| (place, size));
        let large = series.dots.iter().map(|place| (place, 4.5));
        for (&[vx, vy], size) in small.chain(large).filter(|(place, _)| drawable(place)) {
            let [px, py] = at([vx, vy]);
            let text = format!(
                "{}: {}, {} {}",
                series.name,
                self.y.quantity.show(vy),
                self.x.name,
                self.x.quantity.show(vx)
            );
            drawing += &format!(
                "<path class=\"dot\" d=\"{}\"><title>{}</title></path>\n",
                mark(index, px, py, size),
                Html::from(text)
            );
        }
        drawing
    }

    /// The names at the ends of the lines, moved apart where they would overlap.
    fn names(&self, x: &Scale, y: &Scale) -> String {
        let ends = self.series.iter().enumerate().filter_map(|(index, series)| {
            let [px, py] = series.end()?;
            Some((index, series, [x.place(px), y.place(py)]))
        });
        let mut ends: Vec<_> = ends.map(|(index, series, at)| (index, series, at, at[1])).collect();
        ends.sort_by(|a, b| a.3.total_cmp(&b.3));
        let mut lowest = SIZE[1] - BOTTOM;
        for i in 1..ends.len() {
            ends[i].3 = ends[i].3.max(ends[i - 1].3 + LINE);
        }
        for end in ends.iter_mut().rev() {
            end.3 = end.3.min(lowest);
            lowest = end.3 - LINE;
        }
        let name = |(index, series, [px, py], text_y): (usize, &Series, [f64; 2], f64)| {
            format!(
                "<g class=\"{}\"><path class=\"lead\" d=\"{}\"/>\
                 <text class=\"end\" x=\"{:.1}\" y=\"{:.1}\">{}</text></g>\n",
                style(index),
                path(&[[px, py], [px + 10.0, text_y]]),
                px + 12.0,
                text_y + 4.0,
                Html::from(series.name.as_str())
            )
        };
        ends.into_iter().map(name).collect()
    }
}

fn path(points: &[[f64; 2]]) -> String {
    let step = |(i, [x, y]): (usize, &[f64; 2])| {
        format!("{}{x:.1} {y:.1}", if i == 0 { 'M' } else { 'L' })
    };
    points.iter().enumerate().map(step).collect()
}

/// A mark around a place: circle, square, triangle or diamond.
fn mark(index: usize, x: f64, y: f64, size: f64) -> String {
    let around = |corners: &[[f64; 2]]| {
        let corners: Vec<_> = corners.iter().map(|[a, b]| [x + a * size, y + b * size]).collect();
        path(&corners) + "Z"
    };
    match index % 4 {
        0 => {
            let (left, twice) = (x - size, 2.0 * size);
            format!(
                "M{left:.1} {y:.1}a{size} {size} 0 1 0 {twice} 0a{size} {size} 0 1 0 -{twice} 0Z"
            )
        }
        1 => around(&[[-0.9, -0.9], [0.9, -0.9], [0.9, 0.9], [-0.9, 0.9]]),
        2 => around(&[[0.0, -1.2], [1.1, 0.9], [-1.1, 0.9]]),
        _ => around(&[[0.0, -1.3], [1.3, 0.0], [0.0, 1.3], [-1.3, 0.0]]),
    }
}

#[cfg(test)]
mod tests {
    use super::super::format::Quantity;
    use super::super::tests::assert_well_formed;
    use super::*;

    const EPOCH: Axis = Axis { name: "epoch", quantity: Quantity::Epoch, from_zero: false };
    const TOP1: Axis = Axis { name: "top-1", quantity: Quantity::Percent, from_zero: false };

    fn chart(series: Vec<Series>) -> Chart {
        Chart { title: "A <chart>", note: String::new(), x: EPOCH, y: TOP1, series }
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

    #[test]
    fn means_have_bands_over_curves() {
        let curve = |values: [f64; 2]| vec![[1.0, values[0]], [2.0, values[1]]];
        let one = Series::mean("one", vec![curve([1.0, 2.0])]);
        assert_eq!((one.line[1].band, one.thin.len()), (None, 0));
        let two = Series::mean("two", vec![curve([1.0, 2.0]), curve([3.0, 8.0])]);
        assert_eq!(two.line[1], Point { x: 2.0, y: 5.0, band: Some([2.0, 8.0]) });
        let curves = [[10.0, 1.0], [20.0, 1.0], [30.0, 1.0]].map(curve).to_vec();
        let three = Series::mean("three", curves);
        assert_eq!(three.line[0], Point { x: 1.0, y: 20.0, band: Some([10.0, 30.0]) });
        // Seeds that agree have a band without width.
        assert_eq!(three.line[1].band, Some([1.0, 1.0]));
        assert_well_formed(&chart(vec![one, two, three]).figure().to_string());
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

    #[test]
    fn names_do_not_overlap_and_styles_differ() {
        let same = |name: &str| Series::line(name, [[1.0, 50.0], [2.0, 50.0]]);
        let svg = chart(vec![same("base"), same("dbb"), same("acb")]).svg().to_string();
        let mut heights: Vec<f64> = svg
            .lines()
            .filter_map(|line| line.split_once("class=\"end\"")?.1.split('"').nth(3)?.parse().ok())
            .collect();
        heights.sort_by(f64::total_cmp);
        assert_eq!(heights.len(), 3);
        assert!(heights.windows(2).all(|pair| pair[1] - pair[0] >= LINE), "{heights:?}");
        let styles: std::collections::BTreeSet<_> = (0..32).map(style).collect();
        assert_eq!(styles.len(), 32);
    }
}
