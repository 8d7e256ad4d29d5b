//! What a chart shows: lines with bands, dots and levels, each under a name.

use crate::statistics::{mean, standard_deviation};

/// Values beyond this are as good as infinite, and would leave nothing to see of the others.
pub(super) const LARGEST: f64 = 1e30;

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

/// A column of a histogram.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Column {
    /// Its left and right edge.
    pub x: [f64; 2],
    /// Its height.
    pub y: f64,
}

/// What is drawn under one name: a line, columns, thin lines for the curves it is the mean of, dots, a
/// level.
#[derive(Clone, Debug, Default)]
pub struct Series {
    /// Its name.
    pub name: String,
    /// The line.
    pub line: Vec<Point>,
    /// Columns from zero.
    pub columns: Vec<Column>,
    /// Thin lines.
    pub thin: Vec<Vec<[f64; 2]>>,
    /// Dots.
    pub dots: Vec<[f64; 2]>,
    /// What the legend says of it, in the place of the last value.
    pub remark: Option<String>,
    /// A value over the whole width, with the band around it, from and to.
    pub level: Option<[f64; 3]>,
}

impl Series {
    /// A single line.
    pub fn line(name: &str, points: impl IntoIterator<Item = [f64; 2]>) -> Self {
        let line = points.into_iter().map(|[x, y]| Point { x, y, band: None }).collect();
        Self { name: name.into(), line, ..Self::default() }
    }

    /// The mean of several curves, point by point up to the length of the shortest, with a band:
    /// from the lower to the higher of two, or a standard deviation around the mean of more. A
    /// single curve is a plain line.
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

    /// Every point that the axes must include.
    pub(super) fn places(&self) -> impl Iterator<Item = [f64; 2]> {
        let line = self.line.iter().map(|point| [point.x, point.y]);
        let bands = self.line.iter().flat_map(|p| p.band.into_iter().flatten().map(|y| [p.x, y]));
        let thin = self.thin.iter().flatten().copied();
        let beside = self.dots.first().map_or(0.0, |dot| dot[0]);
        let level = self.level.into_iter().flatten().map(move |y| [beside, y]);
        let dots = self.dots.iter().copied();
        let columns = self.columns.iter().flat_map(|column| column.x.map(|x| [x, column.y]));
        line.chain(bands).chain(columns).chain(thin).chain(level).chain(dots).filter(drawable)
    }

    /// Where its name is written: at the end of the line, else at the last dot.
    pub(super) fn end(&self) -> Option<[f64; 2]> {
        let mut line = self.line.iter().map(|point| [point.x, point.y]);
        line.rfind(drawable).or_else(|| {
            let dots = self.dots.iter().copied().filter(drawable);
            dots.max_by(|a, b| a[0].total_cmp(&b[0]))
        })
    }
}

pub(super) fn drawable(place: &[f64; 2]) -> bool {
    place.iter().all(|value| value.abs() < LARGEST)
}

#[cfg(test)]
mod tests {
    use super::*;

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
    }
}
