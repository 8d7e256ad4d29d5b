//! The classes of ImageNet (ILSVRC 2012), in the order of the outputs of networks trained on it.

use std::sync::LazyLock;

/// Number of classes.
pub const CLASSES: usize = 1000;

/// Synset id and name by output; `data/README.md` says where they come from.
static TABLE: LazyLock<Vec<(&str, &str)>> = LazyLock::new(|| {
    let lines = include_str!("../data/imagenet_classes.tsv").lines();
    lines.filter_map(|line| line.split_once('\t')).collect()
});

/// WordNet synset ids such as `n01440764`, the names of ImageNet's class folders; sorted.
pub fn synsets() -> impl ExactSizeIterator<Item = &'static str> {
    TABLE.iter().map(|(synset, _)| *synset)
}

/// The English name of a synset of ImageNet: `tench` for `n01440764`.
pub fn name(synset: &str) -> Option<&'static str> {
    let found = TABLE.binary_search_by_key(&synset, |(synset, _)| synset);
    found.ok().map(|index| TABLE[index].1)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_table_is_that_of_imagenet() {
        let synsets: Vec<_> = synsets().collect();
        assert_eq!(synsets.len(), CLASSES);
        assert!(synsets.is_sorted_by(|a, b| a < b));
        // The ten classes of Imagenette and their outputs in torchvision's networks.
        for (index, synset, expected) in [
            (0, "n01440764", "tench"),
            (217, "n02102040", "English springer"),
            (482, "n02979186", "cassette player"),
            (491, "n03000684", "chain saw"),
            (497, "n03028079", "church"),
            (566, "n03394916", "French horn"),
            (569, "n03417042", "garbage truck"),
            (571, "n03425413", "gas pump"),
            (574, "n03445777", "golf ball"),
            (701, "n03888257", "parachute"),
            (999, "n15075141", "toilet tissue"),
        ] {
            assert_eq!((synsets[index], name(synset)), (synset, Some(expected)));
        }
        assert_eq!(name("n00000000"), None);
    }
}
