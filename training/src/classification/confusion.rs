//! Labels against predictions.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

/// How many images of each class are taken for each class. Only pairs that occur are stored, so that a
/// thousand classes take no million counts.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(from = "Vec<[usize; 3]>", into = "Vec<[usize; 3]>")]
pub struct Confusion {
    /// Images by label and prediction.
    counts: BTreeMap<[usize; 2], usize>,
}

/// The images of a class, and those taken for it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct ClassCounts {
    /// The class: its output of the network.
    pub class: usize,
    /// Images with this label.
    pub support: usize,
    /// Images with this prediction.
    pub predicted: usize,
    /// Images with both.
    pub correct: usize,
}

/// Images of one class that are taken for another.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Pair {
    /// Their class.
    pub label: usize,
    /// The class that they are taken for.
    pub prediction: usize,
    /// How many.
    pub images: usize,
}

impl Confusion {
    pub(super) fn add(&mut self, label: usize, prediction: usize) {
        *self.counts.entry([label, prediction]).or_default() += 1;
    }

    pub(super) fn join(&mut self, other: &Self) {
        for (pair, images) in &other.counts {
            *self.counts.entry(*pair).or_default() += images;
        }
    }

    /// Images counted.
    pub fn images(&self) -> usize {
        self.counts.values().sum()
    }

    /// Images of a label with a prediction.
    pub fn count(&self, label: usize, prediction: usize) -> usize {
        self.counts.get(&[label, prediction]).copied().unwrap_or(0)
    }

    /// Label, prediction and number of images of every pair that occurs, in order.
    pub fn counts(&self) -> impl Iterator<Item = [usize; 3]> {
        self.counts.iter().map(|(&[label, prediction], &images)| [label, prediction, images])
    }

    /// Every class that occurs as a label or a prediction, in order.
    pub fn classes(&self) -> Vec<ClassCounts> {
        let mut classes = BTreeMap::<usize, ClassCounts>::new();
        let mut of = |class: usize, change: &dyn Fn(&mut ClassCounts)| {
            change(classes.entry(class).or_insert(ClassCounts { class, ..Default::default() }));
        };
        for [label, prediction, images] in self.counts() {
            of(label, &|class| class.support += images);
            of(prediction, &|class| class.predicted += images);
            if label == prediction {
                of(label, &|class| class.correct += images);
            }
        }
        classes.into_values().collect()
    }

    /// The pairs that are confused most often, the most frequent first, equal ones in order.
    pub fn most_confused(&self, most: usize) -> Vec<Pair> {
        let wrong = self.counts().filter(|[label, prediction, _]| label != prediction);
        let mut pairs: Vec<_> =
            wrong.map(|[label, prediction, images]| Pair { label, prediction, images }).collect();
        pairs.sort_by_key(|pair| std::cmp::Reverse(pair.images));
        pairs.truncate(most);
        pairs
    }
}

impl ClassCounts {
    /// Share of the images of this class that are found, percent; `None` without any.
    pub fn recall(&self) -> Option<f64> {
        percent(self.correct, self.support)
    }

    /// Share of the images taken for this class that are of it, percent; `None` without any.
    pub fn precision(&self) -> Option<f64> {
        percent(self.correct, self.predicted)
    }
}

fn percent(part: usize, whole: usize) -> Option<f64> {
    (whole > 0).then(|| 100.0 * part as f64 / whole as f64)
}

impl From<Vec<[usize; 3]>> for Confusion {
    fn from(counts: Vec<[usize; 3]>) -> Self {
        let pairs = counts.into_iter().map(|[label, prediction, n]| ([label, prediction], n));
        Self { counts: pairs.collect() }
    }
}

impl From<Confusion> for Vec<[usize; 3]> {
    fn from(confusion: Confusion) -> Self {
        confusion.counts().collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Two of three images of class 0 found, one taken for 4; the image of 1 taken for 0.
    #[test]
    fn precision_and_recall_are_those_of_the_table() {
        let mut confusion = Confusion::default();
        for (label, prediction) in [(0, 0), (0, 4), (1, 0), (0, 0)] {
            confusion.add(label, prediction);
        }
        assert_eq!(confusion.images(), 4);
        let [zero, one, four] = confusion.classes()[..] else { panic!("three classes") };
        assert_eq!(zero, ClassCounts { class: 0, support: 3, predicted: 3, correct: 2 });
        assert_eq!((zero.recall(), zero.precision()), (Some(200.0 / 3.0), Some(200.0 / 3.0)));
        assert_eq!((one.recall(), one.precision()), (Some(0.0), None));
        assert_eq!((four.recall(), four.precision()), (None, Some(0.0)));
    }

    #[test]
    fn frequent_pairs_come_first() {
        let mut confusion = Confusion::default();
        let pairs = [(1, 0), (0, 1), (2, 1), (2, 1), (2, 2), (2, 2), (2, 2)];
        pairs.into_iter().for_each(|(label, prediction)| confusion.add(label, prediction));
        let pair = |label, prediction, images| Pair { label, prediction, images };
        assert_eq!(confusion.most_confused(2), [pair(2, 1, 2), pair(0, 1, 1)]);
        assert_eq!(confusion.most_confused(9).len(), 3);
    }
}
