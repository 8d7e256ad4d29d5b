//! The results are tested with those of every convolution, in `conv::tests`.

use super::*;

fn work([images, channels, rows]: [usize; 3], side: usize) -> Work {
    let columns = Columns { size: [side; 2], grid: [side; 2], ..columns() };
    Work::new(&columns, images, channels, rows)
}

/// Whole maps of ResNet-18 in training; then, for single images, the kernels outweigh the map.
#[test]
fn it_pays_where_it_was_measured_to() {
    for (sizes, side, pays) in [
        ([64, 64, 64], 32, true),
        ([64, 256, 256], 8, true),
        ([64, 512, 512], 4, true),
        ([1, 64, 64], 56, true),
        ([64, 16, 16], 32, true),
        ([8, 512, 512], 7, false),
        ([1, 256, 256], 14, false),
        ([1, 512, 512], 7, false),
    ] {
        assert_eq!(work(sizes, side).pays(), pays, "{sizes:?} {side}");
    }
}

#[test]
fn windows_are_found_in_any_order() {
    let columns = |taps: Vec<[isize; 2]>, stride| Columns { taps, stride, ..columns() };
    let taps: Vec<_> = (0..9).map(|k| [k / 3 - 1, k % 3 - 1]).collect();
    let flipped = taps.iter().rev().copied().collect();
    assert_eq!(
        window(&columns(taps.clone(), [1, 1])),
        Some(([-1, -1], [0, 1, 2, 3, 4, 5, 6, 7, 8]))
    );
    assert_eq!(window(&columns(flipped, [1, 1])), Some(([-1, -1], [8, 7, 6, 5, 4, 3, 2, 1, 0])));
    assert_eq!(window(&columns(taps.clone(), [2, 2])), None);
    assert_eq!(window(&columns(taps[1..].to_vec(), [1, 1])), None);
    let longer = (0..9).map(|k| [0, k]).collect();
    assert_eq!(window(&columns(longer, [1, 1])), None);
}

fn columns() -> Columns<'static> {
    Columns {
        source: &[],
        start: 0,
        image_stride: 0,
        channel_stride: 0,
        size: [4; 2],
        stride: [1, 1],
        taps: Vec::new(),
        grid: [4; 2],
    }
}
