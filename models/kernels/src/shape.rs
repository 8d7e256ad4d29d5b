//! The geometry of a convolution over a batch.

use std::fmt;
use std::ops::Deref;

/// The largest number of values of a plane with its padding.
///
/// No image comes near it. It bounds everything that kernels compute from the extents along height
/// and width: padding and stride are not bounded by the memory of any slice.
pub(crate) const LARGEST_PLANE: usize = i32::MAX as usize;

/// The largest number of values of a slice.
const LONGEST: usize = isize::MAX as usize / size_of::<f32>();

/// Batch, channels, image and kernel of a two-dimensional convolution without dilation.
///
/// The fields can hold anything; every kernel and every method that returns a length checks them
/// first and panics where [`ConvShape::check`] returns an error.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ConvShape {
    /// Images.
    pub batch: usize,
    /// Input channels, a multiple of `groups`.
    pub in_channels: usize,
    /// Output channels, a multiple of `groups`.
    pub out_channels: usize,
    /// Height and width of the input.
    pub input: [usize; 2],
    /// Kernel height and width.
    pub kernel: [usize; 2],
    /// Stride over height and width.
    pub stride: [usize; 2],
    /// Zero padding on both sides of height and width.
    pub padding: [usize; 2],
    /// Groups.
    pub groups: usize,
}

/// Why a [`ConvShape`] is invalid.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum ShapeError {
    /// This field is zero.
    Zero(&'static str),
    /// The groups do not divide the input or the output channels.
    Groups,
    /// The kernel is larger than the input with its padding.
    Kernel,
    /// A plane of the input has more than `i32::MAX` values with its padding.
    Plane,
    /// This has more values than memory can hold.
    Length(&'static str),
}

impl fmt::Display for ShapeError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Zero(field) => write!(f, "{field} is zero"),
            Self::Groups => f.write_str("the groups do not divide the channels"),
            Self::Kernel => f.write_str("the kernel is larger than the padded input"),
            Self::Plane => {
                write!(f, "a padded plane of the input has more than {LARGEST_PLANE} values")
            }
            Self::Length(map) => write!(f, "{map} has more values than memory can hold"),
        }
    }
}

impl std::error::Error for ShapeError {}

/// The extents that follow from a shape.
struct Lengths {
    output: [usize; 2],
    input_len: usize,
    output_len: usize,
    weight_len: usize,
}

impl ConvShape {
    /// Checks that the convolution exists and that the lengths of its maps do not overflow.
    ///
    /// # Errors
    /// If a field is zero (the padding excepted), the groups do not divide the channels, the kernel
    /// is larger than the padded input, or a length is beyond what memory can hold.
    pub fn check(&self) -> Result<(), ShapeError> {
        self.count().map(|_| ())
    }

    fn count(&self) -> Result<Lengths, ShapeError> {
        let Self { batch, in_channels, out_channels, groups, .. } = *self;
        let fields = [
            ("the batch", [batch; 2]),
            ("the number of channels", [in_channels, out_channels]),
            ("the height or width of the input", self.input),
            ("the height or width of the kernel", self.kernel),
            ("the stride", self.stride),
            ("the number of groups", [groups; 2]),
        ];
        if let Some((name, _)) = fields.iter().find(|(_, values)| values.contains(&0)) {
            return Err(ShapeError::Zero(name));
        }
        if !in_channels.is_multiple_of(groups) || !out_channels.is_multiple_of(groups) {
            return Err(ShapeError::Groups);
        }
        let mut output = [0; 2];
        let mut plane = 1_usize;
        for (axis, output) in output.iter_mut().enumerate() {
            let padded = self.padded(axis).ok_or(ShapeError::Plane)?;
            let rest = padded.checked_sub(self.kernel[axis]).ok_or(ShapeError::Kernel)?;
            *output = rest / self.stride[axis] + 1;
            plane = plane.checked_mul(padded).ok_or(ShapeError::Plane)?;
        }
        if plane > LARGEST_PLANE {
            return Err(ShapeError::Plane);
        }
        let len = |name, dims: [usize; 4]| product(dims).ok_or(ShapeError::Length(name));
        let [[h, w], [oh, ow], [kh, kw]] = [self.input, output, self.kernel];
        Ok(Lengths {
            output,
            input_len: len("the input", [batch, in_channels, h, w])?,
            output_len: len("the output", [batch, out_channels, oh, ow])?,
            weight_len: len("the weight", [out_channels, in_channels / groups, kh, kw])?,
        })
    }

    fn padded(&self, axis: usize) -> Option<usize> {
        self.padding[axis].checked_mul(2)?.checked_add(self.input[axis])
    }

    #[track_caller]
    fn lengths(&self) -> Lengths {
        self.count().unwrap_or_else(|error| panic!("{error}: {self:?}"))
    }

    /// Height and width of the output.
    #[track_caller]
    pub fn output(&self) -> [usize; 2] {
        self.lengths().output
    }

    /// A 1x1 convolution of stride 1 over images of `positions` positions.
    pub fn pointwise(batch: usize, channels: [usize; 2], positions: usize) -> Self {
        Self {
            batch,
            in_channels: channels[0],
            out_channels: channels[1],
            input: [1, positions],
            kernel: [1, 1],
            stride: [1, 1],
            padding: [0, 0],
            groups: 1,
        }
    }

    /// Positions of an input plane.
    #[track_caller]
    pub fn input_positions(&self) -> usize {
        self.lengths().input_len / self.batch / self.in_channels
    }

    /// Positions of an output plane.
    #[track_caller]
    pub fn output_positions(&self) -> usize {
        let [height, width] = self.output();
        height * width
    }

    /// Batch, channels, height and width of the output.
    #[track_caller]
    pub fn output_shape(&self) -> [usize; 4] {
        let [height, width] = self.output();
        [self.batch, self.out_channels, height, width]
    }

    /// Batch, output channels and positions of an output plane.
    #[track_caller]
    pub fn output_dims(&self) -> [usize; 3] {
        [self.batch, self.out_channels, self.output_positions()]
    }

    /// Values of the input, `[batch, in, height, width]`.
    #[track_caller]
    pub fn input_len(&self) -> usize {
        self.lengths().input_len
    }

    /// Values of the output, `[batch, out, height', width']`.
    #[track_caller]
    pub fn output_len(&self) -> usize {
        self.lengths().output_len
    }

    /// Values of the weight, `[out, in / groups, kernel height, kernel width]`.
    #[track_caller]
    pub fn weight_len(&self) -> usize {
        self.lengths().weight_len
    }

    /// Whether every channel is convolved by itself.
    pub fn is_depthwise(&self) -> bool {
        self.groups > 1 && self.groups == self.in_channels && self.groups == self.out_channels
    }

    /// Taps of the kernel.
    pub(crate) fn window(&self) -> usize {
        self.kernel[0] * self.kernel[1]
    }

    /// Multiply-adds of the forward pass; `usize::MAX` if there are more.
    #[track_caller]
    pub fn macs(&self) -> usize {
        let Lengths { output_len, weight_len, .. } = self.lengths();
        (output_len / self.out_channels).saturating_mul(weight_len)
    }
}

/// A shape that has been checked together with the lengths of its maps.
///
/// The code behind the public functions takes its extents from here, so that no function can forget
/// the check. A stride larger than the padded input is reduced to the size of the padded input,
/// which gives the same result.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Geometry(ConvShape);

impl Geometry {
    /// The geometry over an input and an output, or their gradients, of these lengths.
    ///
    /// # Panics
    /// If there is no such convolution or a length is another.
    #[track_caller]
    pub fn new(shape: &ConvShape, input: usize, output: usize) -> Self {
        let Lengths { input_len, output_len, .. } = shape.lengths();
        assert_eq!(input, input_len, "length of the input");
        assert_eq!(output, output_len, "length of the output");
        let padded = [0, 1].map(|axis| shape.input[axis] + 2 * shape.padding[axis]);
        let stride = [0, 1].map(|axis| shape.stride[axis].min(padded[axis]));
        Self(ConvShape { stride, ..*shape })
    }

    /// With a weight, or its gradient, of this length.
    ///
    /// # Panics
    /// If the length is another.
    #[track_caller]
    pub fn with_weight(self, weight: usize) -> Self {
        assert_eq!(weight, self.weight_len(), "length of the weight");
        self
    }

    /// With a residual, if there is one, that is added to the output.
    ///
    /// # Panics
    /// If it does not have the length of the output.
    #[track_caller]
    pub fn with_residual(self, residual: Option<&[f32]>) -> Self {
        let fits = residual.is_none_or(|map| map.len() == self.output_len());
        assert!(fits, "length of the residual");
        self
    }
}

impl Deref for Geometry {
    type Target = ConvShape;

    fn deref(&self) -> &ConvShape {
        &self.0
    }
}

/// The number of values of a map `[batch, channels, positions]`.
///
/// # Panics
/// If the map is empty, or longer than memory can hold.
#[track_caller]
pub(crate) fn map_len(dims: [usize; 3]) -> usize {
    assert!(!dims.contains(&0), "a map without values: {dims:?}");
    let [batch, channels, positions] = dims;
    product([batch, channels, positions, 1])
        .unwrap_or_else(|| panic!("a map has more values than memory can hold: {dims:?}"))
}

/// The values between the first and the last of a matrix with these strides between its rows and
/// between its columns, both included.
///
/// # Panics
/// If they are more than memory can hold.
#[track_caller]
pub(crate) fn matrix_len(name: &str, [rows, columns]: [usize; 2], strides: [usize; 2]) -> usize {
    if rows == 0 || columns == 0 {
        return 0;
    }
    let last = |count: usize, stride: usize| (count - 1).checked_mul(stride);
    last(rows, strides[0])
        .zip(last(columns, strides[1]))
        .and_then(|(row, column)| row.checked_add(column)?.checked_add(1))
        .filter(|&len| len <= LONGEST)
        .unwrap_or_else(|| panic!("{name} has more values than memory can hold"))
}

/// The product of positive numbers, if a slice can have so many values.
fn product(dims: [usize; 4]) -> Option<usize> {
    let product = dims.into_iter().try_fold(1_usize, usize::checked_mul)?;
    (product <= LONGEST).then_some(product)
}

#[cfg(test)]
mod tests {
    use super::*;

    const SHAPE: ConvShape = ConvShape {
        batch: 2,
        in_channels: 4,
        out_channels: 6,
        input: [7, 5],
        kernel: [3, 2],
        stride: [2, 1],
        padding: [1, 0],
        groups: 2,
    };

    #[test]
    fn lengths_follow_from_the_fields() {
        assert_eq!(SHAPE.check(), Ok(()));
        assert_eq!(SHAPE.output(), [4, 4]);
        assert_eq!([SHAPE.input_len(), SHAPE.output_len(), SHAPE.weight_len()], [280, 192, 72]);
        assert_eq!(SHAPE.macs(), 2 * 16 * 72);
        assert_eq!([SHAPE.input_positions(), SHAPE.output_positions()], [35, 16]);
    }

    #[test]
    fn impossible_shapes_are_named() {
        let zero = |shape: ConvShape| matches!(shape.check(), Err(ShapeError::Zero(_)));
        assert!(zero(ConvShape { batch: 0, ..SHAPE }));
        assert!(zero(ConvShape { in_channels: 0, ..SHAPE }));
        assert!(zero(ConvShape { out_channels: 0, ..SHAPE }));
        assert!(zero(ConvShape { input: [7, 0], ..SHAPE }));
        assert!(zero(ConvShape { kernel: [0, 2], ..SHAPE }));
        assert!(zero(ConvShape { stride: [2, 0], ..SHAPE }));
        assert!(zero(ConvShape { groups: 0, ..SHAPE }));
        for (shape, error) in [
            (ConvShape { groups: 4, ..SHAPE }, ShapeError::Groups),
            (ConvShape { kernel: [10, 2], ..SHAPE }, ShapeError::Kernel),
            (ConvShape { padding: [usize::MAX, 0], ..SHAPE }, ShapeError::Plane),
            (ConvShape { padding: [1 << 62, 1 << 62], ..SHAPE }, ShapeError::Plane),
            (ConvShape { input: [1 << 32, 1 << 32], ..SHAPE }, ShapeError::Plane),
            (ConvShape { batch: 1 << 62, ..SHAPE }, ShapeError::Length("the input")),
            (ConvShape { out_channels: 1 << 62, ..SHAPE }, ShapeError::Length("the output")),
            (
                ConvShape { in_channels: 1 << 30, out_channels: 1 << 31, ..SHAPE },
                ShapeError::Length("the weight"),
            ),
        ] {
            assert_eq!(shape.check(), Err(error), "{shape:?}");
        }
    }

    #[test]
    fn a_stride_beyond_the_padded_input_is_cut() {
        let shape = ConvShape { stride: [1 << 61, 1], ..SHAPE };
        let geometry = Geometry::new(&shape, shape.input_len(), shape.output_len());
        assert_eq!((geometry.stride, geometry.output()), ([9, 1], [1, 4]));
    }

    #[test]
    fn matrices_are_as_long_as_their_last_value_says() {
        assert_eq!(matrix_len("A", [3, 4], [10, 2]), 27);
        assert_eq!(matrix_len("A", [0, 1 << 62], [1 << 62, 8]), 0);
    }

    #[test]
    #[should_panic(expected = "A has more values than memory can hold")]
    fn matrices_beyond_memory_are_refused() {
        matrix_len("A", [9, 1], [1 << 61, 1]);
    }
}
