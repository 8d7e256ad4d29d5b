//! A tensor that is saved with the weights and has no gradient.

use std::sync::{Mutex, MutexGuard, PoisonError};

use burn::module::{
    Content, Devices, Module, ModuleDisplay, ModuleDisplayDefault, ModuleMapper, ModuleVisitor,
    Param, ParamId,
};
use burn::tensor::{Device, Tensor};

/// A tensor that is saved with the weights, but has no gradient: a running statistic, which training
/// updates in the forward pass, or a constant of a block.
///
/// Unlike Burn's `RunningState`, an update counts at once: a model that is saved, loaded or
/// validated in the middle of training holds its newest statistics and no pending ones. And a
/// clone is a copy: training it leaves the original alone.
#[derive(Debug)]
pub struct Buffer<const D: usize = 1> {
    /// Without a gradient.
    value: Mutex<Param<Tensor<D>>>,
}

/// Whether the field of a module with this name is a buffer: what it holds is not learnt.
pub(crate) fn is_buffer(field: &str) -> bool {
    field.starts_with("running_") || field.starts_with("constant_")
}

impl<const D: usize> Buffer<D> {
    /// A buffer with its initial value.
    pub fn new(value: Tensor<D>) -> Self {
        Self::with_id(ParamId::new(), value)
    }

    /// A buffer whose initial value is computed when it is first needed, like that of Burn's
    /// parameters: a network that is only looked at takes no memory for it.
    pub fn lazy(
        shape: [usize; D],
        device: &Device,
        init: impl FnOnce(&Device) -> Tensor<D> + Send + Sync + 'static,
    ) -> Self {
        let init = move |device: &Device, _: bool| init(device);
        let param = Param::uninitialized(ParamId::new(), init, device.clone(), false, shape.into());
        Self { value: Mutex::new(param) }
    }

    fn with_id(id: ParamId, value: Tensor<D>) -> Self {
        let value = value.detach().set_require_grad(false);
        Self { value: Mutex::new(Param::initialized(id, value)) }
    }

    /// The newest value.
    pub fn value(&self) -> Tensor<D> {
        self.param().val()
    }

    /// Replaces the value.
    pub fn set(&self, value: Tensor<D>) {
        let mut param = self.lock();
        *param = Param::initialized(param.id, value.detach());
    }

    /// The value as it is visited: a later one does not change it.
    fn param(&self) -> Param<Tensor<D>> {
        self.lock().clone()
    }

    /// A value is replaced whole, so that a panic elsewhere cannot leave it half-written.
    fn lock(&self) -> MutexGuard<'_, Param<Tensor<D>>> {
        self.value.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn with_value(&self, f: impl FnOnce(Tensor<D>) -> Tensor<D>) -> Self {
        let param = self.param();
        Self::with_id(param.id, f(param.val()))
    }
}

impl<const D: usize> Clone for Buffer<D> {
    fn clone(&self) -> Self {
        Self { value: Mutex::new(self.param()) }
    }
}

impl<const D: usize> Module for Buffer<D> {
    fn collect_devices(&self, mut devices: Devices) -> Devices {
        let device = self.param().lazy_device();
        if !devices.contains(&device) {
            devices.push(device);
        }
        devices
    }

    fn fork(self, device: &Device) -> Self {
        self.to_device(device)
    }

    fn to_device(self, device: &Device) -> Self {
        self.with_value(|value| value.to_device(device))
    }

    fn materialize(self) -> Self {
        self
    }

    fn visit<V: ModuleVisitor>(&self, visitor: &mut V) {
        visitor.visit_float(&self.param());
    }

    fn map<M: ModuleMapper>(self, mapper: &mut M) -> Self {
        let mapped = mapper.map_float(self.param());
        if !mapped.is_initialized() {
            return Self { value: Mutex::new(mapped) };
        }
        let (id, value, _) = mapped.consume();
        Self::with_id(id, value)
    }

    fn valid(&self) -> Self {
        self.with_value(Tensor::without_autodiff)
    }

    fn train(self) -> Self {
        self.with_value(Tensor::from_inner)
    }
}

impl<const D: usize> std::fmt::Display for Buffer<D> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Buffer {{id: {}}}", self.param().id)
    }
}

impl<const D: usize> ModuleDisplayDefault for Buffer<D> {
    fn content(&self, content: Content) -> Option<Content> {
        content.add_formatted(&"Buffer".to_string()).optional()
    }
}

impl<const D: usize> ModuleDisplay for Buffer<D> {}

#[cfg(test)]
mod tests {
    use super::*;

    /// A module of one buffer.
    #[derive(Module, Debug)]
    struct Constants {
        constant: Buffer<2>,
    }

    #[test]
    fn a_lazy_value_is_computed_when_it_is_asked_for() {
        let device = Device::default();
        let module =
            Constants { constant: Buffer::lazy([2, 2], &device, |device| Tensor::eye(2, device)) };
        // What looks at a network, or freezes it, leaves it alone.
        assert_eq!(crate::state_dict::shapes(&module)["constant"], [2, 2]);
        let module = module.no_grad();
        assert_eq!(module.collect_devices(Vec::new()), [device]);
        assert!(!module.constant.param().is_initialized());
        let copy = module.clone();
        let eye = [1.0, 0.0, 0.0, 1.0];
        let values = |module: &Constants| {
            module.constant.value().into_data().iter::<f64>().collect::<Vec<_>>()
        };
        assert_eq!(values(&module), eye);
        module.constant.set(module.constant.value() * 2.0);
        assert_eq!(values(&module), [2.0, 0.0, 0.0, 2.0]);
        assert_eq!(values(&copy), eye, "a clone is a copy");
    }
}
