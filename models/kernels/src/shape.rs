//! The geometry of a convolution over a batch.

/// Batch, channels, image and kernel of a two-dimensional convolution without dilation.
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

impl ConvShape {
    /// Height and width of the output.
    pub fn output(&self) -> [usize; 2] {
        [0, 1].map(|axis| {
            let padded = self.input[axis] + 2 * self.padding[axis];
            assert!(padded >= self.kernel[axis], "the kernel is larger than the padded input");
            (padded - self.kernel[axis]) / self.stride[axis] + 1
        })
    }

    /// A 1x1 convolution of stride 1 over images of so many positions.
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
    pub fn input_positions(&self) -> usize {
        self.input[0] * self.input[1]
    }

    /// Positions of an output plane.
    pub fn output_positions(&self) -> usize {
        let [height, width] = self.output();
        height * width
    }

    /// Batch, channels, height and width of the output.
    pub fn output_shape(&self) -> [usize; 4] {
        let [height, width] = self.output();
        [self.batch, self.out_channels, height, width]
    }

    /// Batch, output channels and positions of an output plane.
    pub fn output_dims(&self) -> [usize; 3] {
        [self.batch, self.out_channels, self.output_positions()]
    }

    /// Values of the input, `[batch, in, height, width]`.
    pub fn input_len(&self) -> usize {
        self.batch * self.in_channels * self.input[0] * self.input[1]
    }

    /// Values of the output, `[batch, out, height', width']`.
    pub fn output_len(&self) -> usize {
        let [height, width] = self.output();
        self.batch * self.out_channels * height * width
    }

    /// Values of the weight, `[out, in / groups, kernel height, kernel width]`.
    pub fn weight_len(&self) -> usize {
        self.out_channels * (self.in_channels / self.groups) * self.kernel[0] * self.kernel[1]
    }

    /// Whether every channel is convolved for itself.
    pub fn is_depthwise(&self) -> bool {
        self.groups > 1 && self.groups == self.in_channels && self.groups == self.out_channels
    }

    /// Multiply-adds of the forward pass.
    pub fn macs(&self) -> usize {
        let [height, width] = self.output();
        self.batch * height * width * self.weight_len()
    }
}
