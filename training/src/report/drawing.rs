//! The lines, bands, dots and axes of a chart as SVG.

use super::page::Html;
use super::scale::{Axis, Scale};
use super::series::{LARGEST, Series, drawable};

/// Size of the drawing in its own units; the page scales it.
pub(super) const SIZE: [f64; 2] = [380.0, 240.0];
/// Room above and below the plot, for the names of the axes and the ticks.
const TOP: f64 = 24.0;
const BOTTOM: f64 = 42.0;
/// Width of a character and height of a line of the chart's text, a little more than needed.
const CHARACTER: f64 = 7.4;
const LINE: f64 = 14.0;
/// More points than this are not marked one by one.
const MARKED: usize = 40;

/// A chart without its title and words.
pub(super) struct Drawing<'a> {
    pub x: Axis,
    pub y: Axis,
    pub series: &'a [Series],
}

impl Drawing<'_> {
    /// The markup inside an `svg` element of [`SIZE`]. At least one place must be drawable.
    pub fn markup(&self) -> String {
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
        // A single series needs no name, and long names appear in the legend only.
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
        drawing
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
        for column in series.columns.iter().filter(|column| column.y.abs() < LARGEST) {
            let ([left, right], top, floor) =
                (column.x.map(|edge| x.place(edge)), y.place(column.y), y.place(0.0));
            let text = format!(
                "{} to {}: {}",
                self.x.quantity.show(column.x[0]),
                self.x.quantity.show(column.x[1]),
                self.y.quantity.show(column.y)
            );
            drawing += &format!(
                "<path class=\"column\" d=\"{}Z\"><title>{}</title></path>\n",
                path(&[[left, floor], [left, top], [right, top], [right, floor]]),
                Html::from(text)
            );
        }
        // From left to right along the upper edge and back along the lower; a gap separates bands.
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
        // A line of one point is shown as its mark.
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

/// Colour and dash of a series; the first 32 all differ.
pub(super) fn style(index: usize) -> String {
    format!("c{} d{}", index % 8, (index + index / 8) % 4)
}

fn path(points: &[[f64; 2]]) -> String {
    let step = |(i, [x, y]): (usize, &[f64; 2])| {
        format!("{}{x:.1} {y:.1}", if i == 0 { 'M' } else { 'L' })
    };
    points.iter().enumerate().map(step).collect()
}

/// A mark around a place: circle, square, triangle or diamond.
pub(super) fn mark(index: usize, x: f64, y: f64, size: f64) -> String {
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
    use super::*;

    #[test]
    fn names_do_not_overlap_and_styles_differ() {
        let same = |name: &str| Series::line(name, [[1.0, 50.0], [2.0, 50.0]]);
        let series = [same("base"), same("dbb"), same("acb")];
        let svg = Drawing { x: Axis::EPOCH, y: Axis::TOP1, series: &series }.markup();
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
