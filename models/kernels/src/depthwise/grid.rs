//! How one channel of an image is laid out for the kernels.
//!
//! A plane is copied into *strips*: zero-padded and split by the phase of its rows and columns
//! modulo the stride. Under a kernel tap, neighbouring outputs then read neighbouring values,
//! whatever the stride, and a whole plane is one long sweep: the value under tap `t` at the
//! flat position `q` is `strips[offsets[t] + q]`. The price is a few unused positions at the end of
//! each row.

use std::ops::Range;

use crate::ConvShape;

/// Values that may be read or written past the last position: the widest vector.
pub(super) const SLACK: usize = 16;

/// Neighbouring outputs whose kernel reaches into the input with the same taps.
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
    fn new(shape: &ConvShape, axis: usize) -> Self {
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
        Self { size, kernel, stride, padding, output, reach, len, classes }
    }

    /// For each phase: the first input index of the phase and its index in the strip.
    fn phase_start(&self, phase: usize) -> (usize, usize) {
        let first = (phase + self.stride - self.padding % self.stride) % self.stride;
        (first, (first + self.padding) / self.stride)
    }
}

/// The geometry of one channel.
#[derive(Clone, Debug)]
pub(super) struct Grid {
    pub rows: Axis,
    pub cols: Axis,
    /// Where tap `t` of position 0 lies in the strips.
    pub offsets: Vec<usize>,
    /// Share of the outputs that each pair of a row and a column class has.
    pub shares: Vec<f64>,
    /// `inside[tap * classes + class]`: 1 where the tap falls inside the input, else 0.
    pub inside: Vec<f64>,
}

impl Grid {
    pub(super) fn new(shape: &ConvShape) -> Self {
        let (rows, cols) = (Axis::new(shape, 0), Axis::new(shape, 1));
        let plane = rows.len * cols.len;
        let mut offsets = Vec::with_capacity(rows.kernel * cols.kernel);
        for ty in 0..rows.kernel {
            for tx in 0..cols.kernel {
                let phase = ty % rows.stride * cols.stride + tx % cols.stride;
                offsets.push(phase * plane + ty / rows.stride * cols.len + tx / cols.stride);
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
        Self { rows, cols, offsets, shares, inside }
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

    /// Positions of a sweep over the outputs; some, at the end of each row, are unused.
    pub(super) fn positions(&self) -> usize {
        (self.rows.output - 1) * self.cols.len + self.cols.output
    }

    /// Values of the strip of one phase.
    pub(super) fn phase_len(&self) -> usize {
        self.rows.len * self.cols.len
    }

    /// Values of all strips.
    pub(super) fn strips_len(&self) -> usize {
        self.rows.stride * self.cols.stride * self.phase_len()
    }

    /// Length of a buffer in which a sweep under every tap stays.
    pub(super) fn strips_buffer(&self) -> usize {
        self.strips_len() + self.reach() + SLACK
    }

    /// Length of a buffer of the outputs in the pitch of the strips.
    pub(super) fn output_buffer(&self) -> usize {
        self.rows.output * self.cols.len + SLACK
    }

    /// Zero positions that an output strip needs on both sides to be read backwards.
    pub(super) fn reach(&self) -> usize {
        self.rows.reach * self.cols.len + self.cols.reach
    }

    /// Writes `value(class)` at every output position of a strip.
    pub(super) fn fill(&self, value: impl Fn(usize) -> f32, strip: &mut [f32]) {
        let pitch = self.cols.len;
        for (i, row) in self.rows.classes.iter().enumerate() {
            let first = row.outputs.start * pitch;
            for (j, col) in self.cols.classes.iter().enumerate() {
                let value = value(i * self.cols.classes.len() + j);
                strip[first + col.outputs.start..first + col.outputs.end].fill(value);
            }
            for r in row.outputs.clone().skip(1) {
                strip.copy_within(first..first + self.cols.output, r * pitch);
            }
        }
    }

    /// Zeroes what lies between the rows and after the last one.
    pub(super) fn clear_gaps(&self, strip: &mut [f32]) {
        let pitch = self.cols.len;
        for r in 0..self.rows.output {
            strip[r * pitch + self.cols.output..(r + 1) * pitch].fill(0.0);
        }
        strip[self.rows.output * pitch..self.output_buffer()].fill(0.0);
    }

    /// Sums over each class of outputs of what one tap sees; `strip` starts under the tap at
    /// output 0, `row` is room for one row of outputs.
    #[inline(always)]
    pub(super) fn class_sums(&self, strip: &[f32], row: &mut [f32], sums: &mut [f64]) {
        let row = &mut row[..self.cols.output];
        let mut sums = sums.iter_mut();
        for class in &self.rows.classes {
            row.fill(0.0);
            for r in class.outputs.clone() {
                let values = &strip[r * self.cols.len..][..row.len()];
                row.iter_mut().zip(values).for_each(|(sum, &value)| *sum += value);
            }
            for (class, sum) in self.cols.classes.iter().zip(&mut sums) {
                *sum = total(&row[class.outputs.clone()]);
            }
        }
    }

    /// Copies `plane - shift` into the strips, whose padding must be zero already.
    #[inline(always)]
    pub(super) fn pad(&self, plane: &[f32], shift: f32, strips: &mut [f32]) {
        let (rows, cols) = (&self.rows, &self.cols);
        for (y, row) in plane.chunks_exact(cols.size).enumerate() {
            let (py, sy) = ((y + rows.padding) % rows.stride, (y + rows.padding) / rows.stride);
            for px in 0..cols.stride {
                let (first, start) = cols.phase_start(px);
                let strip = (py * cols.stride + px) * self.phase_len() + sy * cols.len + start;
                let row = row.get(first..).unwrap_or(&[]);
                let target = &mut strips[strip..][..row.len().div_ceil(cols.stride)];
                copy_strided(row, cols.stride, shift, target);
            }
        }
    }

    /// Copies an output plane into a strip, zero where `relu_output` is not positive.
    #[inline(always)]
    pub(super) fn pitch(&self, plane: &[f32], relu_output: Option<&[f32]>, strip: &mut [f32]) {
        let (pitch, width) = (self.cols.len, self.cols.output);
        for (r, row) in plane.chunks_exact(width).enumerate() {
            let target = &mut strip[r * pitch..][..width];
            match relu_output {
                None => target.copy_from_slice(row),
                Some(output) => {
                    let output = &output[r * width..][..width];
                    for ((t, &value), &y) in target.iter_mut().zip(row).zip(output) {
                        *t = if y > 0.0 { value } else { 0.0 };
                    }
                }
            }
        }
    }

    /// Copies a strip of outputs into a plane through `activation`.
    #[inline(always)]
    pub(super) fn unpitch(
        &self,
        strip: &[f32],
        activation: impl Fn(f32) -> f32,
        plane: &mut [f32],
    ) {
        for (r, row) in plane.chunks_exact_mut(self.cols.output).enumerate() {
            let source = &strip[r * self.cols.len..][..row.len()];
            row.iter_mut().zip(source).for_each(|(y, &value)| *y = activation(value));
        }
    }

    /// Collects a plane from strips in the layout of the input, the inverse of [`Self::pad`].
    #[inline(always)]
    pub(super) fn crop(&self, strips: &[f32], plane: &mut [f32]) {
        let (rows, cols) = (&self.rows, &self.cols);
        for (y, row) in plane.chunks_exact_mut(cols.size).enumerate() {
            let (py, sy) = ((y + rows.padding) % rows.stride, (y + rows.padding) / rows.stride);
            let at = |px: usize| {
                let (_, start) = cols.phase_start(px);
                (py * cols.stride + px) * self.phase_len() + sy * cols.len + start
            };
            match cols.stride {
                1 => row.copy_from_slice(&strips[at(0)..][..cols.size]),
                2 => {
                    let (even, odd) = (cols.padding % 2, 1 - cols.padding % 2);
                    let (even, odd) = (&strips[at(even)..], &strips[at(odd)..]);
                    let mut pairs = row.chunks_exact_mut(2);
                    for ((pair, &a), &b) in pairs.by_ref().zip(even).zip(odd) {
                        pair[0] = a;
                        pair[1] = b;
                    }
                    if let [last] = pairs.into_remainder() {
                        *last = even[cols.size / 2];
                    }
                }
                stride => {
                    for (x, value) in row.iter_mut().enumerate() {
                        let phase = (x + cols.padding) % stride;
                        let (first, _) = cols.phase_start(phase);
                        *value = strips[at(phase) + (x - first) / stride];
                    }
                }
            }
        }
    }
}

/// The sum of a slice, over several independent lanes.
#[inline(always)]
fn total(values: &[f32]) -> f64 {
    let mut lanes = [0.0_f32; SLACK];
    let chunks = values.chunks_exact(SLACK);
    let rest: f64 = chunks.remainder().iter().map(|&v| f64::from(v)).sum();
    for chunk in chunks {
        lanes.iter_mut().zip(chunk).for_each(|(lane, &v)| *lane += v);
    }
    lanes.iter().map(|&lane| f64::from(lane)).sum::<f64>() + rest
}

/// `target[i] = source[stride * i] - shift`.
#[inline(always)]
fn copy_strided(source: &[f32], stride: usize, shift: f32, target: &mut [f32]) {
    match stride {
        1 => target.iter_mut().zip(source).for_each(|(t, &s)| *t = s - shift),
        2 => {
            // Pairs, not `step_by`, so that the compiler sees whole vectors.
            let pairs = source.chunks_exact(2);
            let rest = pairs.remainder();
            target.iter_mut().zip(pairs).for_each(|(t, pair)| *t = pair[0] - shift);
            if let ([last], Some(t)) = (rest, target.last_mut()) {
                *t = last - shift;
            }
        }
        _ => {
            target.iter_mut().zip(source.iter().step_by(stride)).for_each(|(t, &s)| *t = s - shift)
        }
    }
}
