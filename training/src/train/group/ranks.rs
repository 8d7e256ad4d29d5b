//! Processes that train together, and what they agree on.

use std::fmt;
use std::ops::AddAssign;
use std::sync::Arc;

use burn::tensor::{Tensor, TensorData};
use dbb_datasets::Share;
use dbb_models::GroupSum;
use serde::Serialize;
use serde::de::DeserializeOwned;

use super::Sum;
use crate::error::{Error, Result};
use crate::run::metrics::host;

/// How ranks send values to each other. Every rank makes the same calls in the same order.
pub trait Exchange: Send + Sync {
    /// The number of this rank, from 0.
    fn rank(&self) -> usize;
    /// Number of ranks.
    fn size(&self) -> usize;
    /// The machine that a rank runs on.
    fn host(&self, rank: usize) -> &str;
    /// Sends `out[k]` to rank `k` and receives `into[k]` from it; those of this rank are ignored.
    fn bytes(&self, out: &[&[u8]], into: &mut [&mut [u8]]);
    /// The same with numbers.
    fn floats(&self, out: &[&[f32]], into: &mut [&mut [f32]]);
    /// The same with longer ones.
    fn doubles(&self, out: &[&[f64]], into: &mut [&mut [f64]]);
}

/// The ranks of a run; a process that trains alone is the only one.
#[derive(Clone, Default)]
pub struct Ranks(Option<Arc<dyn Exchange>>);

impl Ranks {
    /// Several ranks.
    pub fn new(exchange: Arc<dyn Exchange>) -> Self {
        Self(Some(exchange))
    }

    /// The number of this rank, from 0.
    pub fn rank(&self) -> usize {
        self.0.as_ref().map_or(0, |exchange| exchange.rank())
    }

    /// Number of ranks.
    pub fn size(&self) -> usize {
        self.0.as_ref().map_or(1, |exchange| exchange.size())
    }

    /// Whether this is the rank that writes and prints.
    pub fn is_first(&self) -> bool {
        self.rank() == 0
    }

    /// The part of every batch that is this rank's.
    pub fn share(&self) -> Share {
        Share { member: self.rank(), of: self.size() }
    }

    /// A rank and its machine, for messages.
    pub fn name(&self, rank: usize) -> String {
        let host = self.0.as_ref().map_or("", |exchange| exchange.host(rank));
        format!("rank {rank} on {host}")
    }

    /// The machine that this rank runs on; empty for a process that trains alone.
    pub fn host(&self) -> &str {
        self.0.as_ref().map_or("", |exchange| exchange.host(exchange.rank()))
    }

    /// Of the ranks on this rank's machine: which this is, from 0, and how many there are.
    pub fn local(&self) -> (usize, usize) {
        let Some(exchange) = &self.0 else { return (0, 1) };
        let own = exchange.host(exchange.rank());
        let local = |ranks: std::ops::Range<usize>| {
            ranks.filter(|rank| exchange.host(*rank) == own).count()
        };
        (local(0..exchange.rank()), local(0..exchange.size()))
    }

    /// What every rank says, in the order of the ranks.
    pub(crate) fn gather<T: Serialize + DeserializeOwned>(&self, own: T) -> Result<Vec<T>> {
        let Some(exchange) = &self.0 else { return Ok(vec![own]) };
        let fail = |error: serde_json::Error| Error::Unusable(format!("between ranks: {error}"));
        let text = serde_json::to_vec(&own).map_err(fail)?;
        let texts = gather_bytes(&**exchange, &text);
        texts.iter().map(|text| serde_json::from_slice(text).map_err(fail)).collect()
    }

    /// A result, if it is one on every rank; otherwise an error on every rank.
    pub(crate) fn agree<T>(&self, own: Result<T>) -> Result<T> {
        Ok(self.agree_and_say(own, |_| ())?.0)
    }

    /// As [`agree`](Self::agree), with what every rank says of its result.
    pub(crate) fn agree_and_say<T, S: Serialize + DeserializeOwned>(
        &self,
        own: Result<T>,
        say: impl FnOnce(&T) -> S,
    ) -> Result<(T, Vec<S>)> {
        let said = self.gather(own.as_ref().map(say).map_err(ToString::to_string))?;
        let own = own?;
        let mut all = Vec::with_capacity(said.len());
        for (rank, said) in said.into_iter().enumerate() {
            all.push(said.map_err(|text| Error::Rank { rank: self.name(rank), text })?);
        }
        Ok((own, all))
    }

    /// Replaces values by their sums over the ranks.
    pub(crate) fn sum_values(&self, values: &mut [f32]) {
        if let Some(exchange) = &self.0 {
            let swap = |out: &[&[f32]], into: &mut [&mut [f32]]| exchange.floats(out, into);
            sum_in_order(values, exchange.rank(), exchange.size(), swap);
        }
    }
}

/// Replaces values by their sums over `size` ranks, of which this is `rank`.
///
/// Each rank adds one part of the values, those of all ranks in their order, and sends the sums to
/// the others: of `n` values, `2 (N - 1) / N n` are sent by each of `N` ranks, as in a ring, and the
/// order does not depend on the network.
fn sum_in_order<T: Copy + Default + AddAssign>(
    values: &mut [T],
    rank: usize,
    size: usize,
    swap: impl Fn(&[&[T]], &mut [&mut [T]]),
) {
    let part = values.len().div_ceil(size).max(1);
    let bound = |rank: usize| (rank * part).min(values.len());
    let bounds: Vec<_> = (0..size).map(|rank| bound(rank)..bound(rank + 1)).collect();
    let own = bounds[rank].clone();

    let mut received = vec![T::default(); own.len() * size];
    let out: Vec<&[T]> = bounds.iter().map(|part| &values[part.clone()]).collect();
    let mut into: Vec<&mut [T]> = match own.len() {
        0 => (0..size).map(|_| &mut [][..]).collect(),
        len => received.chunks_mut(len).collect(),
    };
    swap(&out, &mut into);
    into[rank].copy_from_slice(&values[own.clone()]);
    let mut sums = vec![T::default(); own.len()];
    for part in &into {
        sums.iter_mut().zip(&**part).for_each(|(sum, value)| *sum += *value);
    }
    values[own].copy_from_slice(&sums);

    let out = vec![&sums[..]; size];
    let mut rest = values;
    let mut into = Vec::with_capacity(size);
    for part in &bounds {
        let (first, others) = rest.split_at_mut(part.len());
        into.push(first);
        rest = others;
    }
    swap(&out, &mut into);
}

/// Texts of all ranks, in their order.
fn gather_bytes(exchange: &dyn Exchange, own: &[u8]) -> Vec<Vec<u8>> {
    let (rank, size) = (exchange.rank(), exchange.size());
    let length = (own.len() as u64).to_le_bytes();
    let mut lengths = vec![[0; 8]; size];
    let mut into: Vec<&mut [u8]> = lengths.iter_mut().map(|length| &mut length[..]).collect();
    exchange.bytes(&vec![&length[..]; size], &mut into);
    let length = |bytes: &[u8; 8]| u64::from_le_bytes(*bytes) as usize;
    let mut texts: Vec<Vec<u8>> = lengths.iter().map(|bytes| vec![0; length(bytes)]).collect();
    let mut into: Vec<&mut [u8]> = texts.iter_mut().map(|text| &mut text[..]).collect();
    exchange.bytes(&vec![own; size], &mut into);
    texts[rank] = own.to_vec();
    texts
}

impl fmt::Debug for Ranks {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "rank {} of {}", self.rank(), self.size())
    }
}

impl GroupSum for Ranks {
    fn sum(&self, values: &mut [f64]) {
        if let Some(exchange) = &self.0 {
            let swap = |out: &[&[f64]], into: &mut [&mut [f64]]| exchange.doubles(out, into);
            sum_in_order(values, exchange.rank(), exchange.size(), swap);
        }
    }
}

impl Sum for Ranks {
    fn sum(&self, own: Vec<Tensor<1>>) -> Result<Vec<Tensor<1>>> {
        let places: Vec<_> = own.iter().map(|tensor| (tensor.dims()[0], tensor.device())).collect();
        let mut values = Vec::with_capacity(places.iter().map(|(len, _)| len).sum());
        own.into_iter().for_each(|tensor| values.extend(host(tensor.into_data())));
        self.sum_values(&mut values);
        let mut rest = &values[..];
        let tensor = |(len, device)| {
            let (values, others) = rest.split_at(len);
            rest = others;
            Tensor::from_data(TensorData::new(values.to_vec(), [len]), &device)
        };
        Ok(places.into_iter().map(tensor).collect())
    }
}

#[cfg(test)]
mod tests {
    use super::super::testing::on_ranks;
    use super::*;

    /// The sums of `f32` in the order of the ranks, in every rank, for lengths around their number.
    #[test]
    fn sums_are_added_in_the_order_of_the_ranks() {
        for size in 1..=5 {
            for len in [0, 1, 3, 4, 5, 6, 103] {
                let value = |rank: usize, i: usize| 10f32.powi(rank as i32 * 3) * (i as f32 + 0.1);
                let mut expected = vec![0.0f32; len];
                for rank in 0..size {
                    expected.iter_mut().enumerate().for_each(|(i, sum)| *sum += value(rank, i));
                }
                let sums = on_ranks(size, |ranks| {
                    let mut values: Vec<f32> = (0..len).map(|i| value(ranks.rank(), i)).collect();
                    ranks.sum_values(&mut values);
                    values
                });
                assert!(sums.iter().all(|sum| *sum == expected), "{size} ranks, {len} values");
            }
        }
    }

    #[test]
    fn one_error_is_an_error_of_all() {
        let results = on_ranks(3, |ranks| {
            let own = match ranks.rank() {
                1 => Err(Error::Unusable("no such file".into())),
                rank => Ok(rank),
            };
            ranks.agree_and_say(own, |rank| rank * 10).map_err(|error| error.to_string())
        });
        let other = Err("rank 1 on host1: no such file".to_string());
        assert_eq!(results, [other.clone(), Err("no such file".into()), other]);
        let results = on_ranks(3, |ranks| {
            ranks.agree_and_say(Ok(ranks.rank()), |rank| "x".repeat(*rank)).map_err(|_| ())
        });
        let said = vec![String::new(), "x".to_string(), "xx".to_string()];
        assert_eq!(results, [0, 1, 2].map(|rank| Ok((rank, said.clone()))));
    }
}
