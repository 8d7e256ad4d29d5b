//! Shifts: values near the mean of a channel, about which its sums lose no digits.
//!
//! A variance from sums about a shift has `1 + offset^2 / variance` times the relative error of the
//! sums, `offset` being the distance of the mean from the shift. A shift is guessed from a few
//! values, and checked once the sums are known: one that proves to be far off is replaced by the
//! mean they gave, and the sums are taken again. No single row or image can spoil it.

/// Whether a mean so far from the shift costs digits of the variance, more than two bits. Not so if
/// anything is NaN: no other shift would help.
pub(crate) fn is_far(offset: f64, variance: f64) -> bool {
    offset * offset > 4.0 * variance
}

/// A rough mean of a channel: of a few values at eight places, spread evenly over its
/// planes, one per image.
pub(crate) fn guess<'a>([batch, positions]: [usize; 2], plane: impl Fn(usize) -> &'a [f32]) -> f32 {
    const PLACES: usize = 8;
    const VALUES: usize = 16;
    let (values, all) = (VALUES.min(positions), batch * positions);
    let places = PLACES.min(all.div_ceil(VALUES));
    let mut sum = 0.0;
    for place in 0..places {
        let at = (2 * place + 1) * all / (2 * places);
        let start = (at % positions).min(positions - values);
        let values = &plane(at / positions)[start..start + values];
        sum += values.iter().map(|&value| f64::from(value)).sum::<f64>();
    }
    (sum / (places * values) as f64) as f32
}
