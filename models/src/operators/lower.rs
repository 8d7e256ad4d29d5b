//! From a walk to operators.

use std::cell::RefCell;
use std::fmt::Display;
use std::rc::Rc;

use burn::nn::Linear;
use burn::nn::conv::Conv2d;
use burn::nn::pool::{AdaptiveAvgPool2d, MaxPool2d};

use super::{Evaluator, Operator};
use crate::blocks::{Activation, Contents, ConvUnit, Epilogue, SqueezeExcite};
use crate::walk::{Interpreter, Walk};

/// Name of a network's input.
pub(crate) const IMAGES: &str = "images";

/// Reads a walk for an evaluator: all in `f32`, or in 8 bits but for some layers.
///
/// In 8 bits a value is rounded once, after a clamping activation. What only moves or pools values keeps
/// their range. A value stays in `f32` between layers that do.
pub(crate) struct Lowered<'a, E> {
    evaluator: &'a mut E,
    is_float: &'a dyn Fn(&str) -> bool,
}

impl<'a, E: Evaluator> Lowered<'a, E> {
    /// Runs a network; `is_float` says which layers compute in `f32`.
    pub fn run(
        network: &(impl Walk + ?Sized),
        evaluator: &'a mut E,
        is_float: &'a dyn Fn(&str) -> bool,
        images: E::Real,
    ) -> E::Real {
        let mut walk = Self { evaluator, is_float };
        let images = Value::real(IMAGES, images);
        let map = network.features(&mut walk, images);
        let logits = network.head(&mut walk, map);
        walk.numbers(&logits)
    }

    /// A value as real numbers.
    fn numbers(&mut self, value: &Value<E>) -> E::Real {
        let forms = &mut *value.forms.borrow_mut();
        match (&forms.real, &forms.integers) {
            (Some(real), _) => real.clone(),
            (None, Some(integers)) => {
                forms.real.insert(self.evaluator.dequantize(integers)).clone()
            }
            (None, None) => unreachable!("a value is made of one of them"),
        }
    }

    /// A value as integers.
    fn integers(&mut self, value: &Value<E>) -> E::Integers {
        let forms = &mut *value.forms.borrow_mut();
        match (&forms.integers, &forms.real) {
            (Some(integers), _) => integers.clone(),
            (None, Some(real)) => {
                forms.integers.insert(self.evaluator.quantize(&value.name, real)).clone()
            }
            (None, None) => unreachable!("a value is made of one of them"),
        }
    }

    /// A layer with weights, then the residual, then the activation.
    fn layer(
        &mut self,
        name: &str,
        layer: Operator<'_>,
        input: &Value<E>,
        epilogue: Epilogue<Value<E>>,
    ) -> Value<E> {
        let Epilogue { residual, activation } = epilogue;
        let sum = format!("{name}.add");
        let last = if residual.is_some() { &sum } else { name };
        if (self.is_float)(name) {
            let input = self.numbers(input);
            let mut output = self.evaluator.apply(name, layer, &[&input]);
            if let Some(residual) = &residual {
                let residual = self.numbers(residual);
                output = self.evaluator.apply(&sum, Operator::Add, &[&output, &residual]);
            }
            return match activation {
                None => Value::real(last, output),
                Some(activation) => {
                    let operator = Operator::Activation(activation);
                    let output = self.evaluator.apply(name, operator, &[&output]);
                    Value::real(&after(last, activation), output)
                }
            };
        }
        let input = self.integers(input);
        let clamp = activation.filter(|activation| activation.is_clamp());
        // The name of what is rounded last before anything but a clamp.
        let clamped = |last: &str| clamp.map_or_else(|| last.into(), |clamp| after(last, clamp));
        let output = match &residual {
            None => self.apply_to_integers(name, layer, &[&input], clamp, &clamped(name)),
            Some(residual) => {
                let output = self.apply_to_integers(name, layer, &[&input], None, name);
                let inputs = [&output, &self.integers(residual)];
                self.apply_to_integers(&sum, Operator::Add, &inputs, clamp, &clamped(&sum))
            }
        };
        let value = Value::integers(&clamped(last), output);
        match activation.filter(|activation| !activation.is_clamp()) {
            None => value,
            Some(activation) => self.activate(name, activation, &value),
        }
    }

    fn apply_to_integers(
        &mut self,
        name: &str,
        operator: Operator<'_>,
        inputs: &[&E::Integers],
        clamp: Option<Activation>,
        to: &str,
    ) -> E::Integers {
        self.evaluator.apply_to_integers(name, operator, inputs, clamp, to)
    }

    fn conv(
        &mut self,
        name: &str,
        conv: &Conv2d,
        input: &Value<E>,
        epilogue: Epilogue<Value<E>>,
    ) -> Value<E> {
        self.layer(name, Operator::Conv(conv), input, epilogue)
    }

    /// Applies an operator to integers if there are any, or else to real numbers.
    fn follow(
        &mut self,
        name: &str,
        operator: Operator<'_>,
        inputs: &[&Value<E>],
        to: &str,
    ) -> Value<E> {
        let are_integers = inputs.iter().all(|input| input.forms.borrow().integers.is_some());
        if are_integers {
            let inputs: Vec<_> = inputs.iter().map(|input| self.integers(input)).collect();
            let inputs: Vec<_> = inputs.iter().collect();
            return Value::integers(to, self.apply_to_integers(name, operator, &inputs, None, to));
        }
        let inputs: Vec<_> = inputs.iter().map(|input| self.numbers(input)).collect();
        let inputs: Vec<_> = inputs.iter().collect();
        Value::real(to, self.evaluator.apply(name, operator, &inputs))
    }

    /// A nonlinearity of its own.
    fn activate(&mut self, name: &str, activation: Activation, input: &Value<E>) -> Value<E> {
        let to = after(&input.name, activation);
        self.follow(name, Operator::Activation(activation), &[input], &to)
    }

    /// An operator that keeps the range of its input.
    fn keep_range(&mut self, name: &str, operator: Operator<'_>, input: &Value<E>) -> Value<E> {
        let range = input.name.clone();
        self.follow(name, operator, &[input], &range)
    }
}

/// The name of a value after an activation.
fn after(name: &str, activation: Activation) -> String {
    format!("{name}.{}", activation.name())
}

/// A value in one form or both.
pub(crate) struct Value<E: Evaluator> {
    /// Name of its range.
    name: Rc<str>,
    forms: Rc<RefCell<Forms<E>>>,
}

struct Forms<E: Evaluator> {
    real: Option<E::Real>,
    integers: Option<E::Integers>,
}

impl<E: Evaluator> Value<E> {
    fn real(name: &str, real: E::Real) -> Self {
        Self::new(name, Forms { real: Some(real), integers: None })
    }

    fn integers(name: &str, integers: E::Integers) -> Self {
        Self::new(name, Forms { real: None, integers: Some(integers) })
    }

    fn new(name: &str, forms: Forms<E>) -> Self {
        Self { name: name.into(), forms: Rc::new(RefCell::new(forms)) }
    }
}

impl<E: Evaluator> Clone for Value<E> {
    fn clone(&self) -> Self {
        Self { name: self.name.clone(), forms: self.forms.clone() }
    }
}

impl<'n, E: Evaluator> Interpreter<'n> for Lowered<'_, E> {
    type Map = Value<E>;
    type Features = Value<E>;

    fn unit(
        &mut self,
        name: &dyn Display,
        unit: &'n ConvUnit,
        input: Value<E>,
        epilogue: Epilogue<Value<E>>,
    ) -> Value<E> {
        let name = name.to_string();
        match unit.contents() {
            Contents::Folded(conv) => self.conv(&name, conv, &input, epilogue),
            Contents::Block(_) => self.conv(&name, &unit.fold(), &input, epilogue),
        }
    }

    fn max_pool(&mut self, name: &dyn Display, pool: &'n MaxPool2d, input: Value<E>) -> Value<E> {
        self.keep_range(&name.to_string(), Operator::MaxPool(pool), &input)
    }

    fn subsample(
        &mut self,
        name: &dyn Display,
        zero_channels: [usize; 2],
        input: Value<E>,
    ) -> Value<E> {
        self.keep_range(&name.to_string(), Operator::Subsample(zero_channels), &input)
    }

    fn squeeze_excite(
        &mut self,
        name: &dyn Display,
        layer: &'n SqueezeExcite,
        input: Value<E>,
    ) -> Value<E> {
        let [pool, fc1, fc2] = ["pool", "fc1", "fc2"].map(|part| format!("{name}.{part}"));
        let means = self.follow(&pool, Operator::Mean, &[&input], &pool);
        let squeezed = self.conv(&fc1, &layer.fc1, &means, Activation::Relu.into());
        let output = self.conv(&fc2, &layer.fc2, &squeezed, Epilogue::default());
        let gate = Operator::Gate(layer.gate());
        let weights = self.follow(&fc2, gate, &[&output], &format!("{fc2}.gate"));
        let name = &name.to_string();
        self.follow(name, Operator::Scale, &[&input, &weights], name)
    }

    fn activation(
        &mut self,
        name: &dyn Display,
        activation: Activation,
        input: Value<E>,
    ) -> Value<E> {
        let name = &name.to_string();
        let operator = Operator::Activation(activation);
        self.follow(name, operator, &[&input], &after(name, activation))
    }

    fn means(
        &mut self,
        name: &dyn Display,
        pool: &'n AdaptiveAvgPool2d,
        input: Value<E>,
    ) -> Value<E> {
        let name = &name.to_string();
        let means = if pool.output_size == [1, 1] {
            self.follow(name, Operator::Mean, &[&input], name)
        } else {
            let map = self.numbers(&input);
            match self.evaluator.size(&map) == pool.output_size {
                true => input,
                false => {
                    let operator = Operator::GridMeans(pool.output_size);
                    // Means lie within the range of the map.
                    Value::real(&input.name, self.evaluator.apply(name, operator, &[&map]))
                }
            }
        };
        self.keep_range(name, Operator::Flatten, &means)
    }

    fn linear(
        &mut self,
        name: &dyn Display,
        linear: &'n Linear,
        input: Value<E>,
        activation: Option<Activation>,
    ) -> Value<E> {
        let name = &name.to_string();
        if activation.is_none() && !(self.is_float)(name) {
            // Logits are real numbers.
            let input = self.integers(&input);
            return Value::real(name, self.evaluator.linear_of_integers(name, linear, &input));
        }
        let epilogue = Epilogue { residual: None, activation };
        self.layer(name, Operator::Linear(linear), &input, epilogue)
    }
}
