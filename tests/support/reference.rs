//! The blocks in inference as their papers define them: branch by branch, unfused, in `f64`, one
//! value at a time. Nothing here calls the crate; a block is given by its tensors under the names
//! of the paper's code.

use dbb_models::blocks::ConvSpec;
use dbb_models::weights::StateDict;

use super::Array;

/// The output of a block of the given tensors; which branches there are shows in the keys.
pub fn forward(state: &StateDict, spec: &ConvSpec, input: &Array) -> Array {
    let block = Block { state, spec };
    let identity =
        |bn: &str| state.contains_key(&format!("{bn}.weight")).then(|| block.norm(bn).apply(input));
    let mut branches = vec![
        block.conv_bn("conv", "bn", input),
        block.conv_bn("dbb_origin.conv", "dbb_origin.bn", input),
        block.conv_bn("dbb_1x1.conv", "dbb_1x1.bn", input),
        block.pointwise_kxk(input),
        block.average(input),
        block.conv_bn("square_conv", "square_bn", input),
        block.conv_bn("ver_conv", "ver_bn", input),
        block.conv_bn("hor_conv", "hor_bn", input),
        block.conv_bn("rbr_dense.conv", "rbr_dense.bn", input),
        block.conv_bn("rbr_1x1.conv", "rbr_1x1.bn", input),
        block.conv_bn("rbr_scale.conv", "rbr_scale.bn", input),
        identity("rbr_identity"),
        identity("rbr_skip"),
        identity("dbb_identity"),
        block.orepa(input),
        block.orepa_1x1(input),
    ];
    for copies in ["rbr_conv", "dbb_copies"] {
        for copy in 0.. {
            let (conv, bn) = (format!("{copies}.{copy}.conv"), format!("{copies}.{copy}.bn"));
            let Some(branch) = block.conv_bn(&conv, &bn, input) else { break };
            branches.push(Some(branch));
        }
    }
    // QARepVGG: a bare 1x1 convolution, the input itself where the shape allows, and a norm of the
    // sum.
    let bare = block.get("rbr_1x1.weight");
    if let Some(weight) = &bare {
        branches.push(Some(block.window(input, &vec![0.0; input.shape[1]], weight)));
        let same = spec.channels[0] == spec.channels[1] && spec.stride == [1, 1];
        branches.push(same.then(|| input.clone()));
    }
    let sum = branches
        .into_iter()
        .flatten()
        .reduce(|mut sum, branch| {
            sum.data.iter_mut().zip(&branch.data).for_each(|(a, b)| *a += b);
            sum
        })
        .expect("a block has a branch");
    match bare {
        Some(_) => block.norm("bn").apply(&sum),
        None => sum,
    }
}

/// Whether each output position of a map, row-major, reads inputs only and no padding.
pub fn interior(spec: &ConvSpec, input: [usize; 2]) -> Vec<bool> {
    let inside = |axis: usize, position: usize| {
        let start = position * spec.stride[axis];
        start >= spec.padding[axis]
            && start + spec.kernel_size[axis] <= input[axis] + spec.padding[axis]
    };
    let [height, width] = spec.output_size(input);
    (0..height * width).map(|i| inside(0, i / width) && inside(1, i % width)).collect()
}

struct Block<'a> {
    state: &'a StateDict,
    spec: &'a ConvSpec,
}

impl Block<'_> {
    fn get(&self, key: &str) -> Option<Array> {
        self.state.get(key).map(Array::from)
    }

    /// A convolution whose kernel sits in the centre of the block's window, over zeros.
    fn conv_bn(&self, conv: &str, bn: &str, input: &Array) -> Option<Array> {
        let weight = self.get(&format!("{conv}.weight"))?;
        let zeros = vec![0.0; input.shape[1]];
        Some(self.norm(bn).apply(&self.window(input, &zeros, &weight)))
    }

    /// 1x1 convolution (`I + W` where the code calls it `idconv1`), BN, padding with the BN's
    /// image of zero, KxK convolution, BN.
    fn pointwise_kxk(&self, input: &Array) -> Option<Array> {
        let weight = match self.get("dbb_1x1_kxk.idconv1.weight") {
            Some(mut weight) => {
                let per_group = weight.shape[1];
                for channel in 0..weight.shape[0] {
                    weight.data[channel * per_group + channel % per_group] += 1.0;
                }
                weight
            }
            None => self.get("dbb_1x1_kxk.conv1.weight")?,
        };
        let norm = self.norm("dbb_1x1_kxk.bn1.bn");
        let between = norm.apply(&pointwise(input, &weight, self.spec.groups));
        let second = self.get("dbb_1x1_kxk.conv2.weight").expect("the second kernel");
        let output = self.window(&between, &norm.image_of_zero(), &second);
        Some(self.norm("dbb_1x1_kxk.bn2").apply(&output))
    }

    /// 1x1 convolution, BN, padding with the BN's image of zero, average pool, BN; a depthwise
    /// block pools its zero-padded input.
    fn average(&self, input: &Array) -> Option<Array> {
        self.get("dbb_avg.avgbn.weight")?;
        let (map, border) = match self.get("dbb_avg.conv.weight") {
            Some(weight) => {
                let norm = self.norm("dbb_avg.bn.bn");
                let map = norm.apply(&pointwise(input, &weight, self.spec.groups));
                (map, norm.image_of_zero())
            }
            None => (input.clone(), vec![0.0; input.shape[1]]),
        };
        let channels = map.shape[1];
        let [kh, kw] = self.spec.kernel_size;
        let mean =
            Array::new(&[channels, 1, kh, kw], vec![1.0 / (kh * kw) as f64; channels * kh * kw]);
        let spec = ConvSpec { groups: channels, ..self.spec.clone() };
        let pooled = Block { spec: &spec, ..*self }.window(&map, &border, &mean);
        Some(self.norm("dbb_avg.avgbn").apply(&pooled))
    }

    /// OREPA: the branches by their convolutions, one after the other, each output channel scaled by
    /// its row of `vector`; then the norm. No convolution has a bias, so that zeros pad.
    fn orepa(&self, input: &Array) -> Option<Array> {
        let get = |name: &str| self.get(&format!("weight_orepa_{name}"));
        let origin = get("origin")?;
        let [outputs, _, side, _] = origin.shape[..] else { panic!("a kernel has four axes") };
        let groups = self.spec.groups;
        let zeros = |map: &Array| vec![0.0; map.shape[1]];
        let windowed = |map: &Array, weight: &Array, groups: usize| {
            let spec = ConvSpec { groups, ..self.spec.clone() };
            Block { spec: &spec, ..*self }.window(map, &zeros(map), weight)
        };
        let get = |name: &str| get(name).unwrap_or_else(|| panic!("no {name}"));

        let window = get("avg_avg").data;
        let means = Array::new(&[outputs, 1, side, side], window.repeat(outputs));
        let average = windowed(&pointwise(input, &get("avg_conv"), groups), &means, outputs);

        let prior = Array::new(&[outputs, 1, side, side], get("prior").data);
        let frequency = windowed(&pointwise(input, &get("pfir_conv"), groups), &prior, outputs);

        let mut first = get("1x1_kxk_idconv1");
        let identity = self.get("id_tensor").expect("an identity").data;
        first.data.iter_mut().zip(identity).for_each(|(weight, one)| *weight += one);
        let sequence = windowed(&pointwise(input, &first, groups), &get("1x1_kxk_conv2"), groups);

        let filtered = {
            let spec = ConvSpec { groups: input.shape[1], stride: [1, 1], ..self.spec.clone() };
            Block { spec: &spec, ..*self }.window(input, &zeros(input), &get("gconv_dw"))
        };
        // Output `j` of group `g` has row `j groups + g` of the 1x1 kernel.
        let rows = get("gconv_pw");
        let (width, of_group) = (rows.shape[1], outputs / groups);
        let order = (0..outputs).map(|o| o % of_group * groups + o / of_group);
        let data = order.flat_map(|row| rows.data[row * width..][..width].to_vec()).collect();
        let filters = Array::new(&[outputs, width, 1, 1], data);
        let separable = strided(&pointwise(&filtered, &filters, groups), self.spec.stride);

        let branches = [
            windowed(input, &origin, groups),
            average,
            frequency,
            sequence,
            windowed(input, &get("1x1"), groups),
            separable,
        ];
        Some(self.norm("bn").apply(&self.scaled_sum(&branches)))
    }

    fn orepa_1x1(&self, input: &Array) -> Option<Array> {
        let origin = self.get("weight_or1x1_origin")?;
        let get = |name: &str| self.get(&format!("weight_or1x1_l2i_{name}")).expect("a kernel");
        let between = pointwise(input, &get("conv1"), 1);
        let [origin, product] = [(input, origin), (&between, get("conv2"))]
            .map(|(map, weight)| strided(&pointwise(map, &weight, 1), self.spec.stride));
        Some(self.norm("bn").apply(&self.scaled_sum(&[origin, product])))
    }

    /// The sum of maps, each channel times its value in the map's row of `vector`.
    fn scaled_sum(&self, branches: &[Array]) -> Array {
        let vector = self.get("vector").expect("a vector");
        let [outputs, area] = [1, 2].map(|axis| match axis {
            1 => branches[0].shape[1],
            _ => branches[0].shape[2] * branches[0].shape[3],
        });
        let value = |i: usize| {
            let channel = i / area % outputs;
            let scaled = branches.iter().enumerate();
            scaled.map(|(row, map)| vector.data[row * outputs + channel] * map.data[i]).sum()
        };
        Array::new(&branches[0].shape, (0..branches[0].data.len()).map(value).collect())
    }

    /// A convolution with the block's stride and groups whose kernel sits in the centre of the
    /// block's window; positions outside of the map hold the border value of their channel.
    fn window(&self, input: &Array, border: &[f64], weight: &Array) -> Array {
        let (stride, groups) = (self.spec.stride, self.spec.groups);
        let size = self.spec.output_size([input.shape[2], input.shape[3]]);
        let origin = [0, 1].map(|axis| {
            let centred = (self.spec.kernel_size[axis] - weight.shape[2 + axis]) / 2;
            centred as isize - self.spec.padding[axis] as isize
        });
        convolve(input, border, weight, groups, stride, origin, size)
    }

    fn norm(&self, key: &str) -> Norm {
        let get = |tensor: &str| {
            let key = format!("{key}.{tensor}");
            self.get(&key).unwrap_or_else(|| panic!("no tensor {key}")).data
        };
        Norm {
            gamma: get("weight"),
            beta: get("bias"),
            mean: get("running_mean"),
            var: get("running_var"),
        }
    }
}

/// Every so many rows and columns of a map.
fn strided(map: &Array, stride: [usize; 2]) -> Array {
    let [batch, channels, height, width] = map.shape[..] else { panic!("a map has four axes") };
    let size = [height.div_ceil(stride[0]), width.div_ceil(stride[1])];
    let mut data = Vec::new();
    for plane in map.data.chunks(height * width) {
        for y in (0..height).step_by(stride[0]) {
            data.extend((0..width).step_by(stride[1]).map(|x| plane[y * width + x]));
        }
    }
    Array::new(&[batch, channels, size[0], size[1]], data)
}

fn pointwise(input: &Array, weight: &Array, groups: usize) -> Array {
    let border = vec![0.0; input.shape[1]];
    let size = [input.shape[2], input.shape[3]];
    convolve(input, &border, weight, groups, [1, 1], [0, 0], size)
}

/// The definition of a convolution: output `(y, x)` sums the products of the taps `(dy, dx)`
/// with the input at `(y, x) * stride + (dy, dx) + origin`.
fn convolve(
    input: &Array,
    border: &[f64],
    weight: &Array,
    groups: usize,
    stride: [usize; 2],
    origin: [isize; 2],
    [height, width]: [usize; 2],
) -> Array {
    let [batch, inputs, rows, columns] = input.shape[..] else { panic!("a map has four axes") };
    let [outputs, per_group, kh, kw] = weight.shape[..] else { panic!("a kernel has four axes") };
    assert_eq!(inputs, per_group * groups, "input channels");
    let at = |n: usize, c: usize, y: isize, x: isize| {
        let inside = (0..rows as isize).contains(&y) && (0..columns as isize).contains(&x);
        if inside {
            input.data[((n * inputs + c) * rows + y as usize) * columns + x as usize]
        } else {
            border[c]
        }
    };
    let mut data = Vec::with_capacity(batch * outputs * height * width);
    for n in 0..batch {
        for o in 0..outputs {
            let first = o / (outputs / groups) * per_group;
            for y in 0..height {
                for x in 0..width {
                    let top = (y * stride[0]) as isize + origin[0];
                    let left = (x * stride[1]) as isize + origin[1];
                    let mut sum = 0.0;
                    for i in 0..per_group {
                        for dy in 0..kh {
                            for dx in 0..kw {
                                let tap = weight.data[((o * per_group + i) * kh + dy) * kw + dx];
                                sum +=
                                    tap * at(n, first + i, top + dy as isize, left + dx as isize);
                            }
                        }
                    }
                    data.push(sum);
                }
            }
        }
    }
    Array::new(&[batch, outputs, height, width], data)
}

/// Batch norm in inference.
struct Norm {
    gamma: Vec<f64>,
    beta: Vec<f64>,
    mean: Vec<f64>,
    var: Vec<f64>,
}

impl Norm {
    fn value(&self, channel: usize, input: f64) -> f64 {
        let std = (self.var[channel] + 1e-5).sqrt();
        (input - self.mean[channel]) / std * self.gamma[channel] + self.beta[channel]
    }

    fn apply(&self, map: &Array) -> Array {
        let [_, channels, height, width] = map.shape[..] else { panic!("a map has four axes") };
        let value = |(i, &v): (usize, &f64)| self.value(i / (height * width) % channels, v);
        Array::new(&map.shape, map.data.iter().enumerate().map(value).collect())
    }

    fn image_of_zero(&self) -> Vec<f64> {
        (0..self.gamma.len()).map(|channel| self.value(channel, 0.0)).collect()
    }
}
