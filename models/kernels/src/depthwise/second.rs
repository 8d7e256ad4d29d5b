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

    /// Adds an image. `mask` is 1 at the outputs and 0 between the rows.
    pub(super) fn add(
        &mut self,
        arch: Arch,
        grid: &Grid,
        image: usize,
        strips: &[f32],
        mask: &[f32],
    ) {
        match &mut self.near {
            Some(near) => near.add(arch, grid, image, strips),
            None => {
                add_pairs(arch, strips, &grid.offsets, mask, grid.positions(), &mut self.pairs);
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
    /// Sums of squares of the corners: top left, top right, bottom left, bottom right.
    corners: [f64; 4],
}

impl Autocorrelation {
    fn fits(grid: &Grid) -> bool {
        // In a tiny plane the ring is the largest part: it saves nothing and loses digits.
        [&grid.rows, &grid.cols]
            .iter()
            .all(|axis| [axis.kernel, axis.stride, axis.padding] == [3, 1, 1] && axis.size > 3)
    }

    fn new(grid: &Grid, batch: usize) -> Self {
        let pitch = grid.cols.len;
        let near = |rows: usize| (rows * pitch - 2)..=(rows * pitch + 2);
        let mut offsets = [0; 13];
        let distances = (0..=2).chain(near(1)).chain(near(2));
        offsets.iter_mut().zip(distances).for_each(|(offset, distance)| *offset = distance);
        let edge = |len: usize| vec![0.0; batch * (len + 2) + 2 * SLACK];
        let [height, width] = [grid.rows.size, grid.cols.size];
        Self {
            plane: Sums::new(13),
            offsets,
            edges: [edge(width), edge(width), edge(height), edge(height)],
            edge: Sums::new(3),
            corners: [0.0; 4],
        }
    }

    fn reset(&mut self) {
        self.plane.reset();
        self.corners = [0.0; 4];
    }

    fn add(&mut self, arch: Arch, grid: &Grid, image: usize, strips: &[f32]) {
        let (pitch, [height, width]) = (grid.cols.len, [grid.rows.size, grid.cols.size]);
        let inside = &strips[pitch..];
        add_dots(arch, inside, &self.offsets, inside, height * pitch, &mut self.plane);
        let [top, bottom, left, right] = &mut self.edges;
        let first = &inside[1..][..width];
        let last = &inside[(height - 1) * pitch + 1..][..width];
        top[image * (width + 2)..][..width].copy_from_slice(first);
        bottom[image * (width + 2)..][..width].copy_from_slice(last);
        let left = &mut left[image * (height + 2)..][..height];
        let right = &mut right[image * (height + 2)..][..height];
        for (y, (left, right)) in left.iter_mut().zip(right).enumerate() {
            *left = inside[y * pitch + 1];
            *right = inside[y * pitch + width];
        }
        let corners = [first[0], first[width - 1], last[0], last[width - 1]];
        for (sum, corner) in self.corners.iter_mut().zip(corners) {
            *sum += f64::from(corner) * f64::from(corner);
        }
    }

    fn finish(&mut self, arch: Arch, sums: &mut [f64]) {
        self.plane.flush();
        let plane = |dy: usize, dx: isize| match dy {
            0 => self.plane.total[dx.unsigned_abs()],
            _ => self.plane.total[(5 * dy).wrapping_add_signed(dx)],
        };
        let edges = self.edges.each_ref().map(|edge| {
            self.edge.reset();
            add_dots(arch, edge, &[0, 1, 2], edge, edge.len() - 2 * SLACK, &mut self.edge);
            self.edge.flush();
            [0, 1, 2].map(|distance| self.edge.total[distance])
        });
        let [top, bottom, left, right] = edges;
        let mut sums = sums.iter_mut();
        for a in 0..9 {
            for b in a..9 {
                let [ay, ax, by, bx] = [a / 3, a % 3, b / 3, b % 3];
                let (dy, dx) = (by - ay, bx as isize - ax as isize);
                let mut sum = plane(dy, dx);
                if ay == by {
                    let ring = [Some(bottom), None, Some(top)][ay];
                    sum -= ring.map_or(0.0, |edge| edge[dx.unsigned_abs()]);
                }
                if ax == bx {
                    let ring = [Some(right), None, Some(left)][ax];
                    sum -= ring.map_or(0.0, |edge| edge[dy]);
                }
                if a == b && ay != 1 && ax != 1 {
                    // Both rings hold the corner.
                    let [top, left] = [ay == 2, ax == 2];
                    sum += self.corners[usize::from(!top) * 2 + usize::from(!left)];
                }
                *sums.next().expect("45 pairs") = sum;
            }
        }
    }
}
