//! Random streams that depend on their purpose, not on the order of draws.

use rand::{SeedableRng, rngs::ChaCha8Rng};

/// The purpose of a stream, which keeps streams of equal numbers apart.
#[derive(Debug, Clone, Copy)]
pub(crate) enum Purpose {
    /// The order of an epoch.
    Shuffle,
    /// The augmentation of one sample in one epoch.
    Augment,
    /// The mixing of one batch in one epoch.
    Mix,
    /// The samples of one class that a split sets apart.
    Split,
}

/// The stream of one purpose, seed, epoch and sample or batch.
pub(crate) fn stream(purpose: Purpose, seed: u64, epoch: u64, index: u64) -> ChaCha8Rng {
    let tag: [u8; 8] = match purpose {
        Purpose::Split => *b"split\0\0\0",
        Purpose::Shuffle => *b"shuffle\0",
        Purpose::Augment => *b"augment\0",
        Purpose::Mix => *b"mix\0\0\0\0\0",
    };
    let parts = [tag, seed.to_le_bytes(), epoch.to_le_bytes(), index.to_le_bytes()];
    let mut key = [0; 32];
    key.copy_from_slice(parts.as_flattened());
    ChaCha8Rng::from_seed(key)
}

#[cfg(test)]
mod tests {
    use rand::Rng;

    use super::*;

    #[test]
    fn every_number_makes_its_own_stream() {
        let mut firsts: Vec<u64> = [
            stream(Purpose::Shuffle, 1, 2, 3),
            stream(Purpose::Augment, 1, 2, 3),
            stream(Purpose::Mix, 1, 2, 3),
            stream(Purpose::Augment, 2, 1, 3),
            stream(Purpose::Augment, 1, 3, 2),
            stream(Purpose::Augment, 3, 2, 1),
        ]
        .iter_mut()
        .map(|rng| rng.next_u64())
        .collect();
        firsts.sort_unstable();
        firsts.dedup();
        assert_eq!(firsts.len(), 6);
    }

    #[test]
    fn the_same_numbers_make_the_same_stream() {
        // ChaCha with 8 rounds, its key the tag and the three numbers, computed elsewhere: runs of
        // today can be repeated after an update.
        let first = stream(Purpose::Shuffle, 7, 8, 9).next_u64();
        assert_eq!(first, 0x3ddb6f77169d753d);
    }
}
