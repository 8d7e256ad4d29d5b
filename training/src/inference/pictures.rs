//! Images as a network gets them, as small pictures.

use dbb_datasets::{Batch, ImageDataset, Preprocess, Thumbnail};

/// Pixels of the longer side.
const LONGEST: usize = 128;

/// An image of a data set.
#[derive(Clone, Debug)]
pub struct Picture {
    /// It; `None` if it cannot be read any more.
    pub thumbnail: Option<Thumbnail>,
    /// Its file, where images are files.
    pub file: Option<String>,
}

/// The pictures that a network gets of images of a data set, by their indices.
pub fn of_images(
    dataset: &ImageDataset,
    preprocess: &Preprocess,
    indices: impl IntoIterator<Item = usize>,
) -> Vec<Picture> {
    let picture = |index: usize| {
        let input = dataset.get(index).and_then(|sample| preprocess.apply(&sample.image));
        Picture {
            thumbnail: input.ok().map(|input| preprocess.picture(&input).thumbnail(LONGEST)),
            file: dataset.file(index).map(|path| path.display().to_string()),
        }
    };
    indices.into_iter().map(picture).collect()
}

/// The first `most` images of a batch, augmented as they are, with the names of their classes.
pub fn of_batch(
    batch: &Batch,
    preprocess: &Preprocess,
    labels: &[String],
    most: usize,
) -> Vec<(Thumbnail, String)> {
    let [_, channels, height, width] = batch.shape;
    let name = |class: usize| labels.get(class).map_or("", String::as_str);
    let inputs = batch.images.chunks_exact(channels * height * width).take(most);
    let caption = |i: usize| match &batch.mixed {
        None => name(batch.labels[i]).to_string(),
        Some(mixed) => {
            let own = 100.0 * mixed.share;
            let [label, partner] = [batch.labels[i], mixed.partners[i]].map(name);
            format!("{own:.0} % {label}, {:.0} % {partner}", 100.0 - own)
        }
    };
    let picture = |(i, input)| (preprocess.picture(input).thumbnail(LONGEST), caption(i));
    inputs.enumerate().map(picture).collect()
}

#[cfg(test)]
mod tests {
    use dbb_datasets::{DataRef, Image, Loader, LoaderConfig, Pipeline, Split, open};

    use super::*;

    #[test]
    fn pictures_are_the_images_and_say_what_was_mixed() {
        let dataset = open(&DataRef::Sample, Split::Val).unwrap().limit(40);
        let preprocess = Preprocess::of(&dataset);
        let read = |thumbnail: &Thumbnail| Image::from_bytes(&thumbnail.bytes, "t").unwrap();
        let own = dataset.get(7).unwrap().image;
        let pictures = of_images(&dataset, &preprocess, [7, 3]);
        let seven = read(pictures[0].thumbnail.as_ref().unwrap());
        for (y, x) in [(0, 0), (14, 14), (20, 9)] {
            assert_eq!(seven.pixel(y, x)[0], own.pixel(y, x)[0]);
        }
        assert_eq!((pictures.len(), &pictures[0].file), (2, &None));

        let labels: Vec<String> = dataset.classes().to_vec();
        let pipeline = Pipeline::eval(preprocess.clone()).unwrap();
        let loader =
            Loader::new(dataset.clone().into(), LoaderConfig::default(), pipeline).unwrap();
        let mut batch = loader.batch(0, 0).unwrap();
        let shown = of_batch(&batch, &preprocess, &labels, 9);
        assert_eq!((shown.len(), &shown[3].1), (9, &labels[dataset.label(3)]));
        assert_eq!(read(&shown[7].0), seven);
        let partners = vec![0; batch.len()];
        batch.mixed = Some(dbb_datasets::Mixed { partners, share: 0.25 });
        let mixed = &of_batch(&batch, &preprocess, &labels, 1)[0].1;
        assert_eq!(*mixed, format!("25 % {}, 75 % {}", labels[batch.labels[0]], labels[0]));
    }
}
