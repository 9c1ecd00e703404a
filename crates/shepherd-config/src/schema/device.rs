//! `devices`: what of the machine's hardware a sheep may use.

use std::path::PathBuf;

use crate::read::{Section, Value, quote};

/// A device that a sheep may use.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Device {
    /// `/dev/nvidiaN`, by its number.
    Gpu(u32),
    /// Any other, below `/dev`.
    Path(PathBuf),
}

/// The list, each entry read by `one`; empty where the key is absent.
pub(super) fn read(section: &Section<'_>, one: fn(&Value<'_>) -> Option<Device>) -> Option<Vec<Device>> {
    let Some(value) = section.get("devices") else { return Some(Vec::new()) };
    let devices = value.list(one)?;
    for (index, device) in devices.iter().enumerate() {
        if devices[..index].contains(device) {
            let named = match device {
                Device::Gpu(number) => format!("/dev/nvidia{number}"),
                Device::Path(path) => path.display().to_string(),
            };
            value.fail(format!("names {} twice, expected each device once", quote(&named)));
            return None;
        }
    }
    Some(devices)
}

pub(super) fn gpu_only(value: &Value<'_>) -> Option<Device> {
    let gpu = gpu(value.text()?);
    if gpu.is_none() {
        value.wrong("/dev/nvidiaN with the number of a GPU, as a bare sheep can be given no other device");
    }
    gpu.map(Device::Gpu)
}

pub(super) fn any(value: &Value<'_>) -> Option<Device> {
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
