//! GPUs in a container: by the runtime `nvidia` and a variable, or by device request.
//!
//! `NVIDIA_VISIBLE_DEVICES` is always ours to set where nothing else says which GPUs
//! there are: images often ask for all of them by it, and an engine whose default
//! runtime is NVIDIA's would obey.

use bollard::models::DeviceRequest;

use super::{DockerOptions, Gpus};

/// Says which GPUs NVIDIA's runtime brings in.
pub(super) const VISIBLE: &str = "NVIDIA_VISIBLE_DEVICES";
/// Brings in no GPU, also with NVIDIA's runtime. Runners of the first shepherd count GPUs by it: `void` would be one.
const NONE: &str = "";
/// The runtime that brings in GPUs of [`VISIBLE`].
pub(super) const RUNTIME: &str = "nvidia";

/// The numbers of `/dev/nvidiaN` among the devices.
pub(super) fn numbers(devices: &[String]) -> Vec<&str> {
    devices.iter().filter_map(|device| number(device)).collect()
}

pub(super) fn number(device: &str) -> Option<&str> {
    let number = device.strip_prefix("/dev/nvidia")?;
    (!number.is_empty() && number.bytes().all(|b| b.is_ascii_digit())).then_some(number)
}

/// The value of [`VISIBLE`], unless a device request says it.
pub(super) fn visible(options: &DockerOptions) -> Option<String> {
    let numbers = numbers(&options.devices);
    if !numbers.is_empty() {
        return Some(numbers.join(","));
    }
    let is_configured = options.env.iter().any(|(name, _)| name == VISIBLE);
    (options.gpus.is_none() && !is_configured).then(|| NONE.to_owned())
}

pub(super) fn requests(options: &DockerOptions) -> Vec<DeviceRequest> {
    let gpus = options.gpus.as_ref().map(|gpus| {
        let (count, device_ids) = match gpus {
            Gpus::All => (Some(-1), None),
            Gpus::Count(count) => (Some(i64::from(*count)), None),
            Gpus::Ids(ids) => (None, Some(ids.clone())),
        };
        DeviceRequest {
            driver: Some(String::new()),
            count,
            device_ids,
            capabilities: Some(vec![vec!["gpu".to_owned()]]),
            options: None,
        }
    });
    let cdi = (!options.cdi.is_empty()).then(|| DeviceRequest {
        driver: Some("cdi".to_owned()),
        device_ids: Some(options.cdi.clone()),
        ..DeviceRequest::default()
    });
    gpus.into_iter().chain(cdi).collect()
}
