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
    /// First and last value, in units.
    range: [f64; 2],
    step: f64,
    /// Where the first and the last value are drawn.
    pub pixels: [f64; 2],
}

impl Scale {
    /// A scale from the smallest to the largest of some values, to round numbers.
    pub fn new(axis: Axis, values: impl Iterator<Item = f64>) -> Self {
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

    /// Where a value is drawn.
    pub fn place(&self, value: f64) -> f64 {
        let ([low, high], [from, to]) = (self.range, self.pixels);
        from + (value / self.divisor - low) / (high - low) * (to - from)
    }

    /// Places and texts of its ticks.
    pub fn ticks(&self) -> Vec<(f64, String)> {
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

    /// The name of the axis with its unit.
    pub fn name(&self) -> String {
        match self.unit {
            "" => self.axis.name.into(),
            unit => format!("{} ({unit})", self.axis.name),
        }
    }
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
}
