//! Shifts: values near the mean of a channel, which are subtracted before sums to avoid
//! cancellation.
//!
//! A variance from sums about a shift has `1 + offset^2 / variance` times the relative error of the
//! sums, `offset` being the distance of the mean from the shift. A shift is estimated from a few
//! values and checked once the sums are known. If it is far from the mean, it is replaced by the
//! mean that the sums gave, and the sums are computed again: a few atypical values cost time, but
//! no accuracy.

/// Whether the offset of the mean from the shift costs more than two bits of the variance. False if
/// an argument is NaN: no other shift would help.
pub(crate) fn is_far(offset: f64, variance: f64) -> bool {
    offset * offset > 4.0 * variance
}

/// An estimate of the mean of a channel, from a few values at eight places that are spread evenly
/// over its planes, one per image.
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
