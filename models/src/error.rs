//! Errors of network configuration.

/// A block or network that cannot be built, or could be built but not folded exactly.
#[derive(Clone, Debug, PartialEq, thiserror::Error)]
pub enum ConfigError {
    /// Channels, kernel, stride or groups are zero, or the groups do not divide the channels.
    #[error(
        "a convolution from {inputs} to {outputs} channels with {groups} groups, kernel \
         {kernel:?} and stride {stride:?} is not possible: all must be positive and the groups \
         must divide both channel counts"
    )]
    Geometry {
        /// Input channels.
        inputs: usize,
        /// Output channels.
        outputs: usize,
        /// Groups.
        groups: usize,
        /// Kernel height and width.
        kernel: [usize; 2],
        /// Stride over height and width.
        stride: [usize; 2],
    },
    /// The block needs an odd square kernel.
    #[error(
        "{block} needs a square kernel of odd size, got {}x{}: an even kernel has no centre to \
         fold the other branches into",
        kernel[0], kernel[1]
    )]
    Kernel {
        /// Name of the block.
        block: &'static str,
        /// Kernel height and width.
        kernel: [usize; 2],
    },
    /// A block with a padding other than half its kernel.
    #[error(
        "{block} with a {kernel}x{kernel} kernel needs padding {}, got {padding:?}: \
         its 1x1 branch would read other positions", kernel / 2
    )]
    Padding {
        /// Name of the block.
        block: &'static str,
        /// Kernel size.
        kernel: usize,
        /// Padding over height and width.
        padding: [usize; 2],
    },
    /// As many groups as outputs, but not as many as inputs.
    #[error(
        "a Diverse Branch Block with {groups} groups needs as many input as output channels, got \
         {inputs} and {groups}: the average branch pools each channel for itself"
    )]
    Grouped {
        /// Groups, equal to the output channels.
        groups: usize,
        /// Input channels.
        inputs: usize,
    },
    /// A 1x1 kernel with groups, of a block that has no form for it.
    #[error("an OREPA block of a 1x1 convolution has no groups, got {groups}")]
    GroupedPointwise {
        /// Groups.
        groups: usize,
    },
    /// The internal width of the 1x1-KxK branch does not fit the groups.
    #[error("internal_channels = {internal} must be a positive multiple of the {groups} groups")]
    InternalChannels {
        /// Requested width.
        internal: usize,
        /// Groups of the block.
        groups: usize,
    },
    /// No branch is left.
    #[error(
        "a Diverse Branch Block needs at least one branch; a depthwise one has no \"1x1\" branch \
         (choose from \"kxk\", \"1x1\", \"1x1_kxk\", \"1x1_avg\")"
    )]
    NoBranch,
    /// A branch that cannot have copies is named twice.
    #[error(
        "a Diverse Branch Block has the branch \"{branch}\" once; only \"kxk\" and \"1x1\" may be \
         named several times"
    )]
    BranchTwice {
        /// Name of the branch.
        branch: &'static str,
    },
    /// A network option is out of range.
    #[error("{option} = {value} is out of range: expected {expected}")]
    Option {
        /// Name of the option.
        option: &'static str,
        /// Its value.
        value: String,
        /// What is possible.
        expected: &'static str,
    },
    /// Images that a window of the network is too large for.
    #[error(
        "images of {}x{} are too small for the network: the {}x{} window of {layer} is larger than \
         its padded map{}",
        image[0], image[1], kernel[0], kernel[1],
        smallest.map_or_else(String::new, |side| format!("; the smallest images are {side}x{side}"))
    )]
    ImageSize {
        /// Height and width of the images.
        image: [usize; 2],
        /// The first layer that has no output.
        layer: String,
        /// Height and width of its window.
        kernel: [usize; 2],
        /// Side of the smallest square images, where there are any.
        smallest: Option<usize>,
    },
    /// A convolution or pool whose output size is not known.
    #[error(
        "the window of {layer} has dilation, a padding that differs from side to side or follows from \
         the input, or an output that is rounded up, none of which is supported here"
    )]
    Window {
        /// The layer.
        layer: String,
    },
    /// A layer that cannot be computed in 8 bits.
    #[error(
        "{layer} adds {products} products of 8 bits in 32 bits, which hold at most {most}; keep it in f32"
    )]
    Sum {
        /// The layer.
        layer: String,
        /// Products of a sum.
        products: usize,
        /// What is possible.
        most: usize,
    },
    /// Every layer of a network is frozen.
    #[error(
        "the layer patterns {patterns:?} freeze every layer; at least one must be left to train"
    )]
    NothingToTrain {
        /// The patterns.
        patterns: Vec<String>,
    },
    /// A layer pattern that names no layer.
    #[error("the layer pattern \"{pattern}\" matches no layer of {arch}; its layers are {layers}")]
    Pattern {
        /// The pattern.
        pattern: String,
        /// The architecture.
        arch: String,
        /// Names of its layers, shortened.
        layers: String,
    },
}
