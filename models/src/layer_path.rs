//! Where a visitor of a network is.

/// The path of the module that a [`ModuleVisitor`](burn::module::ModuleVisitor) is in, as the
/// names of tensors have it: the variants of enums are no part of it.
#[derive(Clone, Debug, Default)]
pub struct LayerPath(Vec<String>);

impl LayerPath {
    /// To be called by `enter_module`, with its arguments.
    pub fn enter(&mut self, name: &str, container: &str) {
        if !container.starts_with("Enum:") {
            self.0.push(name.to_string());
        }
    }

    /// To be called by `exit_module`, with its second argument.
    pub fn exit(&mut self, container: &str) {
        if !container.starts_with("Enum:") {
            self.0.pop();
        }
    }

    /// The path, its parts joined by dots.
    pub fn name(&self) -> String {
        self.0.join(".")
    }
}
