//! How one channel of an image is laid out for the kernels.
//!
//! A plane is copied into *strips*: zero-padded and split by the phase of its rows and columns
//! modulo the stride. Under a kernel tap, neighbouring outputs then read neighbouring values,
//! whatever the stride, and a whole plane is one long sweep: the value under tap `t` at the flat
//! position `q` is `strips[offsets[t] + q]`. The cost is a few unused positions at the end of each
//! row.
//!
//! Rows that are shorter than a vector would leave most of it unused, and taps would read across cache lines. There
//! the images of a batch are *interleaved*: at each position lie the values of [`INTERLEAVED`] images.

use std::ops::Range;

use crate::shape::{Geometry, LARGEST_PLANE};

/// Values that may be read or written past the last position: the widest vector.
pub(super) const SLACK: usize = crate::simd::WIDEST;

/// Images that are interleaved, a whole vector at each position.
pub(super) const INTERLEAVED: usize = crate::simd::WIDEST;

/// Neighbouring outputs whose windows have the same taps inside the input.
#[derive(Clone, Debug)]
pub(super) struct Class {
    /// The outputs.
    pub outputs: Range<usize>,
    /// The taps that fall inside the input.
    pub taps: Range<usize>,
}

/// The geometry along height or width.
#[derive(Clone, Debug)]
pub(super) struct Axis {
    pub size: usize,
    pub kernel: usize,
    pub stride: usize,
    pub padding: usize,
    pub output: usize,
    /// Steps between the first and the last strip position that a kernel reads.
    pub reach: usize,
    /// Length of a strip.
    pub len: usize,
    pub classes: Vec<Class>,
}

impl Axis {
    fn new(shape: &Geometry, axis: usize, images: usize) -> Self {
        let (size, kernel) = (shape.input[axis], shape.kernel[axis]);
        let (stride, padding) = (shape.stride[axis], shape.padding[axis]);
        let output = shape.output()[axis];
        let reach = (kernel - 1) / stride;
        let taps = |o: usize| {
            let first = padding.saturating_sub(o * stride).min(kernel);
            let end = (size + padding).saturating_sub(o * stride).min(kernel);
            first..end.max(first)
        };
        let mut classes: Vec<Class> = Vec::new();
        for o in 0..output {
            match classes.last_mut() {
                Some(last) if last.taps == taps(o) => last.outputs.end = o + 1,
                _ => classes.push(Class { outputs: o..o + 1, taps: taps(o) }),
            }
        }
        let len = (output + reach).max((size + padding).div_ceil(stride));
        // Rows are rounded up to whole cache lines if that adds little.
        let lines = len.next_multiple_of(SLACK);
        let round = axis == 1 && images == 1 && lines <= len + len / 9;
        let len = if round { lines } else { len };
        Self { size, kernel, stride, padding, output, reach, len, classes }
    }
}

/// The geometry of one channel.
#[derive(Clone, Debug)]
pub(super) struct Grid {
    pub rows: Axis,
    pub cols: Axis,
    /// Images at each position, 1 or [`INTERLEAVED`]. All lengths and places in strips count values.
    pub images: usize,
    /// Where tap `t` of position 0 lies in the strips.
    pub offsets: Vec<usize>,
    /// Share of the outputs that each pair of a row and a column class has.
    pub shares: Vec<f64>,
    /// `inside[tap * classes + class]`: 1 where the tap falls inside the input, else 0.
    pub inside: Vec<f64>,
    /// Unused values before the strips, so that at stride 1 the rows of the image start at a cache
    /// line: a vector that crosses two lines costs twice as much.
    pub lead: usize,
    /// Where input `[y, 0]` lies in the strips, less `col_starts[0]`.
    row_starts: Vec<usize>,
    col_starts: Vec<usize>,
    /// Where the values of a plane of the input and of the output lie in their strips, if images are
    /// interleaved.
    pub places: [Vec<usize>; 2],
}

impl Grid {
    /// Strips of one image each.
    pub(super) fn new(shape: &Geometry) -> Self {
        Self::of_images(shape, 1)
    }

    /// Strips of [`INTERLEAVED`] images each.
    pub(super) fn interleaved(shape: &Geometry) -> Self {
        Self::of_images(shape, INTERLEAVED)
    }

    fn of_images(shape: &Geometry, images: usize) -> Self {
        assert!(
            [shape.in_channels, shape.groups] == [shape.out_channels; 2],
            "a depthwise convolution has as many groups and inputs as outputs"
        );
        let (rows, cols) = (Axis::new(shape, 0, images), Axis::new(shape, 1, images));
        let pitch = cols.len * images;
        let plane = (rows.len * pitch).next_multiple_of(SLACK) + SLACK;
        let strips = (rows.stride * cols.stride).saturating_mul(plane);
        assert!(
            strips <= LARGEST_PLANE,
            "the padding is too large for a depthwise stride: {shape:?}"
        );
        let mut offsets = Vec::with_capacity(rows.kernel * cols.kernel);
        for ty in 0..rows.kernel {
            for tx in 0..cols.kernel {
                let phase = ty % rows.stride * cols.stride + tx % cols.stride;
                offsets.push(phase * plane + ty / rows.stride * pitch + tx / cols.stride * images);
            }
        }
        let outputs = (rows.output * cols.output) as f64;
        let mut shares = Vec::with_capacity(rows.classes.len() * cols.classes.len());
        for row in &rows.classes {
            for col in &cols.classes {
                shares.push((row.outputs.len() * col.outputs.len()) as f64 / outputs);
            }
        }
        let mut inside = Vec::with_capacity(offsets.len() * shares.len());
        for ty in 0..rows.kernel {
            for tx in 0..cols.kernel {
                for row in &rows.classes {
                    for col in &cols.classes {
                        let hit = row.taps.contains(&ty) && col.taps.contains(&tx);
                        inside.push(f64::from(u8::from(hit)));
                    }
                }
            }
        }
        let starts = |axis: &Axis, phase: usize, step: usize| -> Vec<usize> {
            let padded = axis.padding..axis.padding + axis.size;
            padded.map(|i| i % axis.stride * phase + i / axis.stride * step).collect()
        };
        let row_starts = starts(&rows, cols.stride * plane, pitch);
        let col_starts = starts(&cols, plane, images);
        let lead = match cols.stride == 1 && images == 1 {
            true => SLACK - cols.padding % SLACK,
            false => 0,
        };
        let places = [Vec::new(), Vec::new()];
        let mut grid = Self {
            rows,
            cols,
            images,
            offsets,
            shares,
            inside,
            lead,
            row_starts,
            col_starts,
            places,
        };
        if images > 1 {
            let place = |i: usize| grid.strip_of(i / grid.cols.size, i % grid.cols.size);
            let input = (0..grid.input()).map(place).collect();
            let place = |i: usize| grid.output_at(i / grid.cols.output, i % grid.cols.output);
            let output = (0..grid.output()).map(place).collect();
            grid.places = [input, output];
        }
        grid
    }

    pub(super) fn taps(&self) -> usize {
        self.rows.kernel * self.cols.kernel
    }

    pub(super) fn classes(&self) -> usize {
        self.shares.len()
    }

    /// Values of an input plane.
    pub(super) fn input(&self) -> usize {
        self.rows.size * self.cols.size
    }

    /// Values of an output plane.
    pub(super) fn output(&self) -> usize {
        self.rows.output * self.cols.output
    }

    /// Distance of two rows of a strip.
    pub(super) fn pitch(&self) -> usize {
        self.cols.len * self.images
    }

    /// Length of a sweep over the outputs. Those between the rows are unused.
    pub(super) fn sweep(&self) -> usize {
        (self.rows.output - 1) * self.pitch() + self.cols.output * self.images
    }

    /// Where a strip may hold an input, and the length from there to the last one.
    pub(super) fn used(&self) -> [usize; 2] {
        let Axis { padding, stride, size, .. } = self.rows;
        let first = padding / stride;
        let end = (padding + size - 1) / stride + 1;
        [first * self.pitch(), (end - first) * self.pitch()]
    }

    /// Distance of the strips of two phases.
    pub(super) fn phase_len(&self) -> usize {
        (self.rows.len * self.pitch()).next_multiple_of(SLACK) + SLACK
    }

    /// Values of all strips.
    pub(super) fn strips_len(&self) -> usize {
        self.rows.stride * self.cols.stride * self.phase_len()
    }

    /// Length of a buffer that contains the sweeps under all taps, with twice the reach as margin.
    pub(super) fn strips_buffer(&self) -> usize {
        (self.lead + self.strips_len() + 2 * self.reach() + SLACK).next_multiple_of(SLACK)
            - self.lead
    }

    /// Length of a buffer of the outputs in the pitch of the strips.
    pub(super) fn output_buffer(&self) -> usize {
        (self.rows.output * self.pitch()).next_multiple_of(SLACK) + SLACK
    }

    /// Zeros before an output strip that is read backwards, at least [`Self::reach`].
    pub(super) fn margin(&self) -> usize {
        self.reach().next_multiple_of(SLACK)
    }

    /// Distance of the first and the last tap.
    pub(super) fn reach(&self) -> usize {
        self.rows.reach * self.pitch() + self.cols.reach * self.images
    }

    /// Writes `value(class)` at every output position of a strip.
    pub(super) fn fill(&self, value: impl Fn(usize) -> f32, strip: &mut [f32]) {
        let (pitch, images) = (self.pitch(), self.images);
        for (i, row) in self.rows.classes.iter().enumerate() {
            let first = row.outputs.start * pitch;
            for (j, col) in self.cols.classes.iter().enumerate() {
                let value = value(i * self.cols.classes.len() + j);
                let [start, end] = [col.outputs.start, col.outputs.end].map(|x| first + x * images);
                strip[start..end].fill(value);
            }
            for r in row.outputs.clone().skip(1) {
                strip.copy_within(first..first + self.cols.output * images, r * pitch);
            }
        }
    }

    /// Zeroes the positions between the rows and after the last one.
    pub(super) fn clear_gaps(&self, strip: &mut [f32]) {
        let pitch = self.pitch();
        for r in 0..self.rows.output {
            strip[r * pitch + self.cols.output * self.images..(r + 1) * pitch].fill(0.0);
        }
        strip[self.rows.output * pitch..self.output_buffer()].fill(0.0);
    }

    /// Where the output `[r, x]` of the first image lies in a strip of outputs.
    #[inline(always)]
    pub(super) fn output_at(&self, r: usize, x: usize) -> usize {
        (r * self.cols.len + x) * self.images
    }

    /// Where the input `[y, x]` of the first image lies in the strips. The next inputs of the same row
    /// and phase follow it.
    #[inline(always)]
    pub(super) fn strip_of(&self, y: usize, x: usize) -> usize {
        self.row_starts[y] + self.col_starts[x]
    }
}
