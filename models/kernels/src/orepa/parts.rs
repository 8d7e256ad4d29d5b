//! The tensors that the kernel of an OREPA block is made of.

/// Something for every tensor that the kernel is made of.
#[derive(Clone, Debug)]
pub struct OrepaParts<T> {
    /// `[outputs, per group, taps]`.
    pub origin: T,
    /// `[outputs, per group]`.
    pub average: T,
    /// `[outputs, per group]`.
    pub frequency: T,
    /// `[groups * internal, per group]`, without the identity.
    pub first: T,
    /// `[outputs, internal, taps]`.
    pub second: T,
    /// `[outputs, per group]`.
    pub pointwise: T,
    /// `[groups * per group * expansion, taps]`.
    pub depthwise: T,
    /// `[outputs, per group * expansion]`; output `j` of group `g` has row `j groups + g`.
    pub separable: T,
    /// `[branches, outputs]`.
    pub scales: T,
}

/// What is not learnt.
#[derive(Clone, Copy, Debug)]
pub struct OrepaConstants<'a> {
    /// `[taps]`.
    pub window: &'a [f32],
    /// `[outputs, taps]`.
    pub prior: &'a [f32],
    /// Added to the first kernel of the sequence, of its shape.
    pub identity: &'a [f32],
}

impl<T> OrepaParts<T> {
    /// As a list in an order that is always the same.
    pub fn into_list(self) -> [T; 9] {
        [
            self.origin,
            self.average,
            self.frequency,
            self.first,
            self.second,
            self.pointwise,
            self.depthwise,
            self.separable,
            self.scales,
        ]
    }

    /// From the list of [`Self::into_list`].
    pub fn from_list(list: [T; 9]) -> Self {
        let [origin, average, frequency, first, second, pointwise, depthwise, separable, scales] =
            list;
        Self { origin, average, frequency, first, second, pointwise, depthwise, separable, scales }
    }
}
