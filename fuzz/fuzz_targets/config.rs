//! A configuration file, and an override. What is read is read again as it is written out.
#![no_main]

use dbb_training::config::Config;
use libfuzzer_sys::fuzz_target;

const BASE: &str = include_str!("../../configs/quick/resnet20-base.toml");

fuzz_target!(|bytes: &[u8]| {
    let folder = dbb_fuzz::folder([("base.toml", BASE.as_bytes()), ("config.toml", bytes)]);
    let load = |name: &str, overrides: &[String]| {
        let config = Config::load(&folder.path().join(name), overrides).ok()?;
        let again = dbb_fuzz::folder([("config.toml", config.to_toml().as_bytes())]);
        let again = Config::load(&again.path().join("config.toml"), &[]);
        assert_eq!(config, again.expect("a configuration written out can be read"));
        Some(config)
    };
    load("config.toml", &[]);
    load("base.toml", &[String::from_utf8_lossy(bytes).into_owned()]);
});
