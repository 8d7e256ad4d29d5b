//! Makes the bundled sample from the complete Fashion-MNIST.
//!
//! ```text
//! cargo run --release -p dbb-datasets --example make_sample -- FASHION_MNIST_FOLDER OUTPUT_FOLDER
//! ```
//!
//! The first 1,000 training and 200 test images of each class, in the order of the original files.

use std::{error::Error, fs::File, io::Write, path::Path};

use dbb_datasets::{DataRef, ImageDataset, Layout, Split, open};
use flate2::{Compression, GzBuilder};

fn main() -> Result<(), Box<dyn Error>> {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let [input, output] = arguments.as_slice() else {
        return Err("usage: make_sample FASHION_MNIST_FOLDER OUTPUT_FOLDER".into());
    };
    let output = Path::new(output);
    let original = DataRef::Folder { layout: Some(Layout::Idx), path: input.into() };
    std::fs::create_dir_all(output)?;
    for (split, stem, per_class) in [(Split::Train, "train", 1000), (Split::Val, "t10k", 200)] {
        let data = open(&original, split)?;
        let chosen = data.limit(per_class * data.classes().len());
        let (images, labels) = idx(&chosen)?;
        write(&output.join(format!("{stem}-images-idx3-ubyte.gz")), &images)?;
        write(&output.join(format!("{stem}-labels-idx1-ubyte.gz")), &labels)?;
    }
    Ok(())
}

/// The bytes of an images and of a labels file.
fn idx(data: &ImageDataset) -> Result<(Vec<u8>, Vec<u8>), Box<dyn Error>> {
    let (height, width) = data.image_size().ok_or("images of various sizes")?;
    let mut images = header(0x0803, &[data.len(), height, width])?;
    let mut labels = header(0x0801, &[data.len()])?;
    for index in 0..data.len() {
        let sample = data.get(index)?;
        images.extend_from_slice(sample.image.pixels());
        labels.push(sample.label.try_into()?);
    }
    Ok((images, labels))
}

fn header(magic: u32, sizes: &[usize]) -> Result<Vec<u8>, Box<dyn Error>> {
    let mut bytes = magic.to_be_bytes().to_vec();
    for size in sizes {
        bytes.extend(u32::try_from(*size)?.to_be_bytes());
    }
    Ok(bytes)
}

fn write(path: &Path, bytes: &[u8]) -> Result<(), Box<dyn Error>> {
    let file = File::create(path).map_err(|e| format!("{}: {e}", path.display()))?;
    // No name and no time in the header: the same input gives the same file.
    let mut gz = GzBuilder::new().mtime(0).write(file, Compression::best());
    gz.write_all(bytes)?;
    gz.finish()?;
    Ok(())
}
