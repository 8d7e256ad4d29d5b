//! What a Diverse Branch Block is made of.

use serde::{Deserialize, Serialize};

use crate::error::ConfigError;

/// Most branches of a block.
pub(super) const MOST_BRANCHES: usize = 16;

/// Most internal channels of a block.
const MOST_INTERNAL: usize = 16_384;

/// Checks the internal channels of a block against [`MOST_INTERNAL`]. Whether they are a multiple of
/// the groups is known only where there is a convolution.
pub(super) fn check_internal(
    option: &'static str,
    internal: Option<usize>,
) -> Result<(), ConfigError> {
    match internal {
        Some(internal) if internal > MOST_INTERNAL => Err(ConfigError::Option {
            option,
            value: internal.to_string(),
            expected: "at most 16384",
        }),
        _ => Ok(()),
    }
}

/// One of the four branches.
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Branch {
    /// KxK convolution, BN.
    #[serde(rename = "kxk")]
    Kxk,
    /// 1x1 convolution, BN. A depthwise block has none.
    #[serde(rename = "1x1")]
    Pointwise,
    /// 1x1 convolution, BN, KxK convolution, BN.
    #[serde(rename = "1x1_kxk")]
    PointwiseKxk,
    /// 1x1 convolution, BN, average pool, BN. A depthwise block pools its input itself.
    #[serde(rename = "1x1_avg")]
    Average,
}

impl Branch {
    /// The name in configurations.
    pub fn name(self) -> &'static str {
        match self {
            Self::Kxk => "kxk",
            Self::Pointwise => "1x1",
            Self::PointwiseKxk => "1x1_kxk",
            Self::Average => "1x1_avg",
        }
    }
}

/// What a block is made of. The default is the paper's.
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct DbbConfig {
    /// The branches; any subset but the empty one. `kxk` and `1x1` may be named several times, for as
    /// many copies (the paper's ablation of duplicate branches), 16 in all.
    pub branches: Vec<Branch>,
    /// Whether a block that keeps the shape of its input has an identity branch with a norm of its
    /// own, too.
    pub identity: bool,
    /// Channels between the 1x1 and the KxK convolution of the third branch. By default the
    /// input's, twice as many in a depthwise block.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub internal_channels: Option<usize>,
    /// Start with the KxK branch alone: the closing norms of the others start with scale 0.
    pub single_init: bool,
    /// Initial scale of the closing norms, by default 1; ACNet starts with 1/3 on CIFAR.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub init_gamma: Option<f64>,
    /// Largest kernel that a network makes a block of; larger ones stay plain (the paper's code
    /// leaves out kernels of 7 and more). A block built by itself does not look at it.
    pub max_kernel: usize,
}

impl Default for DbbConfig {
    fn default() -> Self {
        Self {
            branches: vec![Branch::Kxk, Branch::Pointwise, Branch::PointwiseKxk, Branch::Average],
            identity: false,
            internal_channels: None,
            single_init: false,
            init_gamma: None,
            max_kernel: 5,
        }
    }
}

impl DbbConfig {
    /// Checks the options.
    ///
    /// # Errors
    /// [`ConfigError::NoBranch`] for an empty list of branches, [`ConfigError::BranchTwice`] for one
    /// that names a branch twice which cannot have copies, [`ConfigError::Option`] for an initial
    /// scale that is not finite or contradicts `single_init`, for too many branches and for internal
    /// channels out of range.
    pub fn check(&self) -> Result<(), ConfigError> {
        let refused =
            |option, value: String, expected| Err(ConfigError::Option { option, value, expected });
        if self.branches.is_empty() {
            return Err(ConfigError::NoBranch);
        }
        if self.branches.len() > MOST_BRANCHES {
            let value = format!("a list of {}", self.branches.len());
            return refused("dbb.branches", value, "at most 16 branches");
        }
        let is_copied = |branch| matches!(branch, Branch::Kxk | Branch::Pointwise);
        let twice = |at: &usize| {
            let branch = self.branches[*at];
            !is_copied(branch) && self.branches[..*at].contains(&branch)
        };
        if let Some(at) = (0..self.branches.len()).find(twice) {
            return Err(ConfigError::BranchTwice { branch: self.branches[at].name() });
        }
        check_internal("dbb.internal_channels", self.internal_channels)?;
        match self.init_gamma {
            Some(scale) if !scale.is_finite() => {
                refused("dbb.init_gamma", scale.to_string(), "a finite number")
            }
            Some(scale) if self.single_init => {
                let expected = "none with dbb.single_init, which sets the scales itself";
                refused("dbb.init_gamma", scale.to_string(), expected)
            }
            _ => Ok(()),
        }
    }
}
