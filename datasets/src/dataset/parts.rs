//! Subsets of a data set, and the same images with other classes.

use std::sync::Arc;

use rand::seq::SliceRandom;

use super::ImageDataset;
use crate::{
    DataError,
    rng::{Purpose, stream},
};

impl ImageDataset {
    /// The same images with other classes: `labels` gives, for every class so far, its index in
    /// `classes`. Several classes may become one, and `classes` may have some without images.
    ///
    /// # Errors
    ///
    /// [`DataError::Setting`] unless `labels` has one entry per class, each below the number of
    /// `classes`.
    pub fn relabel(&self, classes: Vec<String>, labels: &[usize]) -> Result<Self, DataError> {
        if labels.len() != self.classes.len() || labels.iter().any(|new| *new >= classes.len()) {
            let (old, new) = (self.classes.len(), classes.len());
            let expected = format!("{old} labels below {new}");
            return Err(DataError::setting("dataset.labels", labels, expected));
        }
        let class_of = self.class_of.iter().map(|&class| labels[class]).collect();
        let classes: Arc<[String]> = classes.into();
        Ok(Self { identity: classes.clone(), classes, class_of, ..self.clone() })
    }

    /// The same data set with names for classes that are numbers in its files.
    pub(crate) fn named(self, names: &[&str]) -> Self {
        debug_assert_eq!(names.len(), self.classes.len());
        Self { classes: names.iter().map(|&name| name.to_owned()).collect(), ..self }
    }

    /// A class-balanced subset of at most `n` samples, always the same one.
    ///
    /// Classes take turns to give their next sample until `n` are chosen; the chosen ones keep
    /// their order. `n >= len()` keeps all, 0 leaves none.
    pub fn limit(&self, n: usize) -> Self {
        let by_class = self.by_class();
        let most = by_class.iter().map(Vec::len).max().unwrap_or(0);
        let mut selection: Vec<usize> = (0..most)
            .flat_map(|turn| by_class.iter().filter_map(move |class| class.get(turn)))
            .take(n)
            .copied()
            .collect();
        selection.sort_unstable();
        Self { selection: selection.into(), ..self.clone() }
    }

    /// Two parts: the second has `share` of each class, rounded, drawn by `seed`; the first has the
    /// rest, at least one image of every class. Both keep their order.
    ///
    /// # Errors
    ///
    /// [`DataError::Setting`] unless `share` lies between 0 and 1, or if it leaves a part empty.
    pub fn split(&self, share: f64, seed: u64) -> Result<(Self, Self), DataError> {
        if !(share > 0.0 && share < 1.0) {
            return Err(DataError::setting("share", share, "above 0 and below 1"));
        }
        let (mut first, mut second) = (Vec::new(), Vec::new());
        for (class, mut of_class) in self.by_class().into_iter().enumerate() {
            of_class.shuffle(&mut stream(Purpose::Split, seed, 0, class as u64));
            let apart = (of_class.len() as f64 * share).round() as usize;
            let apart = apart.min(of_class.len().saturating_sub(1));
            second.extend(of_class.drain(..apart));
            first.append(&mut of_class);
        }
        if second.is_empty() {
            let expected = format!("a share of {} images of at least one image", self.len());
            return Err(DataError::setting("share", share, expected));
        }
        let part = |mut selection: Vec<usize>, name: &str| {
            selection.sort_unstable();
            Self {
                name: format!("{}, {name}", self.name),
                selection: selection.into(),
                ..self.clone()
            }
        };
        let percent = share * 100.0;
        Ok((part(first, "the rest"), part(second, &format!("{percent:.0}% set apart"))))
    }

    /// Positions in the source of the samples of each class, in order.
    fn by_class(&self) -> Vec<Vec<usize>> {
        let mut by_class = vec![Vec::new(); self.classes.len()];
        for &at in self.selection.iter() {
            by_class[self.class(at)].push(at);
        }
        by_class
    }
}

#[cfg(test)]
mod tests {
    use super::super::tests::dataset;
    use super::*;

    fn values(dataset: &ImageDataset) -> Vec<u8> {
        (0..dataset.len()).map(|i| dataset.get(i).unwrap().image.pixels()[0]).collect()
    }

    #[test]
    fn a_limit_takes_the_first_of_each_class_in_turn() {
        let all = dataset(&[0, 0, 0, 0, 1, 1, 1, 2]);
        // Turns: a0 b4 c7, a1 b5, a2 b6, a3.
        assert_eq!(values(&all.limit(4)), [0, 1, 4, 7]);
        assert_eq!(values(&all.limit(6)), [0, 1, 2, 4, 5, 7]);
        assert_eq!(values(&all.limit(99)), values(&all));
        assert_eq!(values(&all.limit(6).limit(4)), [0, 1, 4, 7]);
        assert_eq!(all.limit(4).label(3), 2);
        assert!(all.limit(0).is_empty());
    }

    #[test]
    fn a_relabelled_set_has_other_classes_and_the_same_images() {
        let names = |names: [&str; 4]| names.map(str::to_owned).to_vec();
        let all = dataset(&[0, 1, 2, 0]);
        let new = all.relabel(names(["w", "x", "y", "z"]), &[3, 1, 3]).unwrap();
        let labels = |data: &ImageDataset| (0..4).map(|i| data.label(i)).collect::<Vec<_>>();
        assert_eq!(labels(&new), [3, 1, 3, 3]);
        assert_eq!(values(&new), values(&all));
        assert_eq!(new.get(2).unwrap().label, 3);
        // One of each class that has images.
        assert_eq!(values(&new.limit(2)), [0, 1]);
        let again = new.relabel(names(["a", "b", "c", "d"]), &[0, 2, 0, 1]).unwrap();
        assert_eq!(labels(&again), [1, 2, 1, 1]);
        assert_ne!(new.fingerprint(), again.fingerprint());
        assert!(all.relabel(names(["w", "x", "y", "z"]), &[0, 1, 4]).is_err());
        assert!(all.relabel(names(["w", "x", "y", "z"]), &[0, 1]).is_err());
    }

    #[test]
    fn a_split_takes_its_share_of_every_class_and_loses_nothing() {
        let all = dataset(&[0, 1, 0, 1, 0, 1, 0, 1, 0, 1, 2]);
        let (rest, apart) = all.split(0.4, 7).unwrap();
        let labels = |dataset: &ImageDataset| -> Vec<usize> {
            let mut labels: Vec<usize> = (0..dataset.len()).map(|i| dataset.label(i)).collect();
            labels.sort_unstable();
            labels
        };
        // Two of five; the only one of its class is trained on.
        assert_eq!(labels(&apart), [0, 0, 1, 1]);
        assert_eq!(labels(&rest), [0, 0, 0, 1, 1, 1, 2]);
        let mut both = [values(&rest), values(&apart)].concat();
        both.sort_unstable();
        assert_eq!(both, values(&all));
        assert_eq!(values(&all.split(0.4, 7).unwrap().1), values(&apart));
        assert!((8..20).any(|seed| values(&all.split(0.4, seed).unwrap().1) != values(&apart)));
        for share in [0.0, 1.0, f64::NAN, 0.01] {
            assert!(all.split(share, 0).is_err(), "{share}");
        }
    }
}
