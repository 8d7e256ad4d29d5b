//! From the name of a device to the device; threads and instructions of the CPU.

use std::error::Error;

use burn::tensor::Device;

/// The devices this program can name: name, cargo feature, what it is.
const KINDS: [(&str, &str); 8] = [
    ("flex", "CPU, Burn's portable SIMD backend"),
    ("ndarray", "CPU, the older backend; slow, for comparison"),
    ("wgpu", "any GPU through WebGPU"),
    ("cuda", "NVIDIA GPU"),
    ("rocm", "AMD GPU"),
    ("metal", "Apple GPU"),
    ("vulkan", "any GPU through Vulkan"),
    ("cpu", "CPU through CubeCL"),
];

/// A device that cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum DeviceError {
    /// No such name.
    #[error(
        "unknown device \"{0}\"; expected one of flex, ndarray, wgpu, cuda:N, rocm:N, metal, vulkan, cpu"
    )]
    Unknown(String),
    /// The program was built without it.
    #[error(
        "the device \"{0}\" is not compiled into this program; build it with \
         `cargo build --release --features {1}`"
    )]
    NotCompiled(String, &'static str),
    /// It cannot train together with others.
    #[error(
        "the device \"{0}\" cannot train together with others: only cuda has Burn's collective \
         operations (NCCL); name cuda devices, for example --devices cuda:0,cuda:1, or one --device"
    )]
    Alone(String),
    /// It stands twice in a list.
    #[error("the device \"{0}\" is named twice; every one of --devices must be another")]
    Twice(String),
    /// The machine lacks it.
    #[error(
        "there is no device \"{0}\" on this machine ({1} of this kind found); `dbb devices` lists what is there"
    )]
    Absent(String, usize),
    /// More threads than are of any use.
    #[error(
        "--threads is {asked}; this machine runs {cores} at a time, and at most {most} are accepted"
    )]
    TooManyThreads {
        /// What was asked for.
        asked: usize,
        /// Threads that run at the same time.
        cores: usize,
        /// The bound.
        most: usize,
    },
    /// The system refuses threads.
    #[error(
        "the system does not give {asked} threads ({reason}); give fewer with --threads, or raise its \
         limit of processes (ulimit -u, pids.max of a container)"
    )]
    Threads {
        /// What was asked for.
        asked: usize,
        /// What the system says.
        reason: String,
    },
}

/// One line of `dbb devices`.
#[derive(Clone, Debug, serde::Serialize)]
pub struct DeviceInfo {
    /// Kind, also the cargo feature.
    pub kind: &'static str,
    /// What it is.
    pub description: &'static str,
    /// Whether the program was built with it.
    pub compiled: bool,
    /// Names of the devices found, as `--device` takes them.
    pub present: Vec<String>,
}

/// Threads that are accepted on a machine of few cores: enough to repeat a run of a large one.
const FEW_CORES: usize = 256;

/// Starts the threads of the CPU backends; `None` for one per core. Once in a process, before
/// anything is computed.
///
/// # Errors
/// More threads than four per core and than 256, or than the system gives.
pub fn start_threads(threads: Option<usize>) -> Result<(), DeviceError> {
    let cores = std::thread::available_parallelism().map_or(1, usize::from);
    let most = FEW_CORES.max(4 * cores);
    if let Some(asked) = threads.filter(|threads| *threads > most) {
        return Err(DeviceError::TooManyThreads { asked, cores, most });
    }
    // 0 is rayon's word for its own choice.
    let pool = rayon::ThreadPoolBuilder::new().num_threads(threads.unwrap_or(0));
    // Without a source the pool exists already, which is as well.
    match pool.build_global().as_ref().err().and_then(Error::source) {
        Some(reason) => Err(DeviceError::Threads {
            asked: threads.unwrap_or(cores),
            reason: reason.to_string(),
        }),
        None => Ok(()),
    }
}

/// The widest instruction set the kernels find on this processor: avx512, avx2 or portable. Results
/// are equal to the bit with equal threads and an equal instruction set.
pub fn instruction_set() -> &'static str {
    #[cfg(target_arch = "x86_64")]
    if is_x86_feature_detected!("avx2") && is_x86_feature_detected!("fma") {
        let wide = is_x86_feature_detected!("avx512f")
            && is_x86_feature_detected!("avx512vl")
            && is_x86_feature_detected!("avx512dq")
            && is_x86_feature_detected!("avx512bw");
        return if wide { "avx512" } else { "avx2" };
    }
    "portable"
}

/// Every kind of device, whether it is compiled in, and what this machine has of it.
pub fn list() -> Vec<DeviceInfo> {
    KINDS
        .into_iter()
        .map(|(kind, description)| {
            let found = count(kind);
            let name = |index: usize| match kind {
                "cuda" | "rocm" => format!("{kind}:{index}"),
                _ => kind.to_string(),
            };
            let numbered = matches!(kind, "cuda" | "rocm");
            let shown = found.map_or(0, |n| if numbered { n } else { n.min(1) });
            DeviceInfo {
                kind,
                description,
                compiled: found.is_some(),
                present: (0..shown).map(name).collect(),
            }
        })
        .collect()
}

/// The device of a name such as `flex` or `cuda:1`, without autodiff.
///
/// # Errors
/// A name that does not exist, is not compiled in, or is not on this machine.
pub fn open(name: &str) -> Result<Device, DeviceError> {
    let (kind, index) = match name.split_once(':') {
        Some((kind, index)) => (kind, index.parse().ok()),
        None => (name, Some(0)),
    };
    let known = KINDS.iter().find(|(known, _)| *known == kind);
    let (Some((kind, _)), Some(index)) = (known, index) else {
        return Err(DeviceError::Unknown(name.into()));
    };
    let numbered = matches!(*kind, "cuda" | "rocm");
    if index > 0 && !numbered {
        return Err(DeviceError::Unknown(name.into()));
    }
    match count(kind) {
        None => Err(DeviceError::NotCompiled(name.into(), kind)),
        Some(found) if index >= found => Err(DeviceError::Absent(name.into(), found)),
        Some(_) => make(kind, index).ok_or(DeviceError::NotCompiled(name.into(), kind)),
    }
}

/// How many devices of a kind there are; `None` if the program was built without it.
#[allow(unused_variables)] // depends on the features
fn count(kind: &str) -> Option<usize> {
    use burn::tensor::DeviceType;
    // Drivers that are absent make some runtimes panic rather than report no device.
    let enumerate = |kind: DeviceType| {
        std::panic::catch_unwind(|| Device::enumerate(kind).into_vec().len()).unwrap_or(0)
    };
    match kind {
        #[cfg(feature = "flex")]
        "flex" => Some(1),
        #[cfg(feature = "ndarray")]
        "ndarray" => Some(1),
        #[cfg(feature = "wgpu")]
        "wgpu" => Some(enumerate(DeviceType::Wgpu)),
        #[cfg(feature = "cuda")]
        "cuda" => Some(enumerate(DeviceType::Cuda)),
        #[cfg(feature = "rocm")]
        "rocm" => Some(enumerate(DeviceType::Rocm)),
        #[cfg(feature = "metal")]
        "metal" => Some(enumerate(DeviceType::Metal)),
        #[cfg(feature = "vulkan")]
        "vulkan" => Some(enumerate(DeviceType::Vulkan)),
        #[cfg(feature = "cpu")]
        "cpu" => Some(1),
        _ => None,
    }
}

#[allow(unused_variables)] // depends on the features
fn make(kind: &str, index: usize) -> Option<Device> {
    match kind {
        #[cfg(feature = "flex")]
        "flex" => Some(Device::flex()),
        #[cfg(feature = "ndarray")]
        #[allow(deprecated)] // still offered, for comparison
        "ndarray" => Some(Device::ndarray()),
        #[cfg(feature = "wgpu")]
        "wgpu" => Some(Device::wgpu(Default::default())),
        #[cfg(feature = "cuda")]
        "cuda" => Some(Device::cuda(index)),
        #[cfg(feature = "rocm")]
        "rocm" => Some(Device::rocm(index)),
        #[cfg(feature = "metal")]
        "metal" => Some(Device::metal(Default::default())),
        #[cfg(feature = "vulkan")]
        "vulkan" => Some(Device::vulkan(Default::default())),
        #[cfg(feature = "cpu")]
        "cpu" => Some(Device::cpu()),
        _ => None,
    }
}
