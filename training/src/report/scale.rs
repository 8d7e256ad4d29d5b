//! Axes: from values to places, and round numbers along them.

use super::format::Quantity;

/// An axis and its quantity.
#[derive(Clone, Copy, Debug)]
pub struct Axis {
    /// Its name.
    pub name: &'static str,
    /// The quantity along it.
    pub quantity: Quantity,
    /// Whether zero must be on it.
    pub from_zero: bool,
}

impl Axis {
    /// Epochs of a run.
    pub const EPOCH: Self = Self { name: "epoch", quantity: Quantity::Epoch, from_zero: false };
    /// Steps of a run.
    pub const STEP: Self = Self { name: "step", quantity: Quantity::Epoch, from_zero: false };
    /// Seconds of training and validation.
    pub const TIME: Self =
        Self { name: "training time", quantity: Quantity::Duration, from_zero: true };
    /// Cross-entropy.
    pub const LOSS: Self = Self { name: "loss", quantity: Quantity::Number, from_zero: false };
    /// Percent of images classified correctly.
    pub const TOP1: Self = Self { name: "top-1", quantity: Quantity::Percent, from_zero: false };
}

/// From values to places along an axis.
pub struct Scale {
    axis: Axis,
    divisor: f64,
    unit: &'static str,
    /// First and last value, in units; on a logarithmic axis their logarithms to base 10.
    range: [f64; 2],
    step: f64,
    /// Where the first and the last value are drawn.
    pub pixels: [f64; 2],
}

impl Scale {
    /// A scale from the smallest to the largest of some values, to round numbers.
    pub fn new(axis: Axis, values: impl Iterator<Item = f64>) -> Self {
        if axis.quantity == Quantity::Logarithmic {
            return Self::logarithmic(axis, values);
        }
        let zero = axis.from_zero.then_some(0.0);
        let [low, high] = values
            .chain(zero)
            .fold([f64::INFINITY, f64::NEG_INFINITY], |[l, h], v| [l.min(v), h.max(v)]);
        let (divisor, unit) = axis.quantity.unit(high);
        let [mut low, mut high] = [low / divisor, high / divisor];
        let whole = axis.quantity == Quantity::Epoch;
        // A single value is centred.
        if high - low <= 1e-9 * high.abs().max(low.abs()) {
            let room = match (whole, high == 0.0) {
                (true, _) | (_, true) => 0.5,
                _ => 0.1 * high.abs(),
            };
            [low, high] = [low - room, high + room];
        }
        let rough = (high - low) / 5.0;
        let power = 10f64.powf(rough.log10().floor());
        let nice = [1.0, 2.0, 5.0].into_iter().find(|n| n * power >= rough * 0.999);
        let mut step = nice.unwrap_or(10.0) * power;
        if whole {
            step = step.max(1.0);
        } else {
            // The last tick must not be lost to rounding.
            low = (low / step + 1e-6).floor() * step;
            high = (high / step - 1e-6).ceil() * step;
        }
        Self { axis, divisor, unit, range: [low, high], step, pixels: [0.0, 1.0] }
    }

    /// From the largest of 1, 2 and 5 times a power of ten below the values to the smallest above.
    fn logarithmic(axis: Axis, values: impl Iterator<Item = f64>) -> Self {
        let [low, high] = values
            .filter(|value| *value > 0.0)
            .fold([f64::INFINITY, 0.0], |[l, h]: [f64; 2], v| [l.min(v), h.max(v)]);
        let round = round_numbers([low.log10().floor(), high.log10().ceil()]);
        let below = round.iter().rfind(|(_, round)| *round <= low * 1.000_001);
        let above = round.iter().find(|(_, round)| *round >= high * 0.999_999);
        let range = [below, above].map(|found| found.map_or(0.0, |(_, round)| round.log10()));
        // A single value is centred.
        let range = if range[0] < range[1] { range } else { [range[0] - 0.5, range[0] + 0.5] };
        Self { axis, divisor: 1.0, unit: "", range, step: 1.0, pixels: [0.0, 1.0] }
    }

    /// Where a value is drawn.
    pub fn place(&self, value: f64) -> f64 {
        let ([low, high], [from, to]) = (self.range, self.pixels);
        let value = match self.axis.quantity {
            // What has no logarithm lies at the edge.
            Quantity::Logarithmic => value.max(f64::MIN_POSITIVE).log10().max(low),
            _ => value / self.divisor,
        };
        from + (value - low) / (high - low) * (to - from)
    }

    /// Places and texts of its ticks.
    pub fn ticks(&self) -> Vec<(f64, String)> {
        if self.axis.quantity == Quantity::Logarithmic {
            return self.logarithmic_ticks();
        }
        let decimals = (-self.step.log10().floor()).max(0.0) as usize;
        let first = (self.range[0] / self.step - 1e-6).ceil() as i64;
        let last = (self.range[1] / self.step + 1e-6).floor() as i64;
        (first..=last)
            .map(|i| {
                let value = i as f64 * self.step;
                let text = match decimals {
                    0..=5 => format!("{value:.decimals$}"),
                    _ => format!("{value:.0e}"),
                };
                (self.place(value * self.divisor), text.replace('-', "−"))
            })
            .collect()
    }

    /// The powers of ten; within two of them, twice and five times each as well.
    fn logarithmic_ticks(&self) -> Vec<(f64, String)> {
        let [low, high] = self.range;
        let dense = high - low < 2.0;
        let round = round_numbers([low.floor(), high.ceil()]).into_iter();
        let shown = round.filter(|&(mantissa, value)| {
            let at = value.log10();
            (dense || mantissa == 1.0) && at > low - 1e-6 && at < high + 1e-6
        });
        let text = |value: f64| match value {
            1e-3..1e4 => format!("{value}"),
            _ => format!("{value:.0e}").replace('-', "−"),
        };
        shown.map(|(_, value)| (self.place(value), text(value))).collect()
    }

    /// The name of the axis with its unit.
    pub fn name(&self) -> String {
        match self.unit {
            "" => self.axis.name.into(),
            unit => format!("{} ({unit})", self.axis.name),
        }
    }
}

/// 1, 2 and 5 times the powers of ten from the first exponent to the last, with that factor.
fn round_numbers([first, last]: [f64; 2]) -> Vec<(f64, f64)> {
    let power = |exponent: i32| [1.0, 2.0, 5.0].map(|m| (m, m * 10f64.powi(exponent)));
    (first as i32..=last as i32).flat_map(power).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ticks_are_round_numbers() {
        let ticks = |quantity, values: &[f64]| -> Vec<String> {
            let axis = Axis { name: "", quantity, from_zero: false };
            let ticks = Scale::new(axis, values.iter().copied()).ticks();
            ticks.into_iter().map(|(_, text)| text).collect()
        };
        assert_eq!(
            ticks(Quantity::Number, &[0.3, 2.1]),
            ["0.0", "0.5", "1.0", "1.5", "2.0", "2.5"]
        );
        assert_eq!(ticks(Quantity::Epoch, &[1.0, 4.0]), ["1", "2", "3", "4"]);
        assert_eq!(ticks(Quantity::Epoch, &[1.0]), ["1"]);
        assert_eq!(ticks(Quantity::Duration, &[0.0, 240.0]), ["0", "1", "2", "3", "4"]);
        assert_eq!(ticks(Quantity::Count, &[67562.0])[0], "60");
        assert_eq!(ticks(Quantity::Number, &[0.0, 4e-7])[1], "1e−7");
        assert_eq!(
            ticks(Quantity::Number, &[0.0]),
            ["−0.6", "−0.4", "−0.2", "0.0", "0.2", "0.4", "0.6"]
        );
    }

    #[test]
    fn logarithmic_ticks_are_powers_of_ten() {
        let axis = Axis { name: "rate", quantity: Quantity::Logarithmic, from_zero: false };
        let scale = |values: &[f64]| Scale::new(axis, values.iter().copied());
        let texts = |values: &[f64]| -> Vec<String> {
            scale(values).ticks().into_iter().map(|(_, text)| text).collect()
        };
        assert_eq!(texts(&[1e-5, 10.0]), ["1e−5", "1e−4", "0.001", "0.01", "0.1", "1", "10"]);
        assert_eq!(texts(&[1.4, 9.0]), ["1", "2", "5", "10"]);
        assert_eq!(texts(&[0.03, 0.2]), ["0.02", "0.05", "0.1", "0.2"]);
        assert_eq!(texts(&[3e5, 3e5]), ["2e5", "5e5"]);
        // Equal factors have equal distances.
        let scale = scale(&[0.1, 1000.0]);
        let places = [0.1, 1.0, 10.0, 1000.0, 0.0].map(|value| scale.place(value));
        for (place, expected) in places.iter().zip([0.0, 0.25, 0.5, 1.0, 0.0]) {
            assert!((place - expected).abs() < 1e-9, "{places:?}");
        }
        assert_eq!(texts(&[2.0, 2.0]), ["1", "2", "5"]);
    }
}
