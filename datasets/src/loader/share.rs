//! The share of a member of a group in every batch.

use std::ops::Range;

/// Which part of every batch a loader delivers: that of one member of a group that trains together.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Share {
    /// The member, from 0.
    pub member: usize,
    /// Members of the group.
    pub of: usize,
}

impl Default for Share {
    /// Whole batches.
    fn default() -> Self {
        Self { member: 0, of: 1 }
    }
}

impl Share {
    /// The positions of this member's images in a batch of `images`.
    pub fn range(self, images: usize) -> Range<usize> {
        parts(images, self.of).nth(self.member).unwrap_or(images..images)
    }
}

/// The parts of a batch for the members of a group, in their order and as equal as possible, the
/// larger ones first. Every part has two images at least, which batch statistics need: of a small
/// batch the last members have none. A batch of a single image is the first member's.
pub fn parts(images: usize, members: usize) -> impl Iterator<Item = Range<usize>> {
    let used = members.min(images / 2).max(1);
    let bound = move |member: usize| {
        let member = member.min(used);
        member * (images / used) + member.min(images % used)
    };
    (0..members).map(move |member| bound(member)..bound(member + 1))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{
        Augment, LoaderConfig,
        loader::testing::{Content, Fake, content, loader_with, training},
    };

    #[test]
    fn parts_are_even_and_of_two_images_at_least() {
        let sizes = |images, members| parts(images, members).map(|p| p.len()).collect::<Vec<_>>();
        assert_eq!(sizes(12, 3), [4, 4, 4]);
        assert_eq!(sizes(7, 3), [3, 2, 2]);
        assert_eq!(sizes(5, 4), [3, 2, 0, 0]);
        assert_eq!(sizes(1, 2), [1, 0]);
        assert_eq!(sizes(0, 2), [0, 0]);
        for (images, members) in (0..40).flat_map(|images| (1..7).map(move |n| (images, n))) {
            let parts: Vec<_> = parts(images, members).collect();
            assert!(parts.iter().cloned().flatten().eq(0..images), "{images}, {members}");
            for (member, part) in parts.iter().enumerate() {
                assert_eq!(Share { member, of: members }.range(images).len(), part.len());
            }
        }
    }

    /// The batches of all members, put together, are those of one loader, bit by bit: mixed with a
    /// neighbour of another member, in a small last batch, and beside images that cannot be read.
    #[test]
    fn the_parts_of_a_batch_are_the_batch() {
        let plain = Augment { pad_crop: 2, hflip: true, ..Augment::default() };
        let mixing = Augment { mixup: 1.0, cutmix: 1.0, ..Augment::default() };
        for augment in [plain, mixing] {
            for (fails, skip_unreadable) in [(None, false), (Some(9), true), (Some(15), true)] {
                let load = |share, workers| {
                    let fake = Fake { fails, ..Fake::of(19) };
                    let shuffle = fails.is_none();
                    let config =
                        LoaderConfig { share, skip_unreadable, shuffle, ..training(8, workers) };
                    content(&loader_with(augment.clone(), fake, config), 2)
                };
                let whole = load(Share::default(), 0);
                for of in 1..=5 {
                    let members: Vec<_> =
                        (0..of).map(|member| load(Share { member, of }, member % 2)).collect();
                    for (number, whole) in whole.iter().enumerate() {
                        let parts = || members.iter().map(|batches| &batches[number]);
                        let bits: Vec<u32> = parts().flat_map(|part| part.bits.clone()).collect();
                        assert!(bits == whole.bits, "batch {number} of {of} members");
                        let joined = |list: fn(&Content) -> &[usize]| {
                            parts().flat_map(|part| list(part).to_vec()).collect::<Vec<_>>()
                        };
                        assert_eq!(joined(|part| &part.labels), whole.labels);
                        assert_eq!(joined(|part| &part.indices), whole.indices);
                        let Some(mixed) = &whole.mixed else { continue };
                        let partners =
                            joined(|part| part.mixed.as_ref().map_or(&[], |mixed| &mixed.partners));
                        assert_eq!(partners, mixed.partners);
                        let shares = parts().filter_map(|part| part.mixed.as_ref());
                        assert!(shares.clone().count() > 0);
                        assert!(shares.into_iter().all(|part| part.share == mixed.share));
                    }
                }
            }
        }
    }

    #[test]
    fn a_member_reads_its_own_images() {
        for (mixup, expected) in [(0.0, 10), (1.0, 13)] {
            let fake = Fake::of(20);
            let reads = std::sync::Arc::clone(&fake.reads);
            let share = Share { member: 1, of: 2 };
            let config = LoaderConfig { share, ..training(8, 0) };
            let augment = Augment { mixup, ..Augment::default() };
            content(&loader_with(augment, fake, config), 0);
            // Mixing needs one more of each of the three batches.
            assert_eq!(reads.load(std::sync::atomic::Ordering::Relaxed), expected);
        }
    }
}
