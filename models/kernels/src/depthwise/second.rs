//! Second moments of the values under a kernel.

use pulp::Arch;

use super::grid::{Axis, Grid, SLACK};
use super::sums::{Sums, add_dots, add_pairs};

/// Sums, over the outputs of a channel, of the products of the values under each pair of taps,
/// and the sum of the squares of its inputs.
pub(super) struct SecondSums {
    pairs: Sums,
    squares: Sums,
    /// Taps that together read every input once, if there are such.
    cover: Option<Vec<usize>>,
    /// Of a 3x3 kernel of stride 1.
    near: Option<Autocorrelation>,
}

impl SecondSums {
    /// For a batch of as many strips.
    pub(super) fn new(grid: &Grid, batch: usize) -> Self {
        let taps = grid.taps();
        let near = Autocorrelation::fits(grid).then(|| Autocorrelation::new(grid, batch));
        Self {
            pairs: Sums::new(taps * (taps + 1) / 2),
            squares: Sums::new(1),
            cover: cover(grid),
            near,
        }
    }

    pub(super) fn reset(&mut self) {
        match &mut self.near {
            Some(near) => near.reset(),
            None => self.pairs.reset(),
        }
        self.squares.reset();
    }

    /// Adds the strips of a batch with this index. `mask` is 1 at the outputs and 0 between the rows.
    pub(super) fn add(
        &mut self,
        arch: Arch,
        grid: &Grid,
        index: usize,
        strips: &[f32],
        mask: &[f32],
    ) {
        match &mut self.near {
            Some(near) => near.add(arch, grid, index, strips),
            None => {
                add_pairs(arch, strips, &grid.offsets, mask, grid.sweep(), &mut self.pairs);
            }
        }
        if self.cover.is_none() {
            add_dots(arch, strips, &[0], strips, grid.strips_len(), &mut self.squares);
        }
    }

    /// Writes the sums for `a <= b`, in the order `(0, 0), (0, 1) .. (1, 1), (1, 2) ..`, and
    /// returns the sum of the squares.
    pub(super) fn finish(&mut self, arch: Arch, grid: &Grid, sums: &mut [f64]) -> f64 {
        match &mut self.near {
            Some(near) => near.finish(arch, sums),
            None => {
                self.pairs.flush();
                sums.copy_from_slice(&self.pairs.total);
            }
        }
        let diagonal = |tap: usize| sums[tap * (2 * grid.taps() + 1 - tap) / 2];
        match &self.cover {
            Some(taps) => taps.iter().map(|&tap| diagonal(tap)).sum(),
            None => {
                self.squares.flush();
                self.squares.total[0]
            }
        }
    }
}

/// The taps `padding .. padding + stride` of both axes read every input once, unless the kernel or
/// the output ends before.
fn cover(grid: &Grid) -> Option<Vec<usize>> {
    let fits = |axis: &Axis| {
        axis.padding + axis.stride <= axis.kernel && axis.output * axis.stride >= axis.size
    };
    let taps = |axis: &Axis| axis.padding..axis.padding + axis.stride;
    (fits(&grid.rows) && fits(&grid.cols)).then(|| {
        let rows = taps(&grid.rows);
        rows.flat_map(|y| taps(&grid.cols).map(move |x| y * grid.cols.kernel + x)).collect()
    })
}

/// The pair sums of a 3x3 kernel of stride 1 and padding 1 from 13 sums instead of 45.
///
/// If the kernel were applied at all positions where it touches the image, one ring more than there
/// are outputs, the sum for the taps `a` and `b` would be the autocorrelation of the zero-extended
/// plane at the distance `b - a`. Along the upper edge of the ring the kernel reads only the first
/// row, so the sums there are autocorrelations of that row; the other edges are alike, and at each
/// corner of the ring the kernel reads one value. The contribution of the ring is subtracted.
struct Autocorrelation {
    plane: Sums,
    offsets: [usize; 13],
    /// The first and last row and the first and last column of all images, with gaps of two zeros.
    edges: [Vec<f32>; 4],
    edge: Sums,
    /// Of [`Grid`].
    images: usize,
    /// Sums of squares of the corners: top left, top right, bottom left, bottom right.
    corners: [f64; 4],
    /// What the sum of each pair is made of.
    terms: Vec<Terms>,
}

/// The sum of a pair: that of the plane less those of two edges, plus that of the corner that both hold. Places in
/// the list of all sums: plane, edges, corners, zero.
struct Terms {
    plane: usize,
    edges: [usize; 2],
    corner: usize,
}

const EDGES: usize = 13;
const CORNERS: usize = EDGES + 4 * 3;
const ZERO: usize = CORNERS + 4;

impl Autocorrelation {
    fn fits(grid: &Grid) -> bool {
        // In a tiny plane the ring is the largest part: it saves nothing and loses digits.
        [&grid.rows, &grid.cols]
            .iter()
            .all(|axis| [axis.kernel, axis.stride, axis.padding] == [3, 1, 1] && axis.size > 3)
    }

    fn new(grid: &Grid, batch: usize) -> Self {
        let columns = grid.cols.len;
        let near = |rows: usize| (rows * columns - 2)..=(rows * columns + 2);
        let mut offsets = [0; 13];
        let distances =
            (0..=2).chain(near(1)).chain(near(2)).map(|distance| distance * grid.images);
        offsets.iter_mut().zip(distances).for_each(|(offset, distance)| *offset = distance);
        let edge = |len: usize| vec![0.0; (batch * (len + 2) + 2) * grid.images + SLACK];
        let [height, width] = [grid.rows.size, grid.cols.size];
        Self {
            plane: Sums::new(13),
            offsets,
            edges: [edge(width), edge(width), edge(height), edge(height)],
            edge: Sums::new(3),
            images: grid.images,
            corners: [0.0; 4],
            terms: (0..9).flat_map(|a| (a..9).map(move |b| Terms::new(a, b))).collect(),
        }
    }

    fn reset(&mut self) {
        self.plane.reset();
        self.corners = [0.0; 4];
    }

    fn add(&mut self, arch: Arch, grid: &Grid, index: usize, strips: &[f32]) {
        let (pitch, images) = (grid.pitch(), self.images);
        let [height, width] = [grid.rows.size, grid.cols.size];
        let inside = &strips[pitch..];
        add_dots(arch, inside, &self.offsets, inside, height * pitch, &mut self.plane);
        let [top, bottom, left, right] = &mut self.edges;
        let row = |y: usize| &inside[y * pitch + images..][..width * images];
        let [first, last] = [row(0), row(height - 1)];
        let start = index * (width + 2) * images;
        top[start..start + first.len()].copy_from_slice(first);
        bottom[start..start + last.len()].copy_from_slice(last);
        let start = index * (height + 2) * images;
        let ends =
            left[start..].chunks_exact_mut(images).zip(right[start..].chunks_exact_mut(images));
        for (y, (left, right)) in ends.take(height).enumerate() {
            left.copy_from_slice(&row(y)[..images]);
            right.copy_from_slice(&row(y)[(width - 1) * images..]);
        }
        let corners = [first, last].map(|row| [&row[..images], &row[(width - 1) * images..]]);
        for (sum, corner) in self.corners.iter_mut().zip(corners.as_flattened()) {
            *sum += corner.iter().map(|&v| f64::from(v) * f64::from(v)).sum::<f64>();
        }
    }

    fn finish(&mut self, arch: Arch, sums: &mut [f64]) {
        let mut all = [0.0; ZERO + 1];
        self.plane.flush();
        all[..EDGES].copy_from_slice(&self.plane.total);
        for (edge, sums) in self.edges.iter().zip(all[EDGES..].chunks_exact_mut(3)) {
            self.edge.reset();
            let offsets = [0, 1, 2].map(|distance| distance * self.images);
            let len = edge.len() - 2 * self.images - SLACK;
            add_dots(arch, edge, &offsets, edge, len, &mut self.edge);
            self.edge.flush();
            sums.copy_from_slice(&self.edge.total);
        }
        all[CORNERS..ZERO].copy_from_slice(&self.corners);
        for (sum, terms) in sums.iter_mut().zip(&self.terms) {
            let [row, column] = terms.edges.map(|edge| all[edge]);
            *sum = all[terms.plane] - row - column + all[terms.corner];
        }
    }
}

impl Terms {
    /// Of the taps `a <= b`.
    fn new(a: usize, b: usize) -> Self {
        let [top, bottom, left, right] = [0, 1, 2, 3].map(|edge| EDGES + 3 * edge);
        let [ay, ax, by, bx] = [a / 3, a % 3, b / 3, b % 3];
        let (dy, dx) = (by - ay, bx as isize - ax as isize);
        let ring = |same: bool, edges: [Option<usize>; 3], tap: usize, distance: usize| {
            edges[tap].filter(|_| same).map_or(ZERO, |edge| edge + distance)
        };
        let corner = a == b && ay != 1 && ax != 1;
        Self {
            plane: match dy {
                0 => dx.unsigned_abs(),
                _ => (5 * dy).wrapping_add_signed(dx),
            },
            edges: [
                ring(ay == by, [Some(bottom), None, Some(top)], ay, dx.unsigned_abs()),
                ring(ax == bx, [Some(right), None, Some(left)], ax, dy),
            ],
            corner: if corner {
                CORNERS + 2 * usize::from(ay == 0) + usize::from(ax == 0)
            } else {
                ZERO
            },
        }
    }
}
