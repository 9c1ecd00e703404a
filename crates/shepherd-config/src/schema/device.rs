//! `devices`, `gpus` and `cdi`: what of the machine's hardware a sheep may use.

use std::fmt;
use std::path::PathBuf;

use crate::read::{Section, Value};

/// A device that a sheep may use.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Device {
    /// `/dev/nvidiaN`, by its number.
    Gpu(u32),
    /// Any other, below `/dev`.
    Path(PathBuf),
}

impl fmt::Display for Device {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Gpu(number) => write!(f, "/dev/nvidia{number}"),
            Self::Path(path) => write!(f, "{}", path.display()),
        }
    }
}

/// GPUs that a container asks the engine for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Gpus {
    /// All there are.
    All,
    /// A number of devices, at least one.
    Count(u32),
    /// These, by number or UUID; never empty.
    Ids(Vec<String>),
}

/// The list; empty where the key is absent.
pub(super) fn read(section: &Section<'_>) -> Option<Vec<Device>> {
    let Some(value) = section.get("devices") else { return Some(Vec::new()) };
    value.list(one).and_then(|devices| value.each_once(devices, "device"))
}

/// Only GPUs matter to a bare sheep: it can use other devices anyway.
fn one(value: &Value<'_>) -> Option<Device> {
    let text = value.text()?;
    if let Some(number) = gpu(text) {
        return Some(Device::Gpu(number));
    }
    let below_dev = text.strip_prefix("/dev/").is_some_and(|name| {
        !name.contains('\0') && name.split('/').all(|part| !matches!(part, "" | "." | ".."))
    });
    if !below_dev {
        value.wrong("a device such as /dev/nvidia0 or /dev/snd");
        return None;
    }
    Some(Device::Path(PathBuf::from(text)))
}

fn gpu(text: &str) -> Option<u32> {
    let number = text.strip_prefix("/dev/nvidia")?;
    number.parse().ok().filter(|_| number.bytes().all(|b| b.is_ascii_digit()))
}

/// `gpus`: `all`, how many, or which.
pub(super) fn gpus(value: &Value<'_>) -> Option<Gpus> {
    const EXPECTED: &str = "`all`, how many GPUs, or a list such as `[0, 1]`";
    if let Some(text) = value.scalar() {
        if text.eq_ignore_ascii_case("all") {
            return Some(Gpus::All);
        }
        let count = text.parse().ok().filter(|&count| count > 0 && !text.starts_with('+'));
        if count.is_none() {
            value.wrong(EXPECTED);
        }
        return count.map(Gpus::Count);
    }
    if value.is_map() {
        value.wrong(EXPECTED);
        return None;
    }
    let ids = value.list(gpu_id).and_then(|ids| value.each_once(ids, "GPU"))?;
    if ids.is_empty() {
        value.fail(format!("names no GPU, expected {EXPECTED}"));
        return None;
    }
    Some(Gpus::Ids(ids))
}

/// A number, a UUID such as `GPU-...`, or a part of one such as `MIG-...` or `0:1`.
fn gpu_id(value: &Value<'_>) -> Option<String> {
    let text = value.text()?;
    let legal = text.bytes().all(|b| b.is_ascii_alphanumeric() || matches!(b, b'-' | b':' | b'/'));
    if !legal || !text.starts_with(|c: char| c.is_ascii_alphanumeric()) {
        value.wrong("the number or UUID of a GPU");
        return None;
    }
    Some(text.to_owned())
}

/// `cdi`: devices by the names of the Container Device Interface.
pub(super) fn cdi(section: &Section<'_>) -> Option<Vec<String>> {
    let Some(value) = section.get("cdi") else { return Some(Vec::new()) };
    value.list(cdi_name).and_then(|names| value.each_once(names, "device"))
}

/// `VENDOR/CLASS=NAME`, as far as its characters tell.
fn cdi_name(value: &Value<'_>) -> Option<String> {
    let text = value.text()?;
    let part = |part: &str, more: &[u8]| {
        part.starts_with(|c: char| c.is_ascii_alphanumeric())
            && part.bytes().all(|b| b.is_ascii_alphanumeric() || more.contains(&b))
    };
    let legal = text
        .split_once('=')
        .and_then(|(kind, name)| kind.split_once('/').map(|(vendor, class)| (vendor, class, name)))
        .is_some_and(|(vendor, class, name)| {
            part(vendor, b"._-") && part(class, b"_-") && part(name, b"._-:")
        });
    if !legal {
        value.wrong("the CDI name of a device such as nvidia.com/gpu=0");
        return None;
    }
    Some(text.to_owned())
}
