//! The tensors that an operation takes, by name.

/// Everything that an operation may have a gradient of. `T` is what stands for a tensor: the
/// tensor itself, its values, its gradient, whether that is wanted.
#[derive(Clone, Debug)]
pub(crate) struct Inputs<T> {
    /// The input map.
    pub map: T,
    /// Added to the output.
    pub residual: Option<T>,
    pub branches: Vec<BranchParams<T>>,
    /// The norm of the sum.
    pub outer: Option<NormParams<T>>,
}

/// The parameters of a branch.
#[derive(Clone, Debug)]
pub(crate) struct BranchParams<T> {
    /// Of a convolution.
    pub weight: Option<T>,
    /// Of the 1x1 convolution that opens the branch.
    pub opening: Option<ConvNormParams<T>>,
    /// Of the norm that closes it.
    pub norm: Option<NormParams<T>>,
}

/// Weight, scale and shift of a convolution and its norm.
#[derive(Clone, Debug)]
pub(crate) struct ConvNormParams<T> {
    pub weight: T,
    pub norm: NormParams<T>,
}

/// Scale and shift of a norm.
#[derive(Clone, Debug)]
pub(crate) struct NormParams<T> {
    pub gamma: T,
    pub beta: T,
}

impl<T> Inputs<T> {
    /// An input map alone.
    pub fn of_map(map: T) -> Self {
        Self { map, residual: None, branches: Vec::new(), outer: None }
    }

    /// Replaces every tensor, in an order that is always the same.
    pub fn map<U>(self, mut with: impl FnMut(T) -> U) -> Inputs<U> {
        let with = &mut with;
        Inputs {
            map: with(self.map),
            residual: self.residual.map(&mut *with),
            branches: self.branches.into_iter().map(|branch| branch.map(with)).collect(),
            outer: self.outer.map(|norm| norm.map(with)),
        }
    }

    /// Every tensor, and the form to name another list by.
    pub fn into_list(self) -> (Inputs<()>, Vec<T>) {
        let mut list = Vec::new();
        (self.map(|tensor| list.push(tensor)), list)
    }
}

impl Inputs<()> {
    /// Names what a list holds in the order of [`Inputs::into_list`].
    pub fn name<U>(&self, list: impl IntoIterator<Item = U>) -> Inputs<U> {
        let mut list = list.into_iter();
        self.clone().map(|()| list.next().expect("a list of this form"))
    }
}

impl<T> BranchParams<T> {
    fn map<U>(self, with: &mut impl FnMut(T) -> U) -> BranchParams<U> {
        BranchParams {
            weight: self.weight.map(&mut *with),
            opening: self.opening.map(|opening| ConvNormParams {
                weight: with(opening.weight),
                norm: opening.norm.map(with),
            }),
            norm: self.norm.map(|norm| norm.map(with)),
        }
    }
}

impl<T> NormParams<T> {
    fn map<U>(self, with: &mut impl FnMut(T) -> U) -> NormParams<U> {
        NormParams { gamma: with(self.gamma), beta: with(self.beta) }
    }
}
